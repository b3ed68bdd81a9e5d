"""The TensorFlow Lite interpreter, in each of the packages that carry it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from otel_quantmon.guard import internal_error
from otel_quantmon.models.description import Method
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.probe.fast_path import Idle, StateOf, observed
from otel_quantmon.runtimes.attachment import Attachment, Runtime
from otel_quantmon.runtimes.replay import on_second_instance
from otel_quantmon.runtimes.tflite import reading
from otel_quantmon.runtimes.tflite.graph import inspect

__all__ = ["RUNTIME"]

F = TypeVar("F", bound=Callable[..., Any])


def _patch(attachment: Attachment, module: ModuleType) -> None:
    interpreter: type = module.Interpreter
    attachment.patch_construction(interpreter)
    # Shapes are final, and delegates applied, once the tensors are allocated.
    attachment.patch_change(interpreter, "allocate_tensors")
    attachment.patch_method(
        interpreter,
        Method("invoke", None, reading.shapes_of_invoke, reading.read_inputs, reading.read_outputs),
    )

    def observed_runner(original: F, method: Method, state_of: StateOf, idle: Idle) -> F:
        def state_of_runner(runner: Any, method: Method) -> CallState | None:
            if not attachment.is_of(runner):
                return None
            try:
                attachment.share(runner, runner._interpreter)
            except Exception as error:  # noqa: BLE001  the guard of the project
                internal_error(error)
                return None
            return state_of(runner, method)

        return observed(original, method, state_of_runner, idle)

    runner = getattr(module, "SignatureRunner", None)
    if runner is not None:
        method = Method(
            "__call__",
            reading.measure_signature,
            reading.shapes_of_signature,
            reading.read_signature_inputs,
            reading.read_signature_outputs,
            resizes=True,
        )
        attachment.patch_method(runner, method, observed_runner)


# A run cannot be ended from Python, so there are no timeouts to give: an overrun is recorded as one.
RUNTIME = Runtime(
    patch=_patch,
    describe=reading.describe,
    replay=on_second_instance,
    inspect=inspect,
    # An interpreter is for one thread, its graph too.
    in_background=False,
)
