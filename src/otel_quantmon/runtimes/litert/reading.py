"""What LiteRT's compiled models say of themselves; all reading of them is here."""

from __future__ import annotations

import sys
from typing import Any

from otel_quantmon.models.description import LoadedModel, fixed_io, source_of
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["describe"]


def describe(package: str, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoadedModel:
    """Describe ``model``; see `otel_quantmon.runtimes.attachment.Describe`."""
    version = str(getattr(sys.modules.get(package), "__version__", "unknown"))
    source = source_of(args[0] if args else kwargs.get("model_path", kwargs.get("model_data")))
    if model is None:
        return LoadedModel(runtime="litert", runtime_version=version, provider="unknown", source=source)
    accelerator = (args[1] if len(args) > 1 else kwargs.get("hardware_accel")) or getattr(
        args[3] if len(args) > 3 else kwargs.get("options"), "hardware_accelerators", None
    )
    signatures = model.get_signature_list()
    first = next(iter(signatures), None)
    inputs: tuple[TensorFacts, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    if first is not None:
        inputs = _tensors(model.get_input_tensor_details(first))
        outputs = _tensors(model.get_output_tensor_details(first))
    return LoadedModel(
        runtime="litert",
        runtime_version=version,
        # Without a wish the factories choose the CPU.
        provider=getattr(accelerator, "name", None) or "CPU",
        source=source,
        inputs=inputs,
        outputs=outputs,
        # Which signature a call runs is not known here; with several, their sizes are unknown.
        io=fixed_io(inputs, outputs) if len(signatures) == 1 else None,
    )


def _tensors(details: dict[str, Any]) -> tuple[TensorFacts, ...]:
    return tuple(
        TensorFacts(name, str(detail["dtype"]), tuple(int(d) if d >= 0 else None for d in detail["shape"]))
        for name, detail in details.items()
    )
