"""``quantmon inspect``: what a model is, what this host makes of it, and what to do about that."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from otel_quantmon.cli.output import number, table, write_json
from otel_quantmon.cli.trial import Trial, try_model
from otel_quantmon.desk.text import bytes_text, seconds_text
from otel_quantmon.fidelity.engines import EngineError
from otel_quantmon.fidelity.numerics.dequantization import NotComparableError, code_range
from otel_quantmon.models.formats import ModelFacts, TensorFacts, read_facts
from otel_quantmon.models.graph_health import may_saturate
from otel_quantmon.process.host import cpu_isa

__all__ = ["inspect_command"]

# Instructions that multiply and add int8 in one step: without any of them int8 is hardly faster than float.
_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"}
# Share of a call from which the cost of a span is worth a word.
_COSTLY = 0.05


def inspect_command(arguments: Namespace) -> int:
    """Inspect a model; see ``quantmon inspect --help``.

    Raises:
        ModelFormatError: The file is no model, or damaged.
        OSError: It cannot be read.
    """
    facts = read_facts(arguments.model)
    trial, why_not = None, "--no-load was given"
    if arguments.load:
        # What is logged of a model that is loaded is advice here.
        logger = logging.getLogger("otel_quantmon")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            trial = try_model(arguments.model, facts)
        except EngineError as error:
            why_not = str(error)
        finally:
            logger.setLevel(level)
    isa = cpu_isa()
    advice = _advice(facts, trial, isa)
    if arguments.json:
        write_json(_as_json(arguments.model, facts, trial, why_not, isa, advice))
    else:
        _show(arguments.model, facts, trial, why_not, isa, advice)
    return 0


def _range(tensor: TensorFacts) -> tuple[float, float] | None:
    """Smallest and largest value that the tensor's codes can stand for, None without quantization."""
    found = tensor.quantization
    if found is None:
        return None
    try:
        low, high = code_range(found.dtype)
    except NotComparableError:
        return None
    pairs = list(zip(found.scales, found.zero_points, strict=True))
    return (
        min(scale * (low - zero) for scale, zero in pairs),
        max(scale * (high - zero) for scale, zero in pairs),
    )


def _advice(facts: ModelFacts, trial: Trial | None, isa: str) -> list[str]:
    advice: list[str] = []
    instructions = set(isa.split("+")[1:])
    quantized = facts.scheme not in ("none", "unknown")
    if may_saturate(facts, isa):
        advice.append(
            "products of uint8 activations and int8 weights can saturate on this CPU: quantize with "
            "reduce_range=True or to int8 activations, or set session.x64quantprecision to 1 (slower, exact)"
        )
    if facts.weight_type in ("int8", "uint8") and quantized and not instructions & _DOT_PRODUCTS:
        advice.append(
            "this CPU has no dot product of int8 (VNNI, AMX, i8mm): int8 may be no faster here than float; "
            "quantmon compare measures it"
        )
    if facts.stateful:
        advice.append(
            "the model keeps its state in the runtime, so single calls cannot be compared with a float reference: "
            "record a baseline (quantmon baseline record)"
        )
    elif quantized:
        advice.append(
            'give it its float original, for the error of quantization: QUANTMON_REFERENCE="name=float model"'
        )
    else:
        advice.append(
            "it is not quantized: latency, failures and memory are watched, but there is no quantization error"
        )
    advice.extend(f"{fact} is not known: {reason}" for fact, reason in facts.unknown.items())
    if trial is not None:
        advice += _advice_of_trial(trial)
    return advice


def _advice_of_trial(trial: Trial) -> list[str]:
    advice: list[str] = []
    if trial.health.unfused:
        advice.append(
            f"{trial.health.unfused} pairs of QuantizeLinear and DequantizeLinear are left after optimization, each of "
            "which moves a tensor to float and back: see that operators between them have an int8 kernel"
        )
    if len(trial.health.nodes) > 1:
        advice.append(
            "nodes run in several places, and tensors are copied between them: see which operators the first "
            "provider lacks"
        )
    if trial.cost is not None and trial.cost.spanned > _COSTLY * trial.cost.duration:
        share = trial.cost.spanned / trial.cost.duration
        advice.append(
            f"a span for each call would cost {share:.0%} of it: keep QUANTMON_SPANS at auto, which has a budget"
        )
    return advice


