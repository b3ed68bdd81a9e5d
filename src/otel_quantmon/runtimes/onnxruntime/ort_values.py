"""What an `OrtValue` says of the tensor in it, if there is one.

That of an optional type that is empty says that it is a tensor, and whatever else it is asked ends the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from otel_quantmon.models.formats.graph import bits, dtype_name

__all__ = ["arrays_of", "has_tensor", "shape_of", "size_of"]


def has_tensor(value: Any) -> bool:
    """Return True if ``value``, which may be anything, is an `OrtValue` with a tensor in it."""
    return hasattr(value, "is_tensor") and bool(value.has_value() and value.is_tensor())


def shape_of(value: Any) -> list[int] | None:
    """Return the shape of the tensor, None if there is none."""
    return cast("list[int]", value.shape()) if has_tensor(value) else None


def size_of(value: Any) -> int:
    """Return the bytes of the tensor, 0 if there is none: a sequence or a map has no size of its own."""
    if not has_tensor(value):
        return 0
    size = getattr(value, "tensor_size_in_bytes", None)
    if size is not None:
        return int(size())
    # Before ONNX Runtime 1.20.
    shape: list[int] = value.shape()
    return math.prod(shape) * bits(dtype_name(value.element_type())) // 8


def arrays_of(named: Iterable[tuple[str, Any]]) -> Mapping[str, Any]:
    """Return the tensors among ``named`` values, as arrays."""
    return {name: value.numpy() for name, value in named if has_tensor(value)}
