"""ONNX Runtime: every method of `InferenceSession` that runs, loads or re-creates a session."""

from __future__ import annotations

from types import ModuleType

from otel_quantmon.models.description import Method, declared_shapes
from otel_quantmon.runtimes.attachment import Attachment, Runtime
from otel_quantmon.runtimes.onnxruntime import reading
from otel_quantmon.runtimes.onnxruntime.graph import inspect
from otel_quantmon.runtimes.onnxruntime.run_async import observed_async
from otel_quantmon.runtimes.onnxruntime.timeouts import RunOptionsTimeouts
from otel_quantmon.runtimes.replay import on_session

__all__ = ["RUNTIME"]


def _patch(attachment: Attachment, module: ModuleType) -> None:
    session: type = module.InferenceSession
    attachment.patch_construction(session)
    attachment.patch_change(session, "set_providers")
    attachment.patch_method(
        session,
        Method(
            "run",
            reading.measure_run,
            reading.shapes_of_run,
            reading.read_inputs,
            reading.read_outputs,
            reading.kinds_of_run,
        ),
    )
    attachment.patch_method(
        session,
        Method("run_async", reading.measure_run, reading.shapes_of_run, kinds=reading.kinds_of_run),
        observed_async,
    )
    attachment.patch_method(
        session,
        Method(
            "run_with_ort_values",
            reading.measure_ort_values,
            reading.shapes_of_ort_values,
            reading.read_ort_inputs,
            reading.read_ort_outputs,
        ),
    )
    # Their outputs stay in the application's own buffers, maybe on a device: not read for their size.
    attachment.patch_method(session, Method("run_with_iobinding", None, declared_shapes))
    attachment.patch_method(session, Method("run_with_ortvaluevector", None, declared_shapes))


RUNTIME = Runtime(
    patch=_patch,
    describe=reading.describe,
    replay=on_session,
    inspect=inspect,
    timeouts=RunOptionsTimeouts,
)
