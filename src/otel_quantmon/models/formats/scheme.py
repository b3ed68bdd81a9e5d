"""What the operators of an ONNX model say of its quantization.

Each operator that computes on something quantized counts for the scheme it follows, and the model has the
scheme with the most of them; with equal numbers, the first of this list. Float operators do not count: one
quantized operator makes a quantized model.

- ``qoperator``: integer operators with fixed parameters (QLinearConv, QLinearMatMul, QGemm, com.microsoft's
  too).
- ``dynamic``: integer operators whose input is quantized at run time (MatMulInteger, ConvInteger,
  DynamicQuantizeMatMul, and anything that reads DynamicQuantizeLinear).
- ``qdq``: operators with an activation from DequantizeLinear that also have a weight from one, or write to a
  QuantizeLinear.
- ``weight_only``: MatMulNBits and the like, and operators with a weight from DequantizeLinear but no
  activation.

Where none counts, activations that pass QuantizeLinear and DequantizeLinear still make ``qdq``; else the
model is ``float16`` when at least half of its float weights' elements are float16 or bfloat16, and ``none``
otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts
from otel_quantmon.models.formats.graph import (
    Constant,
    Graph,
    Node,
    bits,
    dtype_name,
    is_float,
    is_integer,
    parameters,
)

__all__ = ["Scheme", "with_quantization"]

_DYNAMIC = frozenset(
    {"MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM"}
)
_WEIGHT_ONLY = frozenset({"MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "QMoE", "MatMulFpQ4"})
_INTEGER = frozenset({"QGemm", "QAttention", "QEmbedLayerNormalization"})

# Where an operator that is not MatMulNBits has its packed weights and their scales, as (weight, scale).
_PACKED: Mapping[str, tuple[tuple[int, int], ...]] = {
    "GatherBlockQuantized": ((0, 2),),
    "QMoE": ((2, 3), (5, 6), (8, 9)),
}

# Operators that hand their first input on, with its values as they are: of a quantized tensor they keep the
# parameters (per tensor), of a constant the constancy.
_MOVES = frozenset({"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"})

_MOVES_LIMIT = 16
"""Operators that only move values, in a row, between the last quantized one and an output."""

# Where QLinear operators keep (tensor, scale, zero point) among their inputs, and (scale, zero point) of the
# output.
_Layout = tuple[tuple[tuple[int, int, int], ...], tuple[int, int]]
_UNARY: _Layout = (((0, 1, 2),), (3, 4))
_BINARY: _Layout = (((0, 1, 2), (3, 4, 5)), (6, 7))
_LAYOUTS: Mapping[str, _Layout] = {
    "QLinearConv": _BINARY,
    "QLinearMatMul": _BINARY,
    "QLinearAdd": _BINARY,
    "QLinearMul": _BINARY,
    "QGemm": (((0, 1, 2), (3, 4, 5)), (7, 8)),
    "QLinearWhere": (((1, 2, 3), (4, 5, 6)), (7, 8)),
    "QLinearAveragePool": _UNARY,
    "QLinearGlobalAveragePool": _UNARY,
    "QLinearLeakyRelu": _UNARY,
    "QLinearReduceMean": _UNARY,
    "QLinearSigmoid": _UNARY,
    "QLinearSoftmax": _UNARY,
}


def _layout(node: Node) -> _Layout | None:
    if node.op_type == "QLinearConcat":
        return tuple((i, i + 1, i + 2) for i in range(2, len(node.inputs) - 2, 3)), (0, 1)
    return _LAYOUTS.get(node.op_type)


def _input(node: Node, index: int) -> str:
    """Name of an input, empty when it is left out."""
    return node.inputs[index] if index < len(node.inputs) else ""


class Scheme:
    """Evidence gathered graph by graph; an outer graph has to come before those inside it."""

    def __init__(self) -> None:
        self.operators: Counter[str] = Counter()
        self._votes: Counter[str] = Counter(dict.fromkeys(("qoperator", "dynamic", "qdq", "weight_only"), 0))
        self._weights: Counter[str] = Counter()
        self._activations: Counter[str] = Counter()
        self._scales: Counter[str] = Counter()
        self._casts: Counter[str] = Counter()
        self._quantized_activations = False
        # What a dequantized value comes from: "weight", "activation" or "dynamic"; per graph, by name.
        self._origins: dict[int, dict[str, str]] = {}

    def add(self, graph: Graph, call: tuple[Graph, Node] | None = None) -> None:
        """Count the operators and constants of one graph.

        Args:
            graph: A graph, or the body of a local function.
            call: A call of that function, and the graph that it is in, which has been added.
        """
        origins = self._origins[id(graph)] = {}
        if call is not None:
            caller, node = call
            arguments: dict[str, Constant] = {}
            for formal, given in zip(graph.formals, node.inputs, strict=False):
                if constant := caller.constant(given):
                    arguments[formal] = constant
                elif origin := self._origin(caller, given):
                    origins[formal] = origin
            graph.arguments = arguments
        for constant in graph.constants.values():
            self._weights[constant.dtype] += constant.elements
        requantized = {_input(node, 0) for node in graph.nodes if node.op_type == "QuantizeLinear"}
        for node in graph.nodes:
            self.operators[node.op_type] += 1
            self._add_node(graph, node, requantized)

    def _origin(self, graph: Graph, name: str) -> str | None:
        scope: Graph | None = graph
        while scope is not None:
            origin = self._origins[id(scope)].get(name)
            if origin:
                return origin
            scope = scope.parent
        return None

    def _add_node(self, graph: Graph, node: Node, requantized: set[str]) -> None:
        op, first = node.op_type, _input(node, 0)
        output = node.outputs[0] if node.outputs else ""
        origins = self._origins[id(graph)]
        constant = graph.constant(first)
        if op == "QuantizeLinear":
            self._add_quantize(graph, node, constant, output)
        elif op == "DequantizeLinear":
            scale = graph.dtype_of(_input(node, 1)) or "float32"
            if constant or self._origin(graph, first) == "stored":
                origins[output] = "weight"
                self._scales[scale] += 1
            elif self._origin(graph, first) == "dynamic":
                origins[output] = "dynamic"
            else:
                origins[output] = "activation"
                self._quantized_activations = True
        elif op == "DynamicQuantizeLinear":
            origins[output] = "dynamic"
        elif op in _MOVES:
            if constant:
                graph.constants[output] = constant
            elif origin := self._origin(graph, first):
                origins[output] = origin
        elif op == "Gather" and constant and bits(constant.dtype) <= 8:
            # An embedding kept in integers; the DequantizeLinear comes after the look-up.
            origins[output] = "stored"
        elif op == "Cast" and constant:
            self._casts[constant.dtype] += constant.elements
        else:
            self._vote(graph, node, requantized)

    def _add_quantize(self, graph: Graph, node: Node, constant: Constant | None, output: str) -> None:
        dtype = _codes_of(graph, node)
        if constant is None:
            self._activations[dtype] += 1
            return
        # A float weight quantized in the graph (quantization-aware training): folded when the model is
        # loaded.
        self._weights[constant.dtype] -= constant.elements
        self._weights[dtype] += constant.elements
        graph.constants[output] = Constant(dtype, constant.elements, lambda: None)

    def _vote(self, graph: Graph, node: Node, requantized: set[str]) -> None:
        op = node.op_type
        origins = {self._origin(graph, name) for name in node.inputs if name}
        if op in _WEIGHT_ONLY:
            self._votes["weight_only"] += 1
            self._add_packed_weight(graph, node)
        elif op in _DYNAMIC:
            self._votes["dynamic"] += 1
        elif op in _INTEGER or op.startswith(("QLinear", "QOrdered")):
            self._votes["dynamic" if "dynamic" in origins else "qoperator"] += 1
            layout = _layout(node)
            if layout:
                activation = graph.dtype_of(_input(node, layout[0][0][2])) if layout[0] else None
                self._activations[activation or "uint8"] += 1
        elif "dynamic" in origins:
            self._votes["dynamic"] += 1
        elif "activation" in origins:
            if "weight" in origins or any(name in requantized for name in node.outputs):
                self._votes["qdq"] += 1
        elif "weight" in origins:
            self._votes["weight_only"] += 1

    def _add_packed_weight(self, graph: Graph, node: Node) -> None:
        """Count a weight of several elements a byte by its own type rather than by that of its bytes."""
        width = node.integer("expert_weight_bits" if node.op_type == "QMoE" else "bits", 4)
        for weight_at, scale_at in _PACKED.get(node.op_type, ((1, 2),)):
            packed = graph.constant(_input(node, weight_at))
            scale = graph.dtype_of(_input(node, scale_at))
            if scale:
                self._scales[scale] += 1
            if packed and packed.dtype == "uint8" and width in (2, 4):
                self._weights["uint8"] -= packed.elements
                self._weights[f"uint{width}"] += packed.elements * 8 // width

    def weight_type(self) -> str | None:
        """Type of most weights' elements. Wider integers are shapes, indices and biases, not weights."""
        weights = {
            dtype: elements
            for dtype, elements in self._weights.items()
            if elements > 0 and (is_float(dtype) or (is_integer(dtype) and bits(dtype) <= 16))
        }
        return max(weights, key=lambda dtype: weights[dtype]) if weights else None

    def scheme(self) -> str:
        """Return a value of ``quantmon.quantization.scheme``, decided as the module says."""
        scheme, votes = self._votes.most_common(1)[0]
        if votes:
            return scheme
        if self._quantized_activations:
            return "qdq"
        half = self._weights["float16"] + self._weights["bfloat16"]
        return "float16" if 0 < half >= self._weights["float32"] + self._weights["float64"] else "none"

    def activation_type(self) -> str | None:
        """Type in which operators with weights compute.

        Of the codes where activations are quantized (uint8 where that happens at run time), of the scales where
        only weights are, and else of the weights themselves unless they are cast first.
        """
        scheme, weight = self.scheme(), self.weight_type()
        if scheme in ("qdq", "qoperator"):
            return self._activations.most_common(1)[0][0] if self._activations else None
        if scheme == "dynamic":
            return "uint8"
        if scheme == "weight_only":
            return self._scales.most_common(1)[0][0] if self._scales else None
        if weight and 2 * self._casts[weight] > self._weights[weight]:
            return "float32"
        return weight if weight and is_float(weight) else None


