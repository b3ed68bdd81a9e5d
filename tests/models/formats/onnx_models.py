"""Small ONNX models for the format tests, built with onnx.helper or by onnxruntime's own quantizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from otel_quantmon.models.formats import ModelFacts, read_facts

CONV_INPUT = "image"
CONV_OUTPUT = "scores"


def model(
    nodes: Sequence[NodeProto],
    *,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: dict[str, Any] | None = None,
    name: str = "net",
    opset: int = 21,
    **fields: Any,
) -> onnx.ModelProto:
    """A model of one graph; ``constants`` are arrays or TensorProtos."""
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), key)
        for key, value in (constants or {}).items()
    ]
    graph = helper.make_graph(list(nodes), name, list(inputs), list(outputs), tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **fields)


def facts_of(built: onnx.ModelProto) -> ModelFacts:
    """What is read from the model's bytes."""
    return read_facts(built.SerializeToString())


def floats(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    """A float32 input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def conv_net() -> onnx.ModelProto:
    """Convolution, ReLU, matrix: float32 (n, 1, 8, 8) to (n, 10)."""
    random = np.random.default_rng(3)
    return model(
        [
            helper.make_node("Conv", [CONV_INPUT, "kernel", "bias"], ["conv"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node("Reshape", ["relu", "flat"], ["row"]),
            helper.make_node("MatMul", ["row", "matrix"], [CONV_OUTPUT]),
        ],
        inputs=[floats(CONV_INPUT, "n", 1, 8, 8)],
        outputs=[floats(CONV_OUTPUT, "n", 10)],
        constants={
            "kernel": random.normal(size=(4, 1, 3, 3)).astype(np.float32),
            "bias": np.zeros(4, np.float32),
            "flat": np.array([0, 256], np.int64),
            "matrix": random.normal(size=(256, 10)).astype(np.float32),
        },
        opset=17,  # which the oldest supported ONNX Runtime reads
    )


class Calibration:
    """onnxruntime's CalibrationDataReader: inputs between -1 and 3."""

    def __init__(self) -> None:
        images = np.random.default_rng(5).uniform(-1, 3, size=(8, 1, 8, 8)).astype(np.float32)
        images.flat[:2] = -1, 3
        self._batches: Iterator[dict[str, Any]] = iter([{CONV_INPUT: images}])

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, None at the end."""
        return next(self._batches, None)


def quantized_conv_net(folder: Path, form: str, **options: Any) -> Path:
    """:func:`conv_net` after ``quantize_static`` in ``form``, ``"QDQ"`` or ``"QOperator"``."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    source, target = folder / "float.onnx", folder / f"{form}.onnx"
    source.write_bytes(conv_net().SerializeToString())
    settings = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8} | options
    quantize_static(str(source), str(target), Calibration(), quant_format=QuantFormat[form], **settings)
    return target
