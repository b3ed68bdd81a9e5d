"""How an ONNX model is quantized: parameters at its edges, schemes, and types of weights and activations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from otel_quantmon.models.formats import read_facts
from otel_quantmon.models.graph_health import may_saturate

from .onnx_models import CONV_INPUT, CONV_OUTPUT, facts_of, floats, model, quantized_conv_net

# --- quantization at the edges ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_static_quantization_at_the_edges_is_read(tmp_path: Path, form: str) -> None:
    """Scale and zero point of input and output are those of the file, and cover what calibration saw."""
    path = quantized_conv_net(tmp_path, form)
    facts = read_facts(path)
    graph = onnx.load(str(path)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    first = next(n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == CONV_INPUT)
    last = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.output[0] == CONV_OUTPUT)
    for tensor, node in ((facts.inputs[0], first), (facts.outputs[0], last)):
        assert tensor.quantization is not None
        assert tensor.dtype == "float32"
        assert tensor.quantization.dtype == "uint8"
        assert tensor.quantization.axis is None
        assert tensor.quantization.scales == (float(constants[node.input[1]]),)
        assert tensor.quantization.zero_points == (int(constants[node.input[2]]),)
    read = facts.inputs[0].quantization
    assert read is not None
    low, high = ((code - read.zero_points[0]) * read.scales[0] for code in (0, 255))
    assert low == pytest.approx(-1, abs=read.scales[0])
    assert high == pytest.approx(3, abs=read.scales[0])


@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT16", "UINT16"])
def test_types_of_activations_are_told_apart(tmp_path: Path, kind: str) -> None:
    """The activations' type is that of the zero points."""
    from onnxruntime.quantization import QuantType

    quant_type = {"INT8": "QInt8", "UINT8": "QUInt8", "INT16": "QInt16", "UINT16": "QUInt16"}[kind]
    facts = read_facts(quantized_conv_net(tmp_path, "QDQ", activation_type=QuantType[quant_type]))
    assert facts.scheme == "qdq"
    assert facts.activation_type == kind.lower()
    assert facts.inputs[0].quantization is not None
    assert facts.inputs[0].quantization.dtype == kind.lower()


def test_parameters_per_axis_and_from_constant_nodes_are_read() -> None:
    """Scales along an axis come with the axis, negative ones resolved; Constant nodes serve as initializers
    do.
    """
    scales, zeros = np.array([0.5, 0.25], np.float32), np.array([3, -4], np.int8)
    nodes = [
        helper.make_node("Constant", [], ["scale"], value=numpy_helper.from_array(scales)),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(zeros)),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=-1),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=-1),
    ]
    facts = facts_of(model(nodes, inputs=[floats("x", 3, 2)], outputs=[floats("y", 3, 2)]))
    for tensor in (*facts.inputs, *facts.outputs):
        assert tensor.quantization is not None
        assert tensor.quantization.scales == (0.5, 0.25)
        assert tensor.quantization.zero_points == (3, -4)
        assert tensor.quantization.axis == 1
    assert facts.scheme == "qdq"


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("raw", [True, False])
def test_scales_in_half_precision_are_read_wherever_they_lie(kind: str, raw: bool) -> None:
    """raw_data and int32_data, where half-precision numbers are kept as bits, give one value."""
    code = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[kind]
    value = np.asarray([0.375], dtype=helper.tensor_dtype_to_np_dtype(code))
    tensor = TensorProto(name="scale", data_type=code)
    if raw:
        tensor.raw_data = value.tobytes()
    else:
        tensor.int32_data.append(int(value.view(np.uint16)[0]))
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", code, [1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.UINT8, [1])]
    facts = facts_of(model(nodes, inputs=inputs, outputs=outputs, constants={"scale": tensor}))
    assert facts.inputs[0].dtype == kind
    assert facts.inputs[0].quantization is not None
    assert facts.inputs[0].quantization.scales == (0.375,)
    assert facts.inputs[0].quantization.zero_points == (0,)
    assert facts.outputs[0].quantization is not None
    assert facts.outputs[0].quantization.dtype == "uint8"


