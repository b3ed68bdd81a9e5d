"""Any tensor a runtime hands out, as an array of real numbers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts

__all__ = [
    "NotComparableError",
    "Reason",
    "as_real",
    "broadcast_shape",
    "code_range",
    "codes",
    "dequantize",
    "is_label",
]

Reason = Literal[
    "empty", "unmatched", "kind", "shape", "dtype", "quantization", "sparse", "non_finite", "degenerate"
]
"""Why an output gives no sample; `otel_quantmon.fidelity.numerics.comparison` says when each applies."""

# Types of the ml_dtypes package, which numpy knows by name alone.
_NARROW_FLOATS = ("bfloat16", "float8_", "float6_", "float4_")
_NARROW_INTEGERS = {"int2": (-2, 1), "uint2": (0, 3), "int4": (-8, 7), "uint4": (0, 15)}


class NotComparableError(ValueError):
    """A value has no treatment as numbers, for a reason from the closed list."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason


def code_range(dtype: str) -> tuple[int, int]:
    """Smallest and largest code of an integer type, ``"int4"`` and its like included.

    Raises:
        NotComparableError: ``quantization``, no integer type has this name.
    """
    if dtype in _NARROW_INTEGERS:
        return _NARROW_INTEGERS[dtype]
    try:
        limits = np.iinfo(dtype)
    except (TypeError, ValueError):
        raise NotComparableError("quantization", f"codes of type {dtype} have no known range") from None
    return int(limits.min), int(limits.max)


def codes(array: NDArray[Any]) -> NDArray[Any]:
    """`array` with the integer types that only ml_dtypes knows widened to int8 or uint8."""
    name = _foreign_name(array)
    if name in _NARROW_INTEGERS:
        return array.astype(np.int8 if name.startswith("i") else np.uint8)
    return array


def _foreign_name(array: NDArray[Any]) -> str:
    """Name of a type that another package has registered; empty for numpy's own, whose names take 7 us each."""
    return array.dtype.name if array.dtype.isbuiltin == 2 else ""


def is_label(array: NDArray[Any], facts: TensorFacts | None = None) -> bool:
    """Return True for values that are equal or not, between which no distance means anything.

    These are booleans, strings, and integers without quantization parameters: indices, tokens, classes.
    """
    if array.dtype.kind == "O":
        return all(isinstance(value, (str, bytes)) for value in array.flat)
    if array.dtype.kind in "bSUT":
        return True
    if facts is not None and (facts.quantization is not None or facts.dtype == "bfloat16"):
        return False
    return codes(array).dtype.kind in "iu"


def as_real(array: NDArray[Any], facts: TensorFacts | None = None) -> NDArray[Any]:
    """`array` as real floating-point numbers.

    Floats pass as they are, so do bfloat16 and the 8-bit floats of ml_dtypes as float32. uint16 that `facts`
    call bfloat16 (its bits, where ml_dtypes is missing) and integers with quantization parameters become
    float32 or, for codes wider than 16 bits, float64.

    Raises:
        NotComparableError: ``dtype`` for complex numbers and objects, ``quantization`` for integers
            whose parameters are missing or do not fit.
    """
    if _foreign_name(array).startswith(_NARROW_FLOATS):
        return array.astype(np.float32)
    if array.dtype.kind == "f":
        return array
    if array.dtype == np.uint16 and facts is not None and facts.dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    integers = codes(array)
    if integers.dtype.kind not in "iu":
        raise NotComparableError("dtype", f"{array.dtype} has no treatment as real numbers")
    if facts is None or facts.quantization is None:
        raise NotComparableError("quantization", f"{array.dtype} codes come without quantization parameters")
    return dequantize(integers, facts.quantization)


def dequantize(array: NDArray[Any], parameters: QuantizationParameters) -> NDArray[Any]:
    """``scale * (code - zero_point)``, as ONNX DequantizeLinear and TFLite define it.

    Args:
        array: Integer codes of any shape.
        parameters: Per tensor, or as many scales as ``array.shape[parameters.axis]``.

    Returns:
        Float32 for codes of at most 16 bits, as the runtimes compute it, else float64.

    Raises:
        NotComparableError: ``quantization``, the parameters do not fit the array.
    """
    real: np.dtype[Any] = np.dtype(
        np.float64 if array.dtype.itemsize > np.dtype(np.int16).itemsize else np.float32
    )
    scales: NDArray[Any] = np.asarray(parameters.scales, real)
    zero_points: NDArray[Any] = np.asarray(parameters.zero_points, real)
    if scales.shape != zero_points.shape or not scales.size or not np.all(np.isfinite(scales) & (scales > 0)):
        raise NotComparableError("quantization", "the scales are not positive numbers, one to a zero point")
    shape = broadcast_shape(array, parameters)
    # Codes and zero points of 16 bits are exact in float32, their differences too.
    result: NDArray[Any] = (array.astype(real) - zero_points.reshape(shape)) * scales.reshape(shape)
    return result


def broadcast_shape(array: NDArray[Any], parameters: QuantizationParameters) -> tuple[int, ...]:
    """Return the shape in which the scales of `parameters` broadcast against `array`.

    Raises:
        NotComparableError: ``quantization``, there are more or fewer scales than the axis has indices.
    """
    count, axis = len(parameters.scales), parameters.axis
    if count == 1:
        return (1,) * array.ndim
    if axis is None or not -array.ndim <= axis < array.ndim or array.shape[axis] != count:
        raise NotComparableError(
            "quantization", f"{count} scales along axis {axis} do not fit shape {array.shape}"
        )
    shape = [1] * array.ndim
    shape[axis] = count
    return tuple(shape)
