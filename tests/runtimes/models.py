"""ONNX models that the tests of the ways in need and no package carries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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


def no_input() -> bytes:
    """A graph that only has a constant to give, float32 (3,), through a node that cannot be folded away."""
    node = helper.make_node("RandomUniform", [], ["y"], shape=[3])
    return model([node], inputs=[], outputs=[floats("y", 3)], name="no_input")


def slow(nodes: int = 4000, size: int = 192, name: str = "slow") -> bytes:
    """Matrix products one after another, some milliseconds of them for every ten: time to end a run between two."""
    identity = np.eye(size, dtype=np.float32)
    names = ["x", *(f"t{i}" for i in range(1, nodes)), "y"]
    chain = [helper.make_node("MatMul", [read, "identity"], [written]) for read, written in pairwise(names)]
    return model(
        chain,
        inputs=[floats("x", size, size)],
        outputs=[floats("y", size, size)],
        name=name,
        constants={"identity": identity},
    )
