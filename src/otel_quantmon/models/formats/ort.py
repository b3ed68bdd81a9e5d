"""Facts of an ONNX Runtime format model. Field numbers are those of ONNX Runtime's ``ort.fbs``."""

from __future__ import annotations

import functools

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.models.formats.facts import ModelFacts, TensorFacts
from otel_quantmon.models.formats.flatbuffer import FlatBuffer, Table
from otel_quantmon.models.formats.graph import (
    ATTRIBUTES_READ,
    RANK_LIMIT,
    Constant,
    Graph,
    Node,
    Number,
    bits,
    decode,
    dtype_name,
    element_count,
)
from otel_quantmon.models.formats.onnx import METADATA_LIMIT, stated_version
from otel_quantmon.models.formats.scheme import Scheme, with_quantization
from otel_quantmon.models.formats.source import Data

__all__ = ["read_ort"]

_FLOAT, _INT, _GRAPH, _GRAPHS = 1, 2, 5, 10  # AttributeType


def read_ort(data: Data) -> ModelFacts:
    """Read an ``InferenceSession`` table, the root of an ORT format model.

    The graph is the one that ONNX Runtime saved, after its optimizations: a QDQ model saved with them is
    ``qoperator`` where they have fused its operators.

    Raises:
        ModelFormatError: It is damaged.
    """
    buffer = FlatBuffer(data)
    model = buffer.root().table(1)
    body = model.table(7) if model else None
    if model is None or body is None:
        raise ModelFormatError("it has no graph")
    unknown: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for entry in model.tables(9):
        key = entry.text(0)
        size = len(entry.raw(1))
        if size > METADATA_LIMIT:
            unknown[f"metadata.{key}"] = f"its {size} bytes are more than {METADATA_LIMIT}"
        else:
            metadata[key] = entry.text(1)
    scheme = Scheme()
    main = Graph()
    pending = [(body, main)]
    while pending:
        table, graph = pending.pop()
        _read_graph(buffer, table, graph, pending, unknown)
        scheme.add(graph)
    inputs, outputs = with_quantization(main)
    weight_type = scheme.weight_type()
    return ModelFacts(
        format="ort",
        scheme=scheme.scheme(),
        weight_type=weight_type,
        activation_type=scheme.activation_type(),
        weight_bits=bits(weight_type) if weight_type else None,
        version=stated_version(model.number(5, "q"), metadata),
        size=len(data),
        inputs=inputs,
        outputs=outputs,
        metadata=metadata,
        operators=dict(scheme.operators),
        unknown=unknown,
    )


def _read_graph(
    buffer: FlatBuffer,
    table: Table,
    graph: Graph,
    pending: list[tuple[Table, Graph]],
    unknown: dict[str, str],
) -> None:
    for tensor in table.tables(0):
        name, constant = _tensor(buffer, tensor, unknown)
        graph.constants[name] = constant
    for sparse in table.tables(7):
        values = sparse.table(0)
        if values:
            name, constant = _tensor(buffer, values, unknown)
            graph.constants[name] = Constant(constant.dtype, constant.elements, lambda: None)
    for node in table.tables(2):
        op_type = node.text(5)
        numbers: dict[str, Number] = {}
        for attribute in node.tables(10) if op_type in ATTRIBUTES_READ else ():
            kind = attribute.number(2, "i")
            if kind == _INT:
                numbers[attribute.text(0)] = attribute.number(4, "q")
            elif kind == _FLOAT:
                numbers[attribute.text(0)] = attribute.real(3)
            elif kind == _GRAPH and (body := attribute.table(7)):
                pending.append((body, Graph(parent=graph)))
            elif kind == _GRAPHS:
                pending += [(body, Graph(parent=graph)) for body in attribute.tables(12)]
        graph.nodes.append(Node(op_type, node.text(2), tuple(node.texts(8)), tuple(node.texts(9)), numbers))
    described = {value.text(0): value for value in table.tables(1)}
    graph.inputs = tuple(
        _value(name, described.get(name)) for name in table.texts(5) if name not in graph.constants
    )
    graph.outputs = tuple(_value(name, described.get(name)) for name in table.texts(6))


def _tensor(buffer: FlatBuffer, tensor: Table, unknown: dict[str, str]) -> tuple[str, Constant]:
    dtype = dtype_name(tensor.number(3, "i"))
    dims = tensor.numbers(2, "q", RANK_LIMIT)
    elements = element_count(dims)
    if tensor.number(6, "q", -1) >= 0:
        unknown["size"] = "its external data has no stated place"
        return tensor.text(0), Constant(dtype, elements, lambda: None)
    return tensor.text(0), Constant(
        dtype, elements, functools.partial(_numbers, buffer, tensor.raw(4), dtype), len(dims)
    )


def _numbers(buffer: FlatBuffer, raw: Data, dtype: str) -> tuple[Number, ...] | None:
    found = decode(raw, dtype)
    # One constant may be asked for by many operators.
    buffer.visit(len(found or ()))
    return found


def _value(name: str, described: Table | None) -> TensorFacts:
    """Return a ValueInfo: its type is a union of tensor (1), sequence (2) and map (3)."""
    info = described.table(2) if described else None
    kind = info.number(1, "B") if info else 0
    if info is None or kind != 1:
        return TensorFacts(name, {2: "sequence", 3: "map"}.get(kind, "undefined"), None)
    tensor = info.table(2)
    if tensor is None:
        return TensorFacts(name, "undefined", None)
    dims = tensor.table(1)
    shape = tuple(_dimension(dimension.table(0)) for dimension in dims.tables(0)) if dims else None
    return TensorFacts(name, dtype_name(tensor.number(0, "i")), shape)


def _dimension(value: Table | None) -> int | None:
    """Return a DimensionValue, whose first field is 1 where the size is fixed."""
    if value is None or value.number(0, "b") != 1:
        return None
    size = value.number(1, "q")
    return size if size >= 0 else None
