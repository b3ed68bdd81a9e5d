"""Facts of a TFLite (LiteRT) model. Field numbers are those of TensorFlow Lite's ``schema.fbs``.

The scheme is that of most operators that hold quantized constants; with equal numbers, the first of this
list. Float operators do not count: one quantized operator makes a quantized model.

- ``full_integer``: integer constants, integer output.
- ``dynamic``: integer constants, float output; the runtime quantizes the activations (hybrid kernels).
- ``weight_only``: integer constants that DEQUANTIZE turns into floats first.
- ``float16``: float16 constants, dequantized first or not.

Where none counts, quantized activations still make ``full_integer``; else the model is ``none``.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import NamedTuple

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.models.formats.facts import (
    ModelFacts,
    QuantizationParameters,
    TensorFacts,
    distinct_names,
)
from otel_quantmon.models.formats.flatbuffer import FlatBuffer, Table
from otel_quantmon.models.formats.graph import NUMBERS_LIMIT, RANK_LIMIT, bits, is_float, is_integer
from otel_quantmon.models.formats.onnx import METADATA_LIMIT, stated_name
from otel_quantmon.models.formats.source import Data
from otel_quantmon.models.formats.tflite_schema import BUILTIN_OPERATORS, CUSTOM, DTYPES

__all__ = ["read_tflite"]

_ALIGNMENT = 64
"""Bytes to which the runtime's planner rounds each tensor (``kDefaultTensorAlignment``)."""

_LIST_LIMIT = 1 << 20
"""Inputs or outputs of one operator or graph."""

_METADATA_ENTRIES = 256
"""Entries of metadata that are read; many may share one buffer, so the file's size does not limit them."""

_DEFAULT_DESCRIPTIONS = ("", "mlir converted.", "toco converted.", "exported from subgraph.")

_BLOCKWISE = 2  # QuantizationDetails.BlockwiseQuantization

_STATE_OPERATORS = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"})

# ModelMetadata, in a buffer of its own with its own root, of the TFLite Support library's
# metadata_schema.fbs.
_MODEL_METADATA = "TFLITE_METADATA"
_MODEL_METADATA_FIELDS = {"name": 0, "description": 1, "version": 2, "author": 4, "license": 5}


class _Tensor(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int | None, ...]
    elements: int  # a dynamic dimension counting as 1
    constant: bool
    variable: bool
    quantization: QuantizationParameters | None
    quantized: bool  # also where its parameters are not those of QuantizationParameters


class _Operator(NamedTuple):
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Subgraph(NamedTuple):
    tensors: list[_Tensor]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: list[_Operator]


def read_tflite(data: Data) -> ModelFacts:
    """Read a ``Model`` table, the root of a TFLite file.

    Inputs, outputs and the arena are those of the first subgraph, which ``invoke()`` runs.

    Raises:
        ModelFormatError: It is damaged.
    """
    model = FlatBuffer(data).root()
    names = [_operator_name(code) for code in model.tables(1)]
    filled = [_is_filled(buffer) for buffer in model.tables(4)]
    subgraphs = [_subgraph(table, names, filled) for table in model.tables(2)]
    if not subgraphs:
        raise ModelFormatError("it has no graph")
    main = subgraphs[0]
    metadata, unknown = _metadata(model)
    weights = _weights(subgraphs)
    weight_type = max(weights, key=lambda dtype: weights[dtype]) if weights else None
    scheme, activation_type = _scheme(subgraphs, weight_type)
    operators = Counter(operator.name for subgraph in subgraphs for operator in subgraph.operators)
    stateful = not _STATE_OPERATORS.isdisjoint(operators) or any(
        tensor.variable for subgraph in subgraphs for tensor in subgraph.tensors
    )
    return ModelFacts(
        format="tflite",
        scheme=scheme,
        weight_type=weight_type,
        activation_type=activation_type,
        weight_bits=bits(weight_type) if weight_type else None,
        name=_name(model.text(3), metadata),
        version=metadata.get("version") or None,
        size=len(data),
        inputs=_described(main, main.inputs, "input"),
        outputs=_described(main, main.outputs, "output"),
        metadata=metadata,
        operators=dict(operators),
        arena=_arena(main),
        stateful=stateful,
        unknown=unknown,
    )