def test_four_bit_zero_points_are_unpacked() -> None:
    """int4 zero points lie two in a byte, low half first, and are signed."""
    zero = helper.make_tensor("zero", TensorProto.INT4, [3], [-8, 7, -1])
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=0)]
    outputs = [helper.make_tensor_value_info("q", TensorProto.INT4, [3])]
    constants = {"scale": np.ones(3, np.float32), "zero": zero}
    facts = facts_of(model(nodes, inputs=[floats("x", 3)], outputs=outputs, constants=constants))
    assert facts.inputs[0].quantization is not None
    assert facts.inputs[0].quantization.zero_points == (-8, 7, -1)
    assert facts.inputs[0].quantization.dtype == "int4"


def test_integer_edges_take_their_parameters_from_the_operator() -> None:
    """A QLinearMatMul at the edge tells scale and zero point of integer inputs and outputs, through a Reshape
    too.
    """
    codes = helper.make_tensor_value_info("x", TensorProto.UINT8, [2, 4])
    out = helper.make_tensor_value_info("y", TensorProto.INT8, [2, 3])
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["x2"]),
        helper.make_node("QLinearMatMul", ["x2", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"]),
    ]
    constants = {
        "shape": np.array([2, 4], np.int64),
        "xs": np.float32(0.5),
        "xz": np.uint8(7),
        "w": np.ones((4, 3), np.int8),
        "ws": np.float32(1),
        "wz": np.int8(0),
        "ys": np.float32(2),
        "yz": np.int8(-3),
    }
    facts = facts_of(model(nodes, inputs=[codes], outputs=[out], constants=constants))
    read, written = facts.inputs[0].quantization, facts.outputs[0].quantization
    assert read is not None
    assert (read.scales, read.zero_points, read.dtype) == ((0.5,), (7,), "uint8")
    assert written is not None
    assert (written.scales, written.zero_points, written.dtype) == ((2.0,), (-3,), "int8")
    assert facts.scheme == "qoperator"


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scales_that_mean_nothing_are_not_reported(scale: float) -> None:
    """No consumer has to guard against dividing by such a scale."""
    nodes = [helper.make_node("QuantizeLinear", ["x", "s"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.UINT8, [1])]
    facts = facts_of(
        model(nodes, inputs=[floats("x", 1)], outputs=outputs, constants={"s": np.float32(scale)})
    )
    assert facts.inputs[0].quantization is None


def test_codes_without_a_zero_point_have_the_type_that_the_operator_states() -> None:
    """A symmetric int8 model need not have zero points: `output_dtype` says what its activations are, and what leaves
    the graph has the type of the QuantizeLinear before. It does not count as uint8, which would saturate.
    """
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=TensorProto.INT8),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["wd"]),
        helper.make_node("MatMul", ["d", "wd"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s"], ["mq"], output_dtype=TensorProto.INT8),
        helper.make_node("DequantizeLinear", ["mq", "s"], ["y"]),
    ]
    constants = {"w": np.ones((8, 8), np.int8), "s": np.float32(0.1)}
    facts = facts_of(
        model(nodes, inputs=[floats("x", 1, 8)], outputs=[floats("y", 1, 8)], constants=constants)
    )
    assert (facts.scheme, facts.activation_type) == ("qdq", "int8")
    assert [t.quantization and t.quantization.dtype for t in (*facts.inputs, *facts.outputs)] == [
        "int8",
        "int8",
    ]
    assert not may_saturate(facts, "x86_64+avx2")


def test_a_type_of_codes_that_nobody_states_is_not_guessed() -> None:
    """The accumulator of an integer operator has no zero point, and is int32, not uint8."""
    nodes = [
        helper.make_node("MatMulInteger", ["x", "w"], ["i"]),
        helper.make_node("DequantizeLinear", ["i", "s"], ["y"]),
    ]
    codes = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 8])
    constants = {"w": np.ones((8, 8), np.int8), "s": np.float32(0.1)}
    facts = facts_of(model(nodes, inputs=[codes], outputs=[floats("y", 1, 8)], constants=constants))
    assert facts.outputs[0].quantization is None


@pytest.mark.parametrize("stated", [True, False])
def test_parameters_of_blocks_are_not_taken_for_those_of_an_axis(stated: bool) -> None:
    """As many scales as an axis is long, but each for a block: nothing could be compared with them."""
    attributes = {"axis": 1, "block_size": 4} if stated else {"axis": 1}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    scales = np.array([[0.1], [0.2], [0.3], [0.4]], np.float32)
    constants = {"s": scales.reshape(4) if stated else scales, "z": np.zeros(4, np.int8)}
    facts = facts_of(
        model(nodes, inputs=[floats("x", 4, 4)], outputs=[floats("y", 4, 4)], constants=constants)
    )
    assert (facts.scheme, facts.inputs[0].quantization, facts.outputs[0].quantization) == ("qdq", None, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.5])
