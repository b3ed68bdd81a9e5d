"""An ONNX model on ONNX Runtime's CPU provider, or on a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from otel_quantmon.fidelity.engines.engine import EngineError
from otel_quantmon.guard import pass_on
from otel_quantmon.models.formats.facts import ModelFacts
from otel_quantmon.process.watchdog import Ticket, watchdog
from otel_quantmon.runtimes.onnxruntime.reading import tensor

__all__ = ["OnnxEngine"]

# Providers that compute float32 as such, in the order in which they are wanted, with what keeps them to it. Not those
# that take float16 where they find it faster, as CoreML and TensorRT do: a reference is to be the reference.
_GPUS: dict[str, dict[str, str]] = {
    "CUDAExecutionProvider": {"use_tf32": "0"},
    "ROCMExecutionProvider": {},
    "DmlExecutionProvider": {},
}


class OnnxEngine:
    """See `otel_quantmon.fidelity.engines.Engine`."""

    def __init__(
        self, source: str | bytes, facts: ModelFacts, threads: int, *, accelerated: bool = False
    ) -> None:
        try:
            onnxruntime: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise EngineError("an ONNX model needs ONNX Runtime: pip install onnxruntime") from error
        self._onnxruntime = onnxruntime
        self.facts = facts
        self.runtime = ("onnxruntime", str(onnxruntime.__version__))
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # An idle pool that spins would take the application's cores between two runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                source, options, providers=_providers(onnxruntime, accelerated=accelerated)
            )
        except Exception as error:  # its own errors have no common base
            pass_on(error)
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}"
            ) from error
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        known = {one.name: one for one in (*facts.inputs, *facts.outputs)}
        self.inputs = tuple(known.get(a.name) or tensor(a) for a in self._session.get_inputs())
        self.outputs = tuple(known.get(a.name) or tensor(a) for a in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """See `otel_quantmon.fidelity.engines.Engine.run`."""
        options: Any = self._onnxruntime.RunOptions()
        options.log_severity_level = 3
        ticket: Ticket | None = None
        if seconds is not None:
            # Not a timer, which would be a thread for each run.
            ticket = Ticket(lambda: setattr(options, "terminate", True))
            watchdog.watch(ticket, seconds)
        try:
            results = self._session.run(None, dict(inputs), options)
        except Exception as error:  # its own errors have no common base
            pass_on(error)
            if options.terminate:
                raise EngineError(f"the run took more than {seconds} s") from error
            raise EngineError(f"ONNX Runtime refused the run: {error}") from error
        finally:
            if ticket is not None:
                watchdog.cancel(ticket)
        return dict(zip((output.name for output in self.outputs), results, strict=True))

    def reset(self) -> None:
        """Nothing is kept: recurrent ONNX models take their state as an input."""


def _providers(onnxruntime: Any, *, accelerated: bool) -> list[tuple[str, dict[str, str]]]:
    """Providers in the order in which nodes are given to them, with their options."""
    there = set(onnxruntime.get_available_providers()) if accelerated else set[str]()
    gpus = [(name, options) for name, options in _GPUS.items() if name in there]
    return [*gpus, ("CPUExecutionProvider", {})]
