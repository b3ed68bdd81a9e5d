"""Health of a loaded graph: where it runs, what optimization left of its quantization, and what the CPU makes of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from otel_quantmon.models.formats.facts import ModelFacts

__all__ = [
    "GraphHealth",
    "is_everywhere",
    "is_plain",
    "is_worse",
    "lost_provider",
    "may_saturate",
    "unfused_pairs",
]


@dataclass(frozen=True, slots=True)
class GraphHealth:
    """What is known of a loaded graph.

    Attributes:
        nodes: Nodes by execution provider or delegate; empty where the runtime does not say.
        unfused: Pairs of QuantizeLinear and DequantizeLinear left after optimization, None if unknown.
    """

    nodes: Mapping[str, int]
    unfused: int | None = None


_OF_CPUS = frozenset(
    {
        "XNNPACK",
        "XnnpackExecutionProvider",
        "DnnlExecutionProvider",
        "ACLExecutionProvider",
        "ArmNNExecutionProvider",
    }
)


def lost_provider(requested: Sequence[str], actual: Collection[str]) -> str | None:
    """Return the first provider that was requested and is not there, None if all are."""
    return next((provider for provider in requested if provider not in actual), None)


def is_plain(provider: str) -> bool:
    """Return True if ``provider`` is what a runtime has left when all that would be faster is gone."""
    return provider in ("CPU", "CPUExecutionProvider")


def is_everywhere(provider: str) -> bool:
    """Return True if ``provider`` needs nothing but a CPU, so that all hosts of a type have it."""
    return provider in _OF_CPUS or is_plain(provider)


def is_worse(provider: str, before: str, requested: Sequence[str]) -> bool:
    """Return True if a model that ran on ``before`` has lost by running on ``provider``.

    Args:
        provider, before: Execution providers.
        requested: Providers that the application asked for when it loaded the model, the best first.
    """
    if is_plain(provider) or is_plain(before):
        return is_plain(provider) and not is_plain(before)
    # Which of two is faster only the application knows.
    wanted = requested.index(before) if before in requested else len(requested)
    return wanted < (requested.index(provider) if provider in requested else len(requested))


def unfused_pairs(optimized: ModelFacts) -> int:
    """Q/DQ pairs in an optimized graph: each moves a tensor to float and back for nothing."""
    return min(optimized.operators.get("QuantizeLinear", 0), optimized.operators.get("DequantizeLinear", 0))


def may_saturate(facts: ModelFacts, cpu: str) -> bool:
    """Return True if products of uint8 activations and int8 weights can saturate on ``cpu``.

    x86 without VNNI adds pairs of them in int16, which 255·127·2 exceeds (ONNX Runtime's documentation, "Quantize
    ONNX Models", on U8S8 and reduce_range).

    Args:
        facts: Facts of the model.
        cpu: Name of the CPU's instruction set, as `process.host.cpu_isa` gives it.
    """
    features = cpu.split("+")
    x86 = features[0].lower() in ("x86_64", "amd64", "i686")
    safe = {"avx512_vnni", "avx_vnni", "amx_int8"} & set(features)
    codes = (facts.activation_type, facts.weight_type)
    return x86 and not safe and facts.format in ("onnx", "ort") and codes == ("uint8", "int8")
