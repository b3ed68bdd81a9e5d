"""How tests use an interpreter of TensorFlow Lite."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from exported import Exported


def interpreter_of(module: ModuleType, model: str | bytes, exported: Exported) -> Any:
    """An interpreter with its tensors, and all known of it that is read in the background."""
    interpreter = module.Interpreter(model_path=model)
    interpreter.allocate_tensors()
    exported.raw_metrics()
    return interpreter


def set_input(interpreter: Any, value: int = 1) -> Any:
    detail = interpreter.get_input_details()[0]
    data = np.full(detail["shape"], value, detail["dtype"])
    interpreter.set_tensor(detail["index"], data)
    return data


def output(interpreter: Any) -> Any:
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def provider_of(interpreter: Any) -> str:
    """What runs the last node, by the interpreter's own description of its operators."""
    return "XNNPACK" if interpreter._get_ops_details()[-1]["op_name"] == "DELEGATE" else "CPU"