def _codes_of(graph: Graph, node: Node) -> str:
    """Type of the codes that a QuantizeLinear writes: its zero point's, else the one that it states, else uint8."""
    stated = node.integer("output_dtype", 0)
    return graph.dtype_of(_input(node, 2)) or (dtype_name(stated) if stated else "uint8")


def with_quantization(graph: Graph) -> tuple[tuple[TensorFacts, ...], tuple[TensorFacts, ...]]:
    """Return inputs and outputs of the main graph, with the parameters of the operators at its edges."""
    aliases = {tensor.name: tensor.name for tensor in graph.inputs}
    found: dict[str, QuantizationParameters | None] = {}
    inputs = {tensor.name: tensor for tensor in graph.inputs}
    for node in graph.nodes:
        if node.op_type in _MOVES and node.outputs and (source := aliases.get(_input(node, 0))):
            aliases[node.outputs[0]] = source
            continue
        for index, scale, zero_point in _reads(node):
            source = aliases.get(_input(node, index))
            if source is None or source in found:
                continue
            moved = _input(node, index) != source
            read = _parameters(graph, node, scale, zero_point, inputs[source], None)
            found[source] = None if read and moved and read.axis is not None else read
    producers = {name: node for node in graph.nodes for name in node.outputs}
    return (
        tuple(_described(tensor, found.get(tensor.name)) for tensor in graph.inputs),
        tuple(_described(tensor, _written(graph, tensor, producers)) for tensor in graph.outputs),
    )


