"""LiteRT's compiled models, which replace the interpreter in its second major release."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from otel_quantmon.formats.facts import TensorFacts
from otel_quantmon.hooks import Hooks
from otel_quantmon.probe.loaded import LoadedModel, Method, declared_shapes, fixed_io, source_of
from otel_quantmon.probe.observer import Observer
from otel_quantmon.runtimes.attachment import Attachment
from otel_quantmon.settings import Settings

__all__ = ["MODULE", "attach"]

MODULE = "ai_edge_litert.compiled_model"
"""The module that defines `CompiledModel`; patching waits until the application has imported it."""


def attach(module: ModuleType, observer: Observer, settings: Settings, hooks: Hooks) -> Attachment:
    """Observe the compiled models of ``module``, the one named `MODULE`."""
    attachment = Attachment(_describe, observer, settings, hooks)
    compiled_model: type = module.CompiledModel
    attachment.patch_factory(compiled_model, "from_file")
    attachment.patch_factory(compiled_model, "from_buffer")
    attachment.patch_change(compiled_model, "resize_input_tensor")
    attachment.patch_method(compiled_model, Method("run_by_index", None, declared_shapes))
    attachment.patch_method(compiled_model, Method("run_by_name", None, declared_shapes))
    return attachment


def _describe(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoadedModel:
    version = str(getattr(sys.modules.get("ai_edge_litert"), "__version__", "unknown"))
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
        # Which signature a call runs is not told apart here; with several, their sizes are unknown.
        io=fixed_io(inputs, outputs) if len(signatures) == 1 else None,
    )


def _tensors(details: dict[str, Any]) -> tuple[TensorFacts, ...]:
    return tuple(
        TensorFacts(name, str(detail["dtype"]), tuple(int(d) if d >= 0 else None for d in detail["shape"]))
        for name, detail in details.items()
    )