def test_numbers_of_another_kind_than_the_operator_takes_say_nothing(value: float) -> None:
    """An axis, a type or a width given as a float, and a zero point that is none, are refused by every runtime."""
    quantize = helper.make_node("QuantizeLinear", ["x", "ss"], ["q"], axis=value)
    dequantize = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])
    typed = helper.make_node("QuantizeLinear", ["y", "s"], ["yq"], output_dtype=value)
    packed = helper.make_node("MatMulNBits", ["y", "w", "s"], ["m"], domain="com.microsoft", bits=value)
    facts = facts_of(
        model(
            [quantize, dequantize, typed, packed],
            inputs=[floats("x", 2)],
            outputs=[floats("y", 2), helper.make_tensor_value_info("yq", TensorProto.UINT8, [2])],
            constants={
                "s": np.float32(0.5),
                "ss": np.array([0.5, 0.5], np.float32),
                "z": np.float32(math.nan),
                "w": np.zeros(4, np.uint8),
            },
        )
    )
    assert [t.quantization for t in facts.inputs] == [None]
    assert facts.outputs[0].quantization is None
    assert facts.outputs[1].quantization is not None
    assert facts.outputs[1].quantization.dtype == "uint8"
    assert facts.weight_type in ("uint8", "float32")


# --- schemes that a quantizer rarely makes ----------------------------------------------------------------


def test_packed_four_bit_weights_are_weight_only() -> None:
    """MatMulNBits keeps two weights a byte: they count as uint4, and activations have the scales' type."""
    nodes = [
        helper.make_node(
            "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=64, N=8, bits=4, block_size=32
        )
    ]
    constants = {"w": np.zeros((8, 2, 16), np.uint8), "s": np.ones((16,), np.float16)}
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT16, [1, w]) for n, w in (("x", 64), ("y", 8)))
    facts = facts_of(model(nodes, inputs=[x], outputs=[y], constants=constants))
    found = (facts.scheme, facts.weight_type, facts.weight_bits, facts.activation_type)
    assert found == ("weight_only", "uint4", 4, "float16")


def test_packed_weights_of_experts_are_counted_by_their_width() -> None:
    """QMoE has the router before its weights, and says their width in an attribute of its own."""
    node = helper.make_node(
        "QMoE",
        ["x", "r", "w1", "s1", "", "w2", "s2", ""],
        ["y"],
        domain="com.microsoft",
        expert_weight_bits=4,
        k=2,
    )
    constants = {
        "w1": np.zeros((4, 32, 8), np.uint8),
        "s1": np.ones((4, 32), np.float16),
        "w2": np.zeros((4, 16, 16), np.uint8),
        "s2": np.ones((4, 16), np.float16),
    }
    x, r, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT16, ["n", w])
        for n, w in (("x", 16), ("r", 4), ("y", 16))
    )
    facts = facts_of(model([node], inputs=[x, r], outputs=[y], constants=constants))
    found = (facts.scheme, facts.weight_type, facts.weight_bits, facts.activation_type)
    assert found == ("weight_only", "uint4", 4, "float16")
    node.attribute.remove(next(a for a in node.attribute if a.name == "expert_weight_bits"))
    node.attribute.append(helper.make_attribute("expert_weight_bits", 8))
    facts = facts_of(model([node], inputs=[x, r], outputs=[y], constants=constants))
    assert (facts.weight_type, facts.weight_bits) == ("uint8", 8)


