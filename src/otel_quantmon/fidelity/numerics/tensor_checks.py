"""What can be said of one tensor without a reference: non-finite values, clipping, use of its range.

Int8 hides bad input: a NaN that would run through a float model comes out of a quantized one as a finite
number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.fidelity.numerics.dequantization import (
    NotComparableError,
    as_real,
    broadcast_shape,
    code_range,
    codes,
    is_label,
)
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts

__all__ = ["TensorCheck", "check_tensor"]


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """What one tensor holds.

    Attributes:
        elements: Number of elements.
        nan: Elements that are NaN.
        infinite: Elements that are +Inf or -Inf.
        minimum, maximum: Extremes of the finite elements, in the tensor's own unit (codes for integers);
            None without any.
        clip_ratio: Share of all elements that the quantizer cannot represent, in [0, 1]; None where no range
            is known. For floats, those further than half a step outside ``[(qmin-zp)*scale,
            (qmax-zp)*scale]``: what lies within half a step of the ends is represented as well as anything
            between them, and calibration, which rounds the zero point, leaves its own extremes there.
            Infinite values are outside, NaN is not. For integer codes, those at either end of their type.
        range_use: Share of the representable range that the finite elements span, in [0, 1]; the mean over
            channels for parameters along an axis; None where no range is known.
    """

    elements: int
    nan: int = 0
    infinite: int = 0
    minimum: float | None = None
    maximum: float | None = None
    clip_ratio: float | None = None
    range_use: float | None = None

    @property
    def nonfinite(self) -> bool:
        """True if any element is NaN or infinite."""
        return bool(self.nan or self.infinite)


def check_tensor(array: NDArray[Any], facts: TensorFacts | None = None) -> TensorCheck | None:
    """Check one input or output.

    A tensor that is finite and inside its range costs two passes, those for its extremes.

    Args:
        array: Array of any shape.
        facts: Quantization parameters, and that uint16 means bfloat16. Integer codes have a range if they
            have parameters, or at most 8 bits: wider ones without are indices.

    Returns:
        None for what holds no numbers: Strings, objects, booleans, complex numbers.
    """
    parameters = None if facts is None else facts.quantization
    integers = codes(array)
    declared_float = facts is not None and facts.dtype == "bfloat16"
    if integers.dtype.kind in "iu" and not declared_float:
        dtype = array.dtype.name if parameters is None else parameters.dtype
        return _check_codes(integers, dtype if parameters or array.dtype.itemsize == 1 else None)
    if is_label(array, facts):
        return None
    try:
        real = as_real(array, facts)
    except NotComparableError:
        return None
    if real.dtype == np.float16:
        # Bounds beyond 65504 exist as float32 only.
        real = real.astype(np.float32)
    return _check_floats(real, parameters)


def _check_codes(array: NDArray[Any], dtype: str | None) -> TensorCheck:
    if not array.size:
        return TensorCheck(0)
    smallest, largest = int(array.min()), int(array.max())
    try:
        ends = None if dtype is None else code_range(dtype)
    except NotComparableError:
        ends = None  # parameters of another type than the tensor's, as of a float of eight bits
    if ends is None:
        return TensorCheck(array.size, minimum=float(smallest), maximum=float(largest))
    low, high = ends
    at_ends = sum(int(np.count_nonzero(array == end)) for end in (low, high) if smallest <= end <= largest)
    return TensorCheck(
        array.size,
        minimum=float(smallest),
        maximum=float(largest),
        clip_ratio=at_ends / array.size,
        range_use=min(1.0, (largest - smallest) / (high - low)),
    )


def _check_floats(array: NDArray[Any], parameters: QuantizationParameters | None) -> TensorCheck:
    if not array.size:
        return TensorCheck(0)
    limits = None if parameters is None else _limits(array, parameters)
    over = None
    if limits is not None and limits.low.size > 1:
        over = tuple(dimension for dimension in range(array.ndim) if limits.low.shape[dimension] == 1)
    with np.errstate(all="ignore"):
        # Both extremes are NaN if anything is, and infinite if anything is: two passes show that all is well.
        # Those of the functions `min` and `max` are the same at three times the cost for a few numbers.
        smallest = np.minimum.reduce(array, axis=over, keepdims=True)
        largest = np.maximum.reduce(array, axis=over, keepdims=True)
        nan = infinite = 0
        if not (np.isfinite(smallest) & np.isfinite(largest)).all():
            finite = np.isfinite(array)
            nan = int(np.count_nonzero(np.isnan(array)))
            infinite = array.size - int(np.count_nonzero(finite)) - nan
            smallest = np.min(array, axis=over, keepdims=True, where=finite, initial=np.inf)
            largest = np.max(array, axis=over, keepdims=True, where=finite, initial=-np.inf)
        some = nan + infinite < array.size
        return TensorCheck(
            array.size,
            nan,
            infinite,
            minimum=float(smallest.min()) if some else None,
            maximum=float(largest.max()) if some else None,
            clip_ratio=None if limits is None else limits.clip_ratio(array, smallest, largest, infinite),
            range_use=limits.range_use(smallest, largest) if limits is not None and some else None,
        )


@dataclass(frozen=True, slots=True)
class _Limits:
    """What the codes stand for at their two ends, and half a step; each broadcasts against the tensor."""

    low: NDArray[Any]
    high: NDArray[Any]
    half_step: NDArray[Any]

    def clip_ratio(
        self, array: NDArray[Any], smallest: NDArray[Any], largest: NDArray[Any], infinite: int
    ) -> float:
        # In the tensor's own type: a comparison with float64 would widen a copy of it.
        low, high = (
            (self.low - self.half_step).astype(array.dtype),
            (self.high + self.half_step).astype(array.dtype),
        )
        if not infinite and np.all(smallest >= low) and np.all(largest <= high):
            return 0.0
        return (int(np.count_nonzero(array < low)) + int(np.count_nonzero(array > high))) / array.size

    def range_use(self, smallest: NDArray[Any], largest: NDArray[Any]) -> float:
        spanned = np.minimum(largest, self.high) - np.maximum(smallest, self.low)
        return float(np.mean(np.clip(spanned / (self.high - self.low), 0.0, 1.0)))


def _limits(array: NDArray[Any], parameters: QuantizationParameters) -> _Limits | None:
    """None for parameters that do not fit the tensor: its numbers are checked all the same."""
    try:
        qmin, qmax = code_range(parameters.dtype)
        shape = broadcast_shape(array, parameters)
    except NotComparableError:
        return None
    scale = np.asarray(parameters.scales, np.float64).reshape(shape)
    zero_point = np.asarray(parameters.zero_points, np.float64).reshape(shape)
    return _Limits((qmin - zero_point) * scale, (qmax - zero_point) * scale, scale / 2)
