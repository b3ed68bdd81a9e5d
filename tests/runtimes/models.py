"""ONNX models that the tests of the ways in need and no package carries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def model(
    nodes: Sequence[NodeProto],
    *,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    name: str,
    constants: dict[str, np.ndarray] | None = None,
) -> bytes:
    """A serialized model of one graph."""
    tensors = [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), name, list(inputs), list(outputs), tensors)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    """A float32 input or output; a name for a dimension makes it dynamic."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def doubling(name: str = "doubling", rows: int | str = "n") -> bytes:
    """``y = x + x``, float32 (rows, 3)."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return model([node], inputs=[floats("x", rows, 3)], outputs=[floats("y", rows, 3)], name=name)


def two_outputs() -> bytes:
    """``y = x + x`` and ``z = x * x``, float32 (3,)."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Mul", ["x", "x"], ["z"])]
    outputs = [floats("y", 3), floats("z", 3)]
    return model(nodes, inputs=[floats("x", 3)], outputs=outputs, name="two_outputs")


def three_outputs() -> bytes:
    """``a = x + x``, ``b = x * x`` and ``c = x - x``, float32 (n, 3)."""
    nodes = [helper.make_node(op, ["x", "x"], [to]) for op, to in (("Add", "a"), ("Mul", "b"), ("Sub", "c"))]
    outputs = [floats(name, "n", 3) for name in "abc"]
    return model(nodes, inputs=[floats("x", "n", 3)], outputs=outputs, name="three_outputs")


def no_input() -> bytes:
    """A graph that only has a constant to give, float32 (3,), through a node that cannot be folded away."""
    node = helper.make_node("RandomUniform", [], ["y"], shape=[3])
    return model([node], inputs=[], outputs=[floats("y", 3)], name="no_input")


def until_told(name: str = "until_told", *, quantized: bool = False) -> bytes:
    """``y = x``, float32 (n, 3), once ``told``, an int64 scalar, is no longer 0; quantized, ``x`` goes through int8.

    The runtime reads ``told`` where the caller's array is, again in each of its rounds: a call takes as long as the
    test wants, on any machine. One that is told to end does so between two rounds.
    """
    body = helper.make_graph(
        [
            helper.make_node("Equal", ["told", "zero"], ["again"]),
            helper.make_node("Identity", ["kept"], ["next"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    codes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "offset"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "offset"], ["values"]),
    ]
    loop = helper.make_node("Loop", ["", "yes", "values" if quantized else "x"], ["y"], body=body)
    return model(
        [*codes, loop] if quantized else [loop],
        inputs=[floats("x", "n", 3), helper.make_tensor_value_info("told", TensorProto.INT64, [])],
        outputs=[floats("y", "n", 3)],
        name=name,
        constants={
            "zero": np.array(0, np.int64),
            "yes": np.array(True),
            **({"scale": np.array(0.01, np.float32), "offset": np.array(0, np.int8)} if quantized else {}),
        },
    )