def _operator_name(code: Table) -> str:
    # Codes past 127 did not fit the first field; it then holds the placeholder 127, and the larger one
    # counts.
    number = max(code.number(0, "b"), code.number(3, "i"))
    if number == CUSTOM:
        return code.text(1) or "CUSTOM"
    return BUILTIN_OPERATORS[number] if 0 <= number < len(BUILTIN_OPERATORS) else f"BUILTIN_{number}"


def _is_filled(buffer: Table) -> bool:
    """Whether a buffer has contents, in place or (models over 2 GB) behind the tables."""
    return len(buffer.raw(0)) > 0 or buffer.number(2, "Q") > 1


def _subgraph(table: Table, names: list[str], filled: list[bool]) -> _Subgraph:
    tensors = [_tensor(tensor, filled) for tensor in table.tables(0)]
    count = len(tensors)
    operators: list[_Operator] = []
    for operator in table.tables(3):
        code = operator.number(0, "I")
        if code >= len(names):
            raise ModelFormatError(f"an operator has code {code} of {len(names)}")
        operators.append(_Operator(names[code], _indices(operator, 1, count), _indices(operator, 2, count)))
    return _Subgraph(tensors, _indices(table, 1, count), _indices(table, 2, count), operators)


def _indices(table: Table, field: int, count: int) -> tuple[int, ...]:
    """Tensors that an operator or a graph refers to, without those left out (-1)."""
    indices = table.numbers(field, "i", _LIST_LIMIT)
    if any(index >= count for index in indices):
        raise ModelFormatError(f"tensor {max(indices)} of {count} is referred to")
    return tuple(index for index in indices if index >= 0)


def _tensor(table: Table, filled: list[bool]) -> _Tensor:
    code = table.number(1, "b")
    dtype = DTYPES[code] if 0 <= code < len(DTYPES) else "undefined"
    dims = table.numbers(0, "i", RANK_LIMIT)
    signature = table.numbers(7, "i", RANK_LIMIT) or dims
    buffer = table.number(2, "I")
    constant = (buffer < len(filled) and filled[buffer]) or table.number(10, "I") > 0
    quantization = table.table(4) if is_integer(dtype) else None
    details = quantization.number(4, "B") if quantization else 0
    parameters = _parameters(quantization, dtype) if quantization and details != _BLOCKWISE else None
    return _Tensor(
        name=table.text(3),
        dtype=dtype,
        shape=tuple(dim if dim >= 0 else None for dim in signature),
        elements=math.prod(max(dim, 1) if dim < 0 else dim for dim in dims),
        constant=constant,
        variable=bool(table.number(5, "b")),
        quantization=parameters,
        # The scales of blocks are in a tensor of their own; nobody computes with plain integers of under a byte.
        quantized=parameters is not None
        or details > 0
        or (constant and is_integer(dtype) and bits(dtype) < 8),
    )


def _parameters(table: Table, dtype: str) -> QuantizationParameters | None:
    scales = table.floats(2, NUMBERS_LIMIT)
    zero_points = table.numbers(3, "q", NUMBERS_LIMIT) or (0,)
    if len(zero_points) == 1:
        zero_points *= len(scales)
    if not scales or len(zero_points) != len(scales) or not all(0 < scale < math.inf for scale in scales):
        return None
    return QuantizationParameters(
        scales, zero_points, dtype, table.number(6, "i") if len(scales) > 1 else None
    )


def _weights(subgraphs: list[_Subgraph]) -> Counter[str]:
    """Elements of the constants, by type; wide integers are shapes and biases, not weights."""
    weights: Counter[str] = Counter()
    for subgraph in subgraphs:
        for tensor in subgraph.tensors:
            narrow = is_integer(tensor.dtype) and bits(tensor.dtype) <= 16
            if tensor.constant and (is_float(tensor.dtype) or narrow):
                weights[tensor.dtype] += tensor.elements
    return weights


