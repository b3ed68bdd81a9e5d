"""An ONNX graph as both of its file formats give it (protobuf ``.onnx`` and ONNX Runtime's ``.ort``)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts
from otel_quantmon.models.formats.source import Data, in_memory

__all__ = [
    "ATTRIBUTES_READ",
    "NUMBERS_LIMIT",
    "RANK_LIMIT",
    "Constant",
    "Graph",
    "Node",
    "Number",
    "bits",
    "decode",
    "dtype_name",
    "element_count",
    "is_float",
    "is_integer",
    "parameters",
]

Number = int | float

RANK_LIMIT = 64
"""Dimensions of a tensor; numpy and ONNX Runtime stop at this many or fewer."""

NUMBERS_LIMIT = 1 << 16
"""Elements of a constant that is decoded, such as the scales along an axis."""

_DEPTH_LIMIT = 64
"""Graphs nested in one another."""

# onnx.proto, TensorProto.DataType; types that numpy lacks are named as in ml_dtypes.
_DTYPES = """
    undefined float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64
    complex64 complex128 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz uint4 int4
    float4_e2m1fn float8_e8m0fnu uint2 int2 float6_e2m3fn float6_e3m2fn
""".split()  # noqa: SIM905 - a literal list would take a line for each name

_BITS = {"bool": 8, "bfloat16": 16, "complex64": 64, "complex128": 128, "string": 0, "undefined": 0}

# Those whose attributes say something of the quantization, and those that contain graphs.
ATTRIBUTES_READ = frozenset(
    {
        "Constant", "QuantizeLinear", "DequantizeLinear", "MatMulNBits", "GatherBlockQuantized", "QMoE",
        "If", "Loop", "Scan", "SequenceMap", "BeamSearch", "WhisperBeamSearch", "GreedySearch", "Sampling",
    }
)  # fmt: skip


def dtype_name(code: int) -> str:
    """Numpy's name of an ONNX element type; ``"undefined"`` for one that is not known."""
    return _DTYPES[code] if 0 <= code < len(_DTYPES) else "undefined"


def bits(dtype: str) -> int:
    """Bits of one element of ``dtype``, 0 when it has no fixed size."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = "".join(ch for ch in dtype.partition("_")[0] if ch.isdigit())
    return int(digits or 0)


def is_float(dtype: str) -> bool:
    """Whether ``dtype`` is a floating-point type."""
    return dtype.startswith(("float", "bfloat"))


def is_integer(dtype: str) -> bool:
    """Whether ``dtype`` is a signed or unsigned integer type."""
    return dtype.startswith(("int", "uint"))


def element_count(dims: tuple[int, ...]) -> int:
    """Elements of a tensor with these dimensions."""
    if len(dims) > RANK_LIMIT or any(dim < 0 for dim in dims):
        raise ModelFormatError(f"a constant has {len(dims)} dimensions or negative ones")
    return math.prod(dims)


class Constant(NamedTuple):
    """An initializer, or the value of a Constant node.

    Attributes:
        dtype: Element type.
        elements: Number of elements.
        numbers: A function that reads the elements; None when they are in another file or too many
            (:data:`NUMBERS_LIMIT`).
        rank: Number of dimensions.
    """

    dtype: str
    elements: int
    numbers: Callable[[], tuple[Number, ...] | None]
    rank: int = 1


class Node(NamedTuple):
    """One operator; ``attributes`` holds numbers of those in :data:`ATTRIBUTES_READ` only."""

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Number]

    def integer(self, name: str, default: int) -> int | None:
        """Return an attribute, ``default`` if it is not there; None if it is a float, which no runtime takes for it."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else None


class Graph:
    """A graph, a subgraph of a control-flow operator, or the body of a local function.

    Attributes:
        parent: The graph whose values this one may read; None for the main graph and for functions.
        inputs, outputs: Tensors of the graph; empty for functions, which do not type them.
        constants: Constants by name: initializers and the values of Constant nodes.
        arguments: Constants that a call gives to a local function, by the names of its inputs.
        formals: Names of the inputs of a local function, else empty.

    Raises:
        ModelFormatError: It is nested too deep.
    """

    __slots__ = ("arguments", "constants", "depth", "formals", "inputs", "name", "nodes", "outputs", "parent")

    def __init__(self, parent: Graph | None = None) -> None:
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        if self.depth > _DEPTH_LIMIT:
            raise ModelFormatError(f"its graphs are nested more than {_DEPTH_LIMIT} deep")
        self.name = ""
        self.inputs: tuple[TensorFacts, ...] = ()
        self.outputs: tuple[TensorFacts, ...] = ()
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        self.arguments: Mapping[str, Constant] = {}
        self.formals: tuple[str, ...] = ()

    def constant(self, name: str) -> Constant | None:
        """Return the constant of that name here or in an outer graph."""
        graph: Graph | None = self
        while graph is not None:
            found = graph.constants.get(name) or graph.arguments.get(name)
            if found is not None:
                return found
            graph = graph.parent
        return None

    def dtype_of(self, name: str) -> str | None:
        """Element type of a constant, None when there is none of that name."""
        constant = self.constant(name)
        return constant.dtype if constant else None


def decode(data: Data, dtype: str) -> tuple[Number, ...] | None:
    """Return the numbers in little-endian ``data``; None when there are too many or the type has no reading here.

    An 8-bit float only ever occurs as a zero point, and is 0 there; two and four-bit numbers are packed low
    bits first, so that one padding element may follow.
    """
    width = bits(dtype)
    if not width or len(data) * 8 // width > NUMBERS_LIMIT:
        return None
    raw = in_memory(data)
    if dtype == "bfloat16":
        # A bfloat16 is the upper half of a float32.
        widened = b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw) - 1, 2))
        return struct.unpack(f"<{len(raw) // 2}f", widened)
    if width < 8 and is_integer(dtype):
        codes = [byte >> shift & ((1 << width) - 1) for byte in raw for shift in range(0, 8, width)]
        half = 1 << (width - 1)
        return tuple(c - 2 * half if dtype.startswith("int") and c >= half else c for c in codes)
    if width == 8 and is_float(dtype):
        return None if any(raw) else (0,) * len(raw)
    form = {
        "float16": "e", "float32": "f", "float64": "d", "int8": "b", "uint8": "B", "int16": "h",
        "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "bool": "?",
    }.get(dtype)  # fmt: skip
    if form is None:
        return None
    return struct.unpack_from(f"<{len(raw) * 8 // width}{form}", raw)


def parameters(
    graph: Graph, scale: str, zero_point: str, dtype: str | None, axis: int | None, rank: int | None
) -> QuantizationParameters | None:
    """Parameters from the constants named; None unless both are known, fit one another, and are none of blocks.

    Args:
        graph: Graph in which the constants are looked up.
        scale, zero_point: Names of the operator's inputs; an empty zero point is 0.
        dtype: Type of the codes when there is no zero point that says it.
        axis: The operator's axis, which counts only where there is more than one scale.
        rank: Dimensions of the tensor, to resolve a negative axis.
    """
    scales_of = graph.constant(scale)
    scales = scales_of.numbers() if scales_of else None
    if not scales or not all(0 < s < math.inf for s in scales):
        return None
    if scales_of and scales_of.rank > 1 and len(scales) > 1:
        # One for each block, which is no parameter along an axis.
        return None
    zero_points: tuple[Number, ...] | None = (0,) * len(scales)
    if zero_point:
        zeros_of = graph.constant(zero_point)
        if zeros_of is None:
            return None
        dtype = zeros_of.dtype
        zero_points = zeros_of.numbers()
        zero_points = zero_points[: zeros_of.elements] if zero_points else None
    if zero_points is None or dtype is None or len(zero_points) != len(scales):
        return None
    if not all(map(math.isfinite, zero_points)):
        return None
    if len(scales) == 1:
        axis = None
    elif axis is not None and axis < 0:
        axis = axis + rank if rank is not None else None
    return QuantizationParameters(tuple(map(float, scales)), tuple(map(int, zero_points)), dtype, axis)
