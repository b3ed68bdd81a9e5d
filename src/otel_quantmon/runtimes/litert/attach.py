"""LiteRT's compiled models, which replace the interpreter in its second major release."""

from __future__ import annotations

from types import ModuleType

from otel_quantmon.models.description import Method, declared_shapes
from otel_quantmon.runtimes.attachment import Attachment, Runtime
from otel_quantmon.runtimes.litert import reading
from otel_quantmon.runtimes.replay import on_second_instance

__all__ = ["RUNTIME"]


def _patch(attachment: Attachment, module: ModuleType) -> None:
    compiled_model: type = module.CompiledModel
    attachment.patch_factory(compiled_model, "from_file")
    attachment.patch_factory(compiled_model, "from_buffer")
    attachment.patch_change(compiled_model, "resize_input_tensor")
    attachment.patch_method(compiled_model, Method("run_by_index", None, declared_shapes))
    attachment.patch_method(compiled_model, Method("run_by_name", None, declared_shapes))


RUNTIME = Runtime(patch=_patch, describe=reading.describe, replay=on_second_instance)