def _scheme(subgraphs: list[_Subgraph], weight_type: str | None) -> tuple[str, str | None]:
    """Return the scheme and the activations' type, decided as the module says.

    Hybrid kernels quantize activations to int8; what is dequantized is computed in float32.
    """
    votes: Counter[str] = Counter(dict.fromkeys(("full_integer", "dynamic", "weight_only", "float16"), 0))
    types: Counter[str] = Counter()
    for subgraph in subgraphs:
        for operator in subgraph.operators:
            constants = [t for t in map(subgraph.tensors.__getitem__, operator.inputs) if t.constant]
            output = subgraph.tensors[operator.outputs[0]] if operator.outputs else None
            # Biases are int32 and come with a narrower weight.
            quantized = any(t.quantized and bits(t.dtype) <= 16 for t in constants)
            if any(t.dtype == "float16" for t in constants):
                votes["float16"] += 1
            elif quantized and operator.name == "DEQUANTIZE":
                votes["weight_only"] += 1
            elif quantized and output and output.quantized:
                votes["full_integer"] += 1
                types[output.dtype] += 1
            elif quantized and output and is_float(output.dtype):
                votes["dynamic"] += 1
    scheme, count = votes.most_common(1)[0]
    if not count:
        types = Counter(
            t.dtype
            for s in subgraphs
            for t in s.tensors
            if t.quantized and not t.constant and bits(t.dtype) <= 16
        )
        scheme = "full_integer" if types else "none"
    if scheme == "full_integer":
        return scheme, types.most_common(1)[0][0]
    if scheme == "dynamic":
        return scheme, "int8"
    return scheme, "float32" if weight_type else None


def _arena(graph: _Subgraph) -> int:
    """Bytes of the tensors that live at once at the peak, in operator order, each rounded up to 64 bytes.

    Inputs and variables live from the first operator to the last, as in the runtime's ArenaPlanner, outputs
    from their operator on, others from the operator that writes them to the last that reads them. Scratch
    memory of kernels and gaps between tensors come on top; operators that work in place, and delegates, take
    away.
    """
    steps = len(graph.operators)
    first = dict.fromkeys(graph.inputs, 0) | {
        i: 0 for i, tensor in enumerate(graph.tensors) if tensor.variable
    }
    last = dict.fromkeys(first, steps)
    for step, operator in enumerate(graph.operators):
        for index in (*operator.outputs, *operator.inputs):
            first.setdefault(index, step)
            last[index] = max(last.get(index, 0), step)
    last |= dict.fromkeys(graph.outputs, steps)
    change = [0] * (steps + 2)
    for index, begin in first.items():
        tensor = graph.tensors[index]
        if not tensor.constant:
            size = (tensor.elements * bits(tensor.dtype) + 7) // 8
            size = -(-size // _ALIGNMENT) * _ALIGNMENT
            change[begin] += size
            change[last[index] + 1] -= size
    live = peak = 0
    for delta in change:
        live += delta
        peak = max(peak, live)
    return peak


def _described(graph: _Subgraph, indices: tuple[int, ...], kind: str) -> tuple[TensorFacts, ...]:
    tensors = [graph.tensors[index] for index in indices]
    names = distinct_names((t.name for t in tensors), kind)
    return tuple(
        TensorFacts(name, t.dtype, t.shape, t.quantization) for name, t in zip(names, tensors, strict=True)
    )


def _metadata(model: Table) -> tuple[dict[str, str], dict[str, str]]:
    """Metadata that is text, the fields of ModelMetadata among it; and what was left out, with the reason."""
    found: dict[str, str] = {}
    unknown: dict[str, str] = {}
    entries = itertools.islice(model.tables(6), _METADATA_ENTRIES)
    wanted = {entry.number(1, "I"): entry.text(0) for entry in entries}
    for index, buffer in enumerate(model.tables(4)):
        key = wanted.get(index)
        if key is None:
            continue
        raw = buffer.raw(0)
        if key == _MODEL_METADATA:
            try:
                root = FlatBuffer(raw).root()
                fields = {name: root.text(field) for name, field in _MODEL_METADATA_FIELDS.items()}
            except ModelFormatError as error:
                # The runtime never looks at it: the model itself is sound.
                unknown["metadata"] = f"{_MODEL_METADATA} is damaged: {error}"
                continue
            found |= {name: value for name, value in fields.items() if value}
        elif len(raw) <= METADATA_LIMIT:
            value = str(raw.tobytes(), "utf-8", "replace").rstrip("\0")
            if value.isprintable():
                found[key] = value
    return found, unknown


def _name(description: str, metadata: dict[str, str]) -> str | None:
    """Return the metadata's name, or the description where it is a name rather than a converter's own."""
    stated = stated_name(metadata.get("name", ""))
    if stated or description.strip().lower() in _DEFAULT_DESCRIPTIONS:
        return stated
    return stated_name(description)
