"""What the benchmarks observe: the smallest quantities of work that a runtime is asked for."""

from __future__ import annotations

import functools
import sys
import tempfile
import threading
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


@functools.cache
def _written(name: str) -> Path:
    """The model that function ``name`` of `runtimes.models` makes, in a file."""
    from runtimes import models

    folder = Path(tempfile.mkdtemp(prefix="otel-quantmon-bench-"))
    path = folder / f"{name}.onnx"
    path.write_bytes(getattr(models, name)())
    return path


def _dynamic_model() -> Path:
    return _written("doubling")


def _three_outputs_model() -> Path:
    return _written("three_outputs")


def _onnxruntime() -> type:
    import onnxruntime

    return onnxruntime.InferenceSession


def _litert() -> type:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter


def session_options(threads: int = 1) -> Any:
    """One thread: a pool has nothing to do in one operator, and its threads would add noise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


def _run_session(cls: type, model: str) -> Calling:
    session = cls(model, session_options(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones(4, np.float32), "y": np.ones(4, np.float32)}
    return lambda: session.run(None, feeds)


def _run_one_input(cls: type, model: str) -> Calling:
    session = cls(model, session_options(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((4, 3), np.float32)}
    return lambda: session.run(None, feeds)


def _run_bound(cls: type, model: str) -> Calling:
    session = cls(model, session_options(), providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name in ("x", "y"):
        binding.bind_cpu_input(name, np.ones(4, np.float32))
    binding.bind_output(session.get_outputs()[0].name)
    return lambda: session.run_with_iobinding(binding)


def _run_async(cls: type, model: str) -> Calling:
    # The runtime refuses it without a pool of threads, which is not to burn a core while it waits for work.
    options = session_options(threads=2)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = cls(model, options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones(4, np.float32), "y": np.ones(4, np.float32)}
    over = threading.Semaphore(0)

    def done(*_: Any) -> None:
        over.release()

    def call() -> None:
        session.run_async(None, feeds, done, None)
        over.acquire()

    return call


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
    "ort-dynamic": Workload(
        "one-op ONNX Runtime session with a dynamic first dimension, run()",
        _dynamic_model,
        _onnxruntime,
        "run",
        _run_one_input,
    ),
    "ort-three-outputs": Workload(
        "three-op ONNX Runtime session with three outputs and a dynamic first dimension, run()",
        _three_outputs_model,
        _onnxruntime,
        "run",
        _run_one_input,
    ),
    "ort-iobinding": Workload(
        "one-op ONNX Runtime session, run_with_iobinding()",
        _one_op_model,
        _onnxruntime,
        "run_with_iobinding",
        _run_bound,
    ),
    "ort-async": Workload(
        "one-op ONNX Runtime session, run_async() and the wait for it",
        _one_op_model,
        _onnxruntime,
        "run_async",
        _run_async,
    ),
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
