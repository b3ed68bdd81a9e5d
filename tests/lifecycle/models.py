"""The models that runs from start to exit need; for tests and for the programs that they start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from real_models import one_op_onnx, wake_word

X = {"x": np.ones(4, np.float32), "y": np.arange(4, dtype=np.float32)}
"""Feeds of the one-op model."""


def one_op_session(threads: int = 1) -> Any:
    """A session of the one-op model on so many threads; `run_async` wants two."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(one_op_onnx()), options, providers=["CPUExecutionProvider"])


def wake_word_interpreter() -> Any:
    """An interpreter of the wake word with tensors allocated and its input set."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(wake_word()))
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    return interpreter


def runner(kind: str) -> Callable[[], object]:
    """A new model of ``kind`` (``onnxruntime`` or ``litert``), as a call that runs it once."""
    if kind == "onnxruntime":
        session = one_op_session()
        return lambda: session.run(None, X)
    interpreter = wake_word_interpreter()
    # A bound method taken before the patch would not come our way.
    return lambda: interpreter.invoke()  # noqa: PLW0108


def is_ours(member: Any) -> bool:
    """True if ``member`` of a class is a function or classmethod that this project has put there."""
    code = getattr(getattr(member, "__func__", member), "__code__", None)
    return code is not None and "otel_quantmon" in code.co_filename