@pytest.mark.parametrize("called", ["directly", "by another function", "in a branch"])
def test_what_a_call_gives_to_a_local_function_is_known_in_it(called: str) -> None:
    """A function that dequantizes what it is given is weight-only where that is a constant: its inputs are not taken
    for activations.
    """
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    linear = helper.make_function(
        "own", "Linear", ["a", "b", "sb"], ["c"],
        [helper.make_node("DequantizeLinear", ["b", "sb"], ["bd"]), helper.make_node("MatMul", ["a", "bd"], ["c"])],
        opsets,
    )  # fmt: skip
    outer = helper.make_function(
        "own", "Outer", ["p", "q", "r"], ["t"],
        [helper.make_node("Linear", ["q", "p", "r"], ["t"], domain="own")], opsets,
    )  # fmt: skip
    unused = helper.make_function(
        "own", "Unused", ["e"], ["f"], [helper.make_node("Add", ["e", "e"], ["f"])], opsets
    )
    nodes = {
        "directly": [helper.make_node("Linear", ["x", "w", "s"], ["y"], domain="own")],
        "by another function": [helper.make_node("Outer", ["w", "x", "s"], ["y"], domain="own")],
    }
    branch = helper.make_graph(nodes["directly"], "branch", [], [floats("y", 1, 8)])
    nodes["in a branch"] = [helper.make_node("If", ["k"], ["y"], then_branch=branch, else_branch=branch)]
    built = model(
        nodes[called],
        inputs=[floats("x", 1, 8), helper.make_tensor_value_info("k", TensorProto.BOOL, [])],
        outputs=[floats("y", 1, 8)],
        constants={"w": np.ones((8, 8), np.int8), "s": np.float32(0.1)},
        # In any order, as ONNX allows.
        functions=[linear, unused, outer],
    )
    facts = facts_of(built)
    assert (facts.scheme, facts.weight_type, facts.activation_type) == ("weight_only", "int8", "float32")
    assert facts.operators["Add"] == facts.operators["DequantizeLinear"] == facts.operators["MatMul"] == 1


def test_functions_that_call_one_another_for_ever_are_read() -> None:
    """ONNX forbids it; a hostile file is read once all the same."""
    functions = [
        helper.make_function(
            "own", name, ["a"], ["b"], [helper.make_node(other, ["a"], ["b"], domain="own")],
            [helper.make_opsetid("own", 1)],
        )
        for name, other in (("Here", "There"), ("There", "Here"), ("Self", "Self"))
    ]  # fmt: skip
    nodes = [helper.make_node("Here", ["x"], ["y"], domain="own")]
    facts = facts_of(model(nodes, inputs=[floats("x", 1)], outputs=[floats("y", 1)], functions=functions))
    assert facts.operators == {"Here": 2, "There": 1, "Self": 1}


def test_weights_that_are_only_dequantized_are_weight_only() -> None:
    """DequantizeLinear on a constant with a float activation is weight-only, through a Transpose as well."""
    weight = helper.make_tensor("w", TensorProto.INT4, [8, 4], [1] * 32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wf"], axis=0, block_size=4),
        helper.make_node("Transpose", ["wf"], ["wt"], perm=[0, 1]),
        helper.make_node("MatMul", ["x", "wt"], ["y"]),
    ]
    constants = {"w": weight, "s": np.ones((2, 4), np.float32)}
    facts = facts_of(
        model(nodes, inputs=[floats("x", 1, 8)], outputs=[floats("y", 1, 4)], constants=constants)
    )
    found = (facts.scheme, facts.weight_type, facts.weight_bits, facts.activation_type)
    assert found == ("weight_only", "int4", 4, "float32")


def test_half_weights_that_are_cast_compute_in_float32() -> None:
    """float16 used for storage alone is told from float16 arithmetic."""
    nodes = [
        helper.make_node("Cast", ["w"], ["wf"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wf"], ["y"]),
    ]
    constants = {"w": np.ones((8, 4), np.float16)}
    facts = facts_of(
        model(nodes, inputs=[floats("x", 1, 8)], outputs=[floats("y", 1, 4)], constants=constants)
    )
    assert (facts.scheme, facts.weight_type, facts.activation_type) == ("float16", "float16", "float32")


def test_quantization_inside_subgraphs_and_functions_counts() -> None:
    """Operators of an If branch and of a local function are seen, with weights of the outer graph."""
    branch = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
         helper.make_node("MatMulInteger", ["q", "w", "z"], ["y"])],
        "branch", [], [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 4])],
    )  # fmt: skip
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        helper.make_node("Twice", ["x"], ["x2"], domain="own"),
    ]
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    built = model(
        nodes,
        inputs=[floats("x", 1, 8), condition],
        outputs=[helper.make_tensor_value_info("y", TensorProto.INT32, [1, 4])],
        constants={"w": np.ones((8, 4), np.int8)},
        functions=[
            helper.make_function(
                "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
                [helper.make_opsetid("", 21)],
            )
        ],
    )  # fmt: skip
    facts = facts_of(built)
    expected = {"If": 1, "Twice": 1, "Add": 1, "MatMulInteger": 2, "DynamicQuantizeLinear": 2}
    assert facts.operators == expected
    assert (facts.scheme, facts.weight_type, facts.activation_type) == ("dynamic", "int8", "uint8")
