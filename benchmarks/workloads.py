"""What the benchmarks observe: the two smallest quantities of work that a runtime is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

Calling = Callable[[], Any]


@dataclass(frozen=True)
class Workload:
    """One call of a runtime, made again and again.

    Attributes:
        title: for the reader.
        model: path of the model file; made or found when it is called.
        runtime: the runtime's class, imported when it is called.
        method: of the class, the one that is observed.
        calling: from the class (or a subclass) and the model's path, a function that makes one call.
    """

    title: str
    model: Callable[[], Path]
    runtime: Callable[[], type]
    method: str
    calling: Callable[[type, str], Calling]


def _one_op_model() -> Path:
    import real_models

    return real_models.one_op_onnx()


def _wake_word_model() -> Path:
    import real_models

    return real_models.wake_word()


def _onnxruntime() -> type:
    import onnxruntime

    return onnxruntime.InferenceSession


def _litert() -> type:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter


def session_options() -> Any:
    """One thread: a pool has nothing to do in one operator, and its threads would add noise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return options


def _run_session(cls: type, model: str) -> Calling:
    session = cls(model, session_options(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones(4, np.float32), "y": np.ones(4, np.float32)}
    return lambda: session.run(None, feeds)


def _interpreter(cls: type, model: str) -> Any:
    interpreter = cls(model, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _invoke(cls: type, model: str) -> Calling:
    interpreter = _interpreter(cls, model)
    return lambda: interpreter.invoke()  # noqa: PLW0108  the attribute is to be looked up at each call


def _feed_invoke_read(cls: type, model: str) -> Calling:
    interpreter = _interpreter(cls, model)
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    frame = np.random.default_rng(0).integers(-128, 128, given["shape"], dtype=given["dtype"])

    def call() -> Any:
        interpreter.set_tensor(given["index"], frame)
        interpreter.invoke()
        return interpreter.get_tensor(wanted["index"])

    return call


WORKLOADS = {
    "ort": Workload("one-op ONNX Runtime session, run()", _one_op_model, _onnxruntime, "run", _run_session),
    "wakeword": Workload(
        "int8 wake word on LiteRT, set_tensor() invoke() get_tensor()",
        _wake_word_model,
        _litert,
        "invoke",
        _feed_invoke_read,
    ),
    "wakeword-invoke": Workload(
        "int8 wake word on LiteRT, invoke() alone", _wake_word_model, _litert, "invoke", _invoke
    ),
}