def _tensor(tensor: TensorFacts) -> dict[str, Any]:
    found = _range(tensor)
    return {
        "name": tensor.name,
        "type": tensor.dtype,
        "shape": None if tensor.shape is None else list(tensor.shape),
        "range": None if found is None else list(found),
    }


def _as_json(
    path: str, facts: ModelFacts, trial: Trial | None, why_not: str, isa: str, advice: Sequence[str]
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "file": path,
        "format": facts.format,
        "scheme": facts.scheme,
        "weight_type": facts.weight_type,
        "activation_type": facts.activation_type,
        "name": facts.name if trial is None else trial.name,
        "version": facts.version,
        "size": facts.size,
        "stateful": facts.stateful,
        "inputs": [_tensor(tensor) for tensor in facts.inputs],
        "outputs": [_tensor(tensor) for tensor in facts.outputs],
        "operators": dict(facts.operators),
        "host": {
            "machine": isa.split("+", maxsplit=1)[0],
            "int8_instructions": isa.split("+")[1:],
            "may_saturate": may_saturate(facts, isa),
        },
        "runtime": None,
        "not_loaded": why_not if trial is None else None,
        "unknown": dict(facts.unknown),
        "advice": list(advice),
    }
    if trial is not None:
        cost = trial.cost
        shown["runtime"] = {
            "name": trial.loaded.runtime,
            "version": trial.loaded.runtime_version,
            "providers": list(trial.loaded.providers or (trial.loaded.provider,)),
            "nodes": dict(trial.health.nodes),
            "unfused_pairs": trial.health.unfused,
            "cost": None
            if cost is None
            else {"duration": cost.duration, "counted": cost.counted, "with_span": cost.spanned},
            "why_no_cost": trial.why_no_cost or None,
        }
    return shown


def _show(
    path: str, facts: ModelFacts, trial: Trial | None, why_not: str, isa: str, advice: Sequence[str]
) -> None:
    machine, *instructions = isa.split("+")
    rows = [
        ["format", facts.format],
        ["scheme", facts.scheme],
        ["weights", facts.weight_type or "-"],
        ["activations", facts.activation_type or "-"],
        ["size", bytes_text(facts.size)],
        ["operators", f"{sum(facts.operators.values()):,}"],
        ["int8 on this CPU", f"{machine}: {', '.join(instructions) or 'none known'}"],
    ]
    if trial is None:
        rows.append(["runtime", f"not loaded: {why_not}"])
    else:
        rows += _rows_of(trial)
    table(path, ["what", "found"], rows)
    tensors = [("input", tensor) for tensor in facts.inputs] + [
        ("output", tensor) for tensor in facts.outputs
    ]
    table(
        "inputs and outputs",
        ["name", "is", "type", "shape", "smallest", "largest"],
        [
            [
                tensor.name,
                what,
                tensor.dtype,
                "?" if tensor.shape is None else "x".join("?" if d is None else str(d) for d in tensor.shape),
                *(["-", "-"] if (found := _range(tensor)) is None else map(number, found)),
            ]
            for what, tensor in tensors
        ],
    )
    for line in advice:
        sys.stdout.write(f"advice: {line}\n")


def _rows_of(trial: Trial) -> list[list[str]]:
    loaded, health, cost = trial.loaded, trial.health, trial.cost
    nodes = ", ".join(f"{count:,} on {name}" for name, count in health.nodes.items())
    rows = [
        ["name in telemetry", trial.name],
        ["runtime", f"{loaded.runtime} {loaded.runtime_version}"],
        ["providers", ", ".join(loaded.providers or (loaded.provider,))],
        ["nodes", nodes or "not reported by the runtime"],
    ]
    if health.unfused is not None:
        rows.append(["unfused Q/DQ pairs", str(health.unfused)])
    if cost is None:
        return [*rows, ["cost of observing", trial.why_no_cost]]
    added = [
        (cost.counted, "to time and count it"),
        (cost.spanned, "with a span, before export"),
    ]
    return [
        *rows,
        ["a call, of zeros", seconds_text(cost.duration)],
        *(["observing adds", f"{seconds_text(s)} ({s / cost.duration:.2%}) {what}"] for s, what in added),
    ]
