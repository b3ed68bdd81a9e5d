"""What a runtime says of a model that it has loaded, and of the methods that run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, cast

from otel_quantmon.models.formats.facts import ModelFacts, TensorFacts
from otel_quantmon.models.formats.source import Identity
from otel_quantmon.semconv import RuntimeName, bounded
from otel_quantmon.telemetry.spans import SpanTemplate

__all__ = [
    "IO",
    "Call",
    "CallKind",
    "KindOf",
    "Kinds",
    "LoadedModel",
    "Method",
    "Shapes",
    "declared_shapes",
    "fixed_io",
    "has_fixed_width",
    "named_shape",
    "source_of",
    "with_facts",
]

Call: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any], Any]
"""The runtime's object, the arguments, the keyword arguments, and the result (None if there is none)."""


class IO(NamedTuple):
    """What one call moved.

    Attributes:
        batch: First dimension of the first input, None where that is fixed or unknown.
        input_bytes, output_bytes: Bytes of all tensors.
    """

    batch: int | None
    input_bytes: int
    output_bytes: int


class Shapes(NamedTuple):
    """Shapes of the inputs and outputs of one call, each as ``name:1x3``."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


class CallKind:
    """What the calls of one method of one model with the same shapes have in common.

    Attributes:
        io: Bytes that each of them moves.
        shapes: Shapes of their inputs and outputs.
        span_template: Template of the span of a success, None until all that does not change is known.
    """

    __slots__ = ("io", "shapes", "span_template")

    def __init__(self, io: IO, shapes: Shapes) -> None:
        self.io = io
        self.shapes = shapes
        self.span_template: SpanTemplate | None = None


KindOf: TypeAlias = Callable[[Any, Any, Any], CallKind | None]
"""The kind of a call from its first two arguments, given by position, and its result. None where that takes
long to say; `Method.measure` and `Method.shapes` are asked then."""


class Kinds(NamedTuple):
    """What distinguishes the kinds of the calls of one method of one model.

    Attributes:
        of: Tells the kind of any call.
        fed: Name in the second argument of the one array whose shape is all that the kind of a call follows from, if
            no outputs are chosen by the first; None where there is no such array.
        array: Class of that array.
        size_of: Tells of that array what its kind follows from: its length where nothing but the first dimension is
            dynamic, which is read in a fraction of the time, else its shape.
        by_size: Kinds that are known of it, by that.
    """

    of: KindOf
    fed: str | None = None
    array: type | None = None
    size_of: Callable[[Any], object] = len
    by_size: Mapping[object, CallKind] = MappingProxyType({})


# Compared by identity: a method that is patched anew is another one, so that a wrapper which somebody else still
# holds finds no call state under the old one and counts nothing twice.
@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One way into a runtime.

    Attributes:
        name: Name of the method, and the value of ``quantmon.operation.name``.
        measure: A function that says what a call moved, from its arguments, keyword arguments and result. It is
            called for every successful call, so it has to be fast; None for a method where only
            `LoadedModel.io` or `LoadedModel.measure` is known.
        read_inputs: The inputs by name, from the object, the arguments and the keyword arguments, before the call;
            None where they cannot be read, as when they are on a device. Views of the application's arrays will
            do: they are copied before the call.
        read_outputs: The outputs by name, after the call.
        shapes: The shapes of a call of a model where they are not all fixed, for its span; the result in it is
            None when there is none.
        kinds: A function that makes the key of the kind of a successful call. It is called for each call, in
            place of `measure`.
        resizes: True if a call takes inputs of any shape and fits the model to them, so that `LoadedModel.io` does
            not hold.
    """

    name: str
    measure: Callable[[LoadedModel, tuple[Any, ...], dict[str, Any], Any], IO | None] | None
    shapes: Callable[[LoadedModel, Call], Shapes]
    read_inputs: Callable[[LoadedModel, Any, tuple[Any, ...], dict[str, Any]], Mapping[str, Any]] | None = (
        None
    )
    read_outputs: Callable[[LoadedModel, Call], Mapping[str, Any]] | None = None
    kinds: Callable[[LoadedModel], Kinds | None] | None = None
    resizes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A loaded model as its runtime knows it.

    Attributes:
        runtime: Value of ``quantmon.runtime.name``.
        runtime_version: Version, as the runtime's package states it.
        provider: Execution provider of the highest priority, or the delegate.
        requested: Execution providers that the application asked for, by name; empty if it left the choice.
        providers: Registered providers, in their order.
        disabled_optimizers: Graph optimizers that the application switched off by name, as it loaded the model.
        source: Path of the file, or the bytes it was loaded from; None when unknown.
        identity: Identity of the source's file when its loading began; None where that was not seen.
        label: A name for it when the source gives none.
        inputs, outputs: Inputs and outputs of the graph.
        batch_input: Name of the first input, if its first dimension is dynamic.
        batch_aliases: Other names of that input, as signatures have them.
        io: What every call moves, where every shape is fixed; else None.
        measure: As `Method.measure`, for a method that has none: where only the runtime's object knows what its last
            call moved.
        outputs_follow: True if the graph says that the shapes of all outputs follow from those of the inputs.
    """

    runtime: RuntimeName
    runtime_version: str
    provider: str
    requested: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    disabled_optimizers: frozenset[str] = frozenset()
    source: str | bytes | None = None
    identity: Identity | None = field(default=None, compare=False)
    label: str | None = None
    inputs: tuple[TensorFacts, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    batch_input: str | None = None
    batch_aliases: frozenset[str] = frozenset()
    io: IO | None = None
    measure: Callable[[LoadedModel, tuple[Any, ...], dict[str, Any], Any], IO | None] | None = field(
        default=None, compare=False
    )
    outputs_follow: bool = False


def fixed_io(inputs: tuple[TensorFacts, ...], outputs: tuple[TensorFacts, ...]) -> IO | None:
    """Return what every call moves if all shapes and types are fixed; None if any is not."""
    totals: list[int] = []
    for tensors in (inputs, outputs):
        total = 0
        for tensor in tensors:
            size = _size(tensor)
            if size is None:
                return None
            total += size
        totals.append(total)
    return IO(None, totals[0], totals[1])


# ONNX operators that give as many elements as the values of their inputs make of them. A file may have the name of
# another number for that.
_SIZED_BY_VALUES = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})


def with_facts(loaded: LoadedModel, facts: ModelFacts) -> LoadedModel:
    """Return ``loaded`` with what its file knows better: which shapes are those of scalars, and which follow."""
    if loaded.runtime != "onnxruntime":
        return loaded
    scalars = {tensor.name for tensor in (*facts.inputs, *facts.outputs) if tensor.shape == ()}
    inputs, outputs = (
        tuple(replace(t, shape=()) if t.shape is None and t.name in scalars else t for t in tensors)
        for tensors in (loaded.inputs, loaded.outputs)
    )
    return replace(
        loaded,
        inputs=inputs,
        outputs=outputs,
        io=fixed_io(inputs, outputs),
        outputs_follow=loaded.outputs_follow and _SIZED_BY_VALUES.isdisjoint(facts.operators),
    )


def has_fixed_width(tensor: TensorFacts) -> bool:
    """Return True if the size of ``tensor`` follows from its shape: elements of whole bytes, as many of each."""
    return tensor.dtype in _WIDTHS


def source_of(path_or_buffer: object) -> str | bytes | None:
    """Return what a model is read from: an absolute path or a buffer; None for anything else."""
    if isinstance(path_or_buffer, (str, os.PathLike)):
        path = os.fspath(cast("str | os.PathLike[str]", path_or_buffer))
        # The application may change its directory before the file is read.
        return os.path.abspath(path)
    if isinstance(path_or_buffer, (bytes, bytearray)):
        return bytes(path_or_buffer)
    return None


def declared_shapes(loaded: LoadedModel, _: Call | None = None) -> Shapes:
    """Return the shapes as the graph declares them, a dynamic dimension as ``?``."""
    return Shapes(
        tuple(named_shape(t.name, t.shape) for t in loaded.inputs),
        tuple(named_shape(t.name, t.shape) for t in loaded.outputs),
    )


def named_shape(name: str, shape: Iterable[int | None] | None) -> str:
    """Return a shape as ``name:1x3x224x224``, or ``name:scalar``; ``?`` for what is unknown."""
    if shape is None:
        return f"{bounded(name)}:?"
    return f"{bounded(name)}:{'x'.join(['?' if d is None else str(d) for d in shape]) or 'scalar'}"


def _size(tensor: TensorFacts) -> int | None:
    width = _WIDTHS.get(tensor.dtype)
    if width is None or tensor.shape is None:
        return None
    size = width
    for dimension in tensor.shape:
        if dimension is None:
            return None
        size *= dimension
    return size


# Bytes of an element, for the types that have a fixed width of whole bytes.
_WIDTHS = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2, "int32": 4,
    "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip
