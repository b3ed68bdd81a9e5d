"""What a runtime tells of a model that it has loaded, and of the methods that run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

from otel_quantmon.formats.facts import TensorFacts
from otel_quantmon.semconv import RuntimeName

__all__ = [
    "IO",
    "Call",
    "LoadedModel",
    "Method",
    "Shapes",
    "declared_shapes",
    "dimensions",
    "fixed_io",
    "source_of",
]

Call: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any], Any]
"""The runtime's object, the arguments, the keyword arguments, and the result (None if there is none)."""


class IO(NamedTuple):
    """What one call moved.

    Attributes:
        batch: first dimension of the first input, None where that is fixed or unknown.
        input_bytes, output_bytes: of all tensors.
    """

    batch: int | None
    input_bytes: int
    output_bytes: int


class Shapes(NamedTuple):
    """Shapes of the inputs and outputs of one call, each as ``name:1x3``."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


# Compared by identity: a method that is patched anew is another one, so that a wrapper which somebody else still
# holds finds no lane under the old one and counts nothing twice.
@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One way into a runtime.

    Attributes:
        name: of the method, and the value of ``quantmon.operation.name``.
        measure: what a call moved, from its arguments, keyword arguments and result. It is called for every
            successful call, so it has to be fast; None for a method where only `LoadedModel.io` is known.
        read_inputs: the inputs by name, from the object, the arguments and the keyword arguments, before the call;
            None where they cannot be read, as when they are on a device. Views of the application's arrays will
            do: they are copied before the call.
        read_outputs: the outputs by name, after the call.
        shapes: the shapes of a call of a model where they are not all fixed, for its span; the result in it is
            None when there is none.
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
    resizes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A loaded model as its runtime knows it.

    Attributes:
        runtime: value of ``quantmon.runtime.name``.
        runtime_version: as the runtime's package states it.
        provider: execution provider of the highest priority, or the delegate.
        requested: execution providers that the application asked for, by name; empty if it left the choice.
        providers: those registered, in their order.
        source: path of the file, or the bytes it was loaded from; None when unknown.
        label: a name for it when the source gives none.
        inputs, outputs: of the graph.
        batch_input: name of the first input, if its first dimension is dynamic.
        io: what every call moves, where every shape is fixed; else None.
    """

    runtime: RuntimeName
    runtime_version: str
    provider: str
    requested: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    source: str | bytes | None = None
    label: str | None = None
    inputs: tuple[TensorFacts, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    batch_input: str | None = None
    io: IO | None = None


def fixed_io(inputs: tuple[TensorFacts, ...], outputs: tuple[TensorFacts, ...]) -> IO | None:
    """What every call moves if all shapes and types are fixed; None if any is not."""
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


def source_of(path_or_buffer: object) -> str | bytes | None:
    """What a model is read from: an absolute path or a buffer; None for anything else."""
    if isinstance(path_or_buffer, (str, os.PathLike)):
        path = os.fspath(cast("str | os.PathLike[str]", path_or_buffer))
        # The application may change its directory before the file is read.
        return os.path.abspath(path)
    if isinstance(path_or_buffer, (bytes, bytearray)):
        return bytes(path_or_buffer)
    return None


def declared_shapes(loaded: LoadedModel, _: Call | None = None) -> Shapes:
    """The shapes as the graph declares them, a dynamic dimension as ``?``."""
    return Shapes(
        tuple(f"{t.name}:{dimensions(t.shape)}" for t in loaded.inputs),
        tuple(f"{t.name}:{dimensions(t.shape)}" for t in loaded.outputs),
    )


def dimensions(shape: Iterable[int | None] | None) -> str:
    """A shape as ``1x3x224x224``; ``?`` for what is unknown, nothing for a scalar."""
    return "?" if shape is None else "x".join("?" if d is None else str(d) for d in shape)


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
