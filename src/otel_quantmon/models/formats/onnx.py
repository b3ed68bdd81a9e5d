"""Facts of an ONNX model from its protobuf file. Field numbers are those of ``onnx.proto``.

Only the structure is read: the payload of an initializer is skipped, except for the few scales and zero
points that describe inputs and outputs.
"""

from __future__ import annotations

import functools
import re
import struct
from collections import deque
from pathlib import Path

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.models.formats.external import ExternalData
from otel_quantmon.models.formats.facts import ModelFacts, TensorFacts
from otel_quantmon.models.formats.graph import (
    ATTRIBUTES_READ,
    NUMBERS_LIMIT,
    RANK_LIMIT,
    Constant,
    Graph,
    Node,
    Number,
    bits,
    decode,
    dtype_name,
    element_count,
    is_float,
)
from otel_quantmon.models.formats.protobuf import Field, WireReader, signed, text, varints
from otel_quantmon.models.formats.scheme import Scheme, with_quantization
from otel_quantmon.models.formats.source import Data, in_memory

__all__ = ["METADATA_LIMIT", "read_onnx", "stated_name", "stated_version"]

METADATA_LIMIT = 4096
"""Bytes of one metadata value that is kept; some models carry whole tokenizers there."""

_NO_VERSION = (1 << 63) - 1
"""What ONNX Runtime writes for a model that states no version (``kNoVersion``)."""

# What exporters call every graph: PyTorch, tf2onnx, Keras, spox; scikit-learn's converter gives the class of the
# estimator, as ONNX(Pipeline), and other converters a UUID.
_GENERIC_NAME = re.compile(
    r"(onnx[_-]?)?(graph|main|main[_-]graph|model|subgraph|sub[_-]graph|network|sequential|functional)([_-]?\d+)?"
    r"|spox[_-]graph|tf2onnx(__\d+)?|torch[_-]jit([_-]export)?"
    r"|onnx\(.*\)"
    r"|[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|",
    re.IGNORECASE | re.DOTALL,
)

_EXTERNAL = 1  # TensorProto.DataLocation

_Key = tuple[str, str, int]
"""Domain and name of a local function, and a number that tells functions of the same name apart."""


def read_onnx(data: Data, folder: Path | None) -> ModelFacts:
    """Read a serialized ``ModelProto``.

    Args:
        data: The file's bytes.
        folder: Folder in which external data is looked for; None for a model in memory.

    Raises:
        ModelFormatError: It is no ONNX model, or damaged.
    """
    return _Reader(folder).read(data)


def stated_name(name: str) -> str | None:
    """Return a graph's name, None when it is one that exporters give to every graph."""
    return None if _GENERIC_NAME.fullmatch(name.strip()) else name.strip()


def stated_version(model_version: int, metadata: dict[str, str]) -> str | None:
    """``model_version``, or what the metadata says where exporters left 0 and ONNX Runtime the largest."""
    if model_version not in (0, _NO_VERSION):
        return str(model_version)
    for key, value in metadata.items():
        if key.lower() in ("version", "model_version") and value:
            return value
    return None


def _message(field: Field) -> Data:
    if isinstance(field, int):
        raise ModelFormatError("a number stands where a message belongs")
    return field


def _number(field: Field) -> int:
    if isinstance(field, int):
        return signed(field)
    raise ModelFormatError("bytes stand where a number belongs")


def _from_integers(numbers: tuple[int, ...], dtype: str) -> tuple[Number, ...]:
    """Return the elements in ``int32_data``, where half-precision and packed types appear as their bits."""
    if dtype in ("float16", "bfloat16"):
        halves = struct.pack(f"<{len(numbers)}H", *(n & 0xFFFF for n in numbers))
        return decode(memoryview(halves), dtype) or ()
    if bits(dtype) < 8 or is_float(dtype):
        return decode(memoryview(bytes(n & 0xFF for n in numbers)), dtype) or ()
    return numbers