def _reads(node: Node) -> Iterable[tuple[int, int, int]]:
    """Where a node's quantized inputs, their scales and zero points are."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return ((0, 1, 2),)
    layout = _layout(node)
    return layout[0] if layout else ()


def _written(
    graph: Graph, output: TensorFacts, producers: Mapping[str, Node]
) -> QuantizationParameters | None:
    """Parameters of the node that writes an output, seen through operators that only move values."""
    node = producers.get(output.name)
    moved = False
    for _ in range(_MOVES_LIMIT):
        if node is None or node.op_type not in _MOVES:
            break
        node, moved = producers.get(_input(node, 0)), True
    if node is None:
        return None
    layout = _layout(node)
    if layout:
        scale, zero_point = layout[1]
    elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        scale, zero_point = 1, 2
    else:
        return None
    read = _parameters(graph, node, scale, zero_point, output, producers.get(_input(node, 0)))
    return None if read and moved and read.axis is not None else read


def _parameters(
    graph: Graph, node: Node, scale: int, zero_point: int, tensor: TensorFacts, before: Node | None
) -> QuantizationParameters | None:
    """Return what a node says of ``tensor``; ``before`` is the node that it has its first input from."""
    axis = node.integer("axis", 1)
    if axis is None or node.attributes.get("block_size", 0) != 0:
        # Parameters of blocks are not those of an axis.
        return None
    codes = tensor.dtype if is_integer(tensor.dtype) else None
    if codes is None and node.op_type == "QuantizeLinear":
        codes = _codes_of(graph, node)
    elif codes is None and before is not None and before.op_type == "QuantizeLinear":
        codes = _codes_of(graph, before)
    rank = len(tensor.shape) if tensor.shape is not None else None
    return parameters(graph, _input(node, scale), _input(node, zero_point), codes, axis, rank)


def _described(tensor: TensorFacts, found: QuantizationParameters | None) -> TensorFacts:
    return replace(tensor, quantization=found) if found else tensor
