"""An ONNX model on ONNX Runtime's CPU provider."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from typing import Any

from otel_quantmon.engines.engine import EngineError
from otel_quantmon.formats.facts import ModelFacts, TensorFacts

__all__ = ["OnnxEngine"]


class OnnxEngine:
    """See `otel_quantmon.engines.Engine`."""

    def __init__(self, source: str | bytes, facts: ModelFacts, threads: int) -> None:
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
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}"
            ) from error
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        known = {tensor.name: tensor for tensor in (*facts.inputs, *facts.outputs)}
        self.inputs = tuple(_tensor(argument, known) for argument in self._session.get_inputs())
        self.outputs = tuple(_tensor(argument, known) for argument in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """See `otel_quantmon.engines.Engine.run`."""
        options: Any = self._onnxruntime.RunOptions()
        options.log_severity_level = 3
        timer: threading.Timer | None = None
        if seconds is not None:
            timer = threading.Timer(seconds, lambda: setattr(options, "terminate", True))
            timer.daemon = True
            timer.start()
        try:
            results = self._session.run(None, dict(inputs), options)
        except Exception as error:
            if options.terminate:
                raise EngineError(f"the run took more than {seconds} s") from error
            raise EngineError(f"ONNX Runtime refused the run: {error}") from error
        finally:
            if timer is not None:
                timer.cancel()
        return dict(zip((tensor.name for tensor in self.outputs), results, strict=True))

    def reset(self) -> None:
        """Nothing is kept: recurrent ONNX models take their state as an input."""


def _tensor(argument: Any, known: Mapping[str, TensorFacts]) -> TensorFacts:
    found = known.get(argument.name)
    if found is not None:
        return found
    kind, _, element = str(argument.type).removesuffix(")").partition("(")
    names = {"float": "float32", "double": "float64"}
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape or ())
    return TensorFacts(argument.name, names.get(element, element) if kind == "tensor" else kind, shape)