class _Reader:
    """One pass over one model. Nested graphs wait in a list, so that no nesting exhausts the stack."""

    def __init__(self, folder: Path | None) -> None:
        self._wire = WireReader()
        self._pending: list[tuple[Data, Graph]] = []
        # Local functions that are yet to be added: their bodies, and the graphs inside these.
        self._functions: dict[_Key, tuple[Graph, tuple[tuple[Data, Graph], ...]]] = {}
        # The first call of each, with the graph that it is in.
        self._calls: dict[_Key, tuple[Graph, Node]] = {}
        self._called: deque[_Key] = deque()
        self._external = ExternalData(folder)
        self._unknown: dict[str, str] = {}

    def read(self, data: Data) -> ModelFacts:
        ir_version = model_version = 0
        metadata: dict[str, str] = {}
        main: Data | None = None
        functions: list[Data] = []
        for number, value in self._wire.fields(data):
            if number == 1:
                ir_version = _number(value)
            elif number == 5:
                model_version = _number(value)
            elif number == 7:
                main = _message(value)
            elif number == 14:
                self._add_metadata(metadata, _message(value))
            elif number == 25:
                functions.append(_message(value))
        if main is None or ir_version < 1:
            raise ModelFormatError("it has no graph, or no ir_version, so it is no ONNX model")
        scheme = Scheme()
        graph = Graph()
        for function in functions:
            self._read_function(function)
        self._pending = [(main, graph)]
        self._add_pending(scheme)
        self._add_called(scheme)
        # Those that nobody calls.
        for key in list(self._functions):
            if key in self._functions:
                self._called.append(key)
                self._add_called(scheme)
        inputs, outputs = with_quantization(graph)
        external_size, incomplete = self._external.size()
        if incomplete is not None:
            self._unknown["size"] = incomplete
        weight_type = scheme.weight_type()
        return ModelFacts(
            format="onnx",
            scheme=scheme.scheme(),
            weight_type=weight_type,
            activation_type=scheme.activation_type(),
            weight_bits=bits(weight_type) if weight_type else None,
            name=stated_name(graph.name),
            version=stated_version(model_version, metadata),
            size=len(data) + external_size,
            external=self._external.beside(),
            inputs=inputs,
            outputs=outputs,
            metadata=metadata,
            operators=dict(scheme.operators),
            unknown=self._unknown,
        )

    def _add_pending(self, scheme: Scheme) -> None:
        while self._pending:
            body, graph = self._pending.pop()
            self._read_graph(body, graph)
            self._add_graph(graph, scheme, None)

    def _add_called(self, scheme: Scheme) -> None:
        """Add the functions of which a call was met, after their callers, and those that they call."""
        while self._called:
            key = self._called.popleft()
            body, nested = self._functions.pop(key)
            self._pending = list(nested)
            self._add_graph(body, scheme, self._calls.get(key))
            self._add_pending(scheme)

    def _add_graph(self, graph: Graph, scheme: Scheme, call: tuple[Graph, Node] | None) -> None:
        scheme.add(graph, call)
        for node in graph.nodes if self._functions else ():
            key = node.domain, node.op_type, 0
            if key in self._functions and key not in self._calls:
                self._calls[key] = graph, node
                self._called.append(key)

    def _add_metadata(self, metadata: dict[str, str], entry: Data) -> None:
        key, value = self._entry(entry)
        if len(value) > METADATA_LIMIT:
            self._unknown[f"metadata.{key}"] = f"its {len(value)} bytes are more than {METADATA_LIMIT}"
        else:
            metadata[key] = text(value)

    def _entry(self, entry: Data) -> tuple[str, Data]:
        """Key and value of a StringStringEntryProto."""
        key = ""
        text_value: Data = memoryview(b"")
        for number, value in self._wire.fields(entry):
            if number == 1:
                key = text(value)
            elif number == 2:
                text_value = _message(value)
        return key, text_value

    def _read_function(self, body: Data) -> None:
        """Read a FunctionProto: its nodes, and what its inputs are called."""
        graph = Graph()
        domain = ""
        formals: list[str] = []
        self._pending = []
        for number, value in self._wire.fields(body):
            if number == 1:
                graph.name = text(value)
            elif number == 4:
                formals.append(text(value))
            elif number == 7:
                self._add_node(_message(value), graph)
            elif number == 10:
                domain = text(value)
        graph.formals = tuple(formals)
        key = domain, graph.name, 0
        if key in self._functions:
            # An overload, which a call is not told from.
            key = domain, graph.name, len(self._functions)
        self._functions[key] = graph, tuple(self._pending)

    def _read_graph(self, body: Data, graph: Graph) -> None:
        """Read a GraphProto."""
        inputs: list[TensorFacts] = []
        outputs: list[TensorFacts] = []
        for number, value in self._wire.fields(body):
            if number == 1:
                self._add_node(_message(value), graph)
            elif number == 2:
                graph.name = text(value)
            elif number == 5:
                name, constant = self._tensor(_message(value))
                graph.constants[name] = constant
            elif number == 15:
                self._add_sparse(_message(value), graph)
            elif number == 11:
                inputs.append(self._value_info(_message(value)))
            elif number == 12:
                outputs.append(self._value_info(_message(value)))
        # Before IR version 4 every initializer was listed among the inputs too.
        graph.inputs = tuple(tensor for tensor in inputs if tensor.name not in graph.constants)
        graph.outputs = tuple(outputs)

    def _add_node(self, body: Data, graph: Graph) -> None:
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: list[Data] = []
        op_type = domain = ""
        for number, value in self._wire.fields(body):
            if number == 1:
                inputs.append(text(value))
            elif number == 2:
                outputs.append(text(value))
            elif number == 4:
                op_type = text(value)
            elif number == 5:
                attributes.append(_message(value))
            elif number == 7:
                domain = text(value)
        numbers: dict[str, Number] = {}
        if op_type in ATTRIBUTES_READ:
            constant = outputs[0] if op_type == "Constant" and outputs else ""
            for attribute in attributes:
                self._add_attribute(attribute, graph, numbers, constant)
        graph.nodes.append(Node(op_type, domain, tuple(inputs), tuple(outputs), numbers))

    def _add_attribute(self, body: Data, graph: Graph, numbers: dict[str, Number], constant: str) -> None:
        """Take an attribute's number, its graphs, or the value of a Constant node that writes ``constant``."""
        name = ""
        floats: list[Number] = []
        for number, value in self._wire.fields(body):
            if number == 1:
                name = text(value)
            elif number == 2 and len(_message(value)) == 4:
                numbers[name] = struct.unpack("<f", in_memory(_message(value)))[0]
            elif number == 3:
                numbers[name] = _number(value)
            elif number in (6, 11):
                self._pending.append((_message(value), Graph(parent=graph)))
            elif number == 5 and constant:
                graph.constants[constant] = self._tensor(_message(value))[1]
            elif number == 22 and constant:
                self._add_sparse(_message(value), graph, constant)
            elif number == 7 and constant and len(floats) < NUMBERS_LIMIT:
                floats += decode(_message(value), "float32") or ()
        if constant and name in ("value_float", "value_int") and name in numbers:
            floats = [numbers[name]]
        if constant and floats:
            dtype = "int64" if name == "value_int" else "float32"
            graph.constants[constant] = Constant(dtype, len(floats), lambda: tuple(floats))

    def _add_sparse(self, body: Data, graph: Graph, name: str = "") -> None:
        """Return a SparseTensorProto, counted by the values that it holds, and named by them without a ``name``."""
        for number, value in self._wire.fields(body):
            if number == 1:
                stated, constant = self._tensor(_message(value))
                graph.constants[name or stated] = Constant(constant.dtype, constant.elements, lambda: None)

    def _tensor(self, body: Data) -> tuple[str, Constant]:
        """Name and constant of a TensorProto."""
        dims: tuple[int, ...] = ()
        code = 0
        name = ""
        external: list[Data] = []
        is_external = False
        for number, value in self._wire.fields(body):
            if number == 1:
                dims += varints(value, RANK_LIMIT)
                if len(dims) > RANK_LIMIT:
                    raise ModelFormatError(f"a constant has more than {RANK_LIMIT} dimensions")
            elif number == 2:
                code = _number(value)
            elif number == 8:
                name = text(value)
            elif number == 13:
                external.append(_message(value))
            elif number == 14:
                is_external = _number(value) == _EXTERNAL
        if is_external:
            self._add_external(external)
        dtype = dtype_name(code)
        numbers = functools.partial(self._numbers, body, dtype)
        return name, Constant(dtype, element_count(dims), numbers, len(dims))

    def _numbers(self, body: Data, dtype: str) -> tuple[Number, ...] | None:
        """Return the elements of a TensorProto, wherever among its fields they are; see :class:`Constant`."""
        found: list[Number] = []
        for number, value in self._wire.fields(body):
            if number == 14 and _number(value) == _EXTERNAL:
                self._unknown.setdefault("quantization", "scales or zero points are in an external data file")
                return None
            if number in (4, 9, 10):
                numbers = decode(_message(value), {4: "float32", 10: "float64"}.get(number, dtype))
                if numbers is None:
                    return None
                found += numbers
            elif number in (5, 7):
                found += _from_integers(varints(value, NUMBERS_LIMIT), dtype)
            if len(found) > NUMBERS_LIMIT:
                return None
        # One constant may be asked for by many operators.
        self._wire.spend(len(found))
        return tuple(found)

    def _add_external(self, entries: list[Data]) -> None:
        for entry in entries:
            key, value = self._entry(entry)
            if key == "location":
                self._external.add(text(value))

    def _value_info(self, body: Data) -> TensorFacts:
        name, dtype, shape = "", "undefined", None
        for number, value in self._wire.fields(body):
            if number == 1:
                name = text(value)
            elif number == 2:
                for kind, nested in self._wire.fields(_message(value)):
                    if kind in (1, 8):
                        dtype, shape = self._tensor_type(_message(nested))
                        dtype = "sparse" if kind == 8 else dtype
                    elif kind in _KINDS:
                        dtype = _KINDS[kind]
        return TensorFacts(name, dtype, shape)

    def _tensor_type(self, body: Data) -> tuple[str, tuple[int | None, ...] | None]:
        dtype = "undefined"
        shape: tuple[int | None, ...] | None = None
        for number, value in self._wire.fields(body):
            if number == 1:
                dtype = dtype_name(_number(value))
            elif number == 2:
                dims: list[int | None] = []
                for dim_number, dim in self._wire.fields(_message(value)):
                    if dim_number == 1:
                        dims.append(self._dimension(_message(dim)))
                shape = tuple(dims)
        return dtype, shape

    def _dimension(self, body: Data) -> int | None:
        size: int | None = None
        for number, value in self._wire.fields(body):
            if number == 1:
                size = _number(value)
            elif number == 2:
                size = None
        return size if size is None or size >= 0 else None


_KINDS = {4: "sequence", 5: "map", 7: "opaque", 9: "optional"}  # of TypeProto.value, other than tensors
