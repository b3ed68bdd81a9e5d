"""How far a quantized tensor is from its float reference: one pass over both, in blocks that stay in cache.

Sums of squares decide every number here, and where they are taken decides what they are worth:

- Anything but a large float32 block is summed in float64. float32 values need no scaling there (their squares
  lie within 1e-90 and 1e78); float64 values near the ends of their range are scaled by a power of two first,
  which is exact, as LAPACK's ``dnrm2`` does for the same reason (Blue, ACM TOMS 4(1), 1978).
- A block of at least `FAST_BLOCK` float32 values is summed by BLAS in float32, the sums of blocks in float64.
  The error of such a sum is at most n·2⁻²⁴ of it (Higham, Accuracy and Stability of Numerical Algorithms,
  2nd ed., §3.1) for a BLAS that adds one by one; those that numpy is built with keep many partial sums, and
  the tests hold norms of such blocks to 1e-4. A block whose sums overflow, hold a NaN or come near the
  denormals is done again in float64.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SQNR_LIMIT", "Measures", "decibels", "measure", "top1_noise"]

Array = NDArray[Any]
Pair = tuple[Array, Array]

SQNR_LIMIT = 120.0
"""dB: five bits more than float32 itself resolves (24 bits are 144 dB, and inference loses some of them)."""

BLOCK = 1 << 19
"""Elements: two float32 blocks are 4 MiB, which the third level of cache holds until their rows are read."""

PART = 1 << 17
"""Elements of a block that are summed at once, for cache and for precision. BLAS keeps to the calling thread
for float32 sums on x86."""

FAST_BLOCK = 1 << 15
"""Elements: below, float64 costs less than the calls around it, so small outputs are exact to rounding."""

MAX_CLASSES = 1 << 19
"""A longer last axis is not one of classes: the largest vocabularies in use have a little over 2**18."""

MAX_ROWS = 1 << 14
"""Rows whose top-1 is looked at, evenly spread: a share found from so many has a standard error under 0.4
%."""

# A float32 square below 2**-126 is rounded coarsely or to nothing: at most 2**19 of them leave 2**-107 out of
# a sum, 2**-27 of the smallest sum accepted.
_SMALLEST_FAST_SUM = 2.0**-80

# Squares of float64 values within 2**±400, 2**60 of them together, neither overflow nor become denormal.
_SAFE_EXPONENT = 400

# The law of cosines loses as many times its rounding error as the norms are apart.
_COMPARABLE_NORMS = 8.0


@dataclass(frozen=True, slots=True)
class Measures:
    """Distance of one output q from its reference f, over the elements that are finite in both.

    Every float is finite: what overflows is given as the largest float64.

    Attributes:
        elements: Number of elements that were compared.
        reference_norm: ‖f‖₂, in the output's own unit.
        relative_error: ‖q−f‖₂ / ‖f‖₂; below 1e-120 it may be given as 0. It means nothing where
            ``reference_norm`` is 0, and is 0 there if q is zero as well, else the largest float64.
        sqnr: −20·log10(relative_error) in dB, clamped to ±`SQNR_LIMIT`.
        cosine_similarity: F·q / (‖f‖₂‖q‖₂), in [−1, 1]; 1 if both are zero, 0 if one is.
        max_abs_error: Max |q−f|, in the output's own unit.
        rows: Rows along the last axis whose top-1 was looked at; 0 when there is no axis of classes.
        flips: Those of these rows whose argmax differs although the reference separates the two classes.
        nonfinite_mismatches: Elements that are NaN or infinite in one, and not the same in the other.
    """

    elements: int
    reference_norm: float
    relative_error: float
    sqnr: float
    cosine_similarity: float
    max_abs_error: float
    rows: int
    flips: int
    nonfinite_mismatches: int

    @property
    def disagreement(self) -> float | None:
        """Share of rows whose top-1 flipped, None without rows."""
        return self.flips / self.rows if self.rows else None


def decibels(relative_error: float) -> float:
    """Signal-to-quantization-noise ratio in dB of a relative error, clamped to ±`SQNR_LIMIT`."""
    if relative_error <= 0.0:
        return SQNR_LIMIT
    return min(SQNR_LIMIT, max(-SQNR_LIMIT, -20.0 * math.log10(relative_error)))


def top1_noise(dtype: np.dtype[Any]) -> float:
    """Return the margin up to which a reference of `dtype` decides nothing, as a share of its row's magnitude.

    Another host, thread count or kernel adds the same products in another order. The error of an inner
    product of n terms grows in practice as √n·u (Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019);
    2¹⁰·eps allows for n of four million through the network (eps = 2u). To this, types narrower than float32
    add the rounding of the two stored values, half an eps each (float16, else that of bfloat16); their sums
    are taken in float32.
    """
    arithmetic = np.float64 if dtype == np.float64 else np.float32
    noise = 2.0**10 * float(np.finfo(arithmetic).eps)
    if dtype.itemsize < np.dtype(np.float32).itemsize:
        noise += 2.0**-10 if dtype == np.float16 else 2.0**-7
    return noise


def measure(pairs: Sequence[Pair], noise: float | None = None) -> Measures:
    """All measures of one output.

    Args:
        pairs: (q, f) arrays of real numbers, equal in shape within a pair; more than one for an output that
            is a sequence of tensors, which is then measured as if they were one. Rows are those of the last
            axis.
        noise: See `top1_noise`; by default that of the first reference's type.

    Raises:
        ValueError: The two arrays of a pair differ in shape.
    """
    for q, f in pairs:
        if q.shape != f.shape:
            raise ValueError(f"cannot measure {q.shape} against {f.shape}: give arrays of one shape")
    if noise is None:
        noise = top1_noise(pairs[0][1].dtype) if pairs else 0.0
    with np.errstate(all="ignore"):
        totals = _Totals(pairs, noise)
        for q, f in pairs:
            totals.add(q, f)
        return totals.result(pairs)


class _Totals:
    """Running sums over all blocks of all pairs of one output."""

    def __init__(self, pairs: Sequence[Pair], noise: float) -> None:
        largest_q, largest_f = _largest(pairs)
        # What each of f, q and q−f is divided by, as powers of two.
        self.scale_f = _exponent(largest_f)
        self.scale_q = _exponent(largest_q)
        largest = _exponent(max(largest_f, largest_q))
        self.scale_d = largest + 1 if largest else 0
        self.ff = self.qq = self.dd = self.largest_d = 0.0
        self.noise = noise
        self.elements = self.rows = self.flips = self.mismatches = 0
        self.scratch: Array = np.empty(PART, np.float32)

    def add(self, q: Array, f: Array) -> None:
        classes = f.shape[-1] if f.ndim and 1 < f.shape[-1] <= MAX_CLASSES else 0
        # An odd step is unlikely to fall in with the width of an image.
        step = -(-(f.size // classes) // MAX_ROWS) | 1 if classes else 1
        row = 0
        flips: list[tuple[Array, ...]] = []
        for block in _blocks(q, f, max(1, classes)):
            usable = None if self._add_fast(*block) else self._add_exact(*block)
            if classes:
                rows_q, rows_f = (x.reshape(-1, classes) for x in block)
                looked_at = np.arange(-row % step, len(rows_f), step)
                if usable is not None:
                    looked_at = looked_at[usable.reshape(-1, classes)[looked_at].all(axis=1)]
                if len(looked_at) < len(rows_f):
                    rows_q, rows_f = rows_q[looked_at], rows_f[looked_at]
                top_q, top_f = rows_q.argmax(axis=1), rows_f.argmax(axis=1)
                flipped = np.flatnonzero(top_q != top_f)
                if flipped.size:
                    flips.append((row + looked_at[flipped], top_q[flipped], top_f[flipped]))
                self.rows += len(looked_at)
                row += block[0].size // classes
        if flips:
            self._count_flips(
                f.reshape(-1, classes), *(np.concatenate(part) for part in zip(*flips, strict=True))
            )

    def _add_fast(self, q: Array, f: Array) -> bool:
        """Add a block summed in float32; False, and nothing added, if that would not be good enough."""
        if f.size < FAST_BLOCK or f.dtype != np.float32 or q.dtype != np.float32:
            return False
        ff = qq = dd = largest = 0.0
        for start in range(0, f.size, PART):
            part_q, part_f = q[start : start + PART], f[start : start + PART]
            d = np.subtract(part_q, part_f, out=self.scratch[: part_f.size])
            dd += float(np.dot(d, d))
            ff += float(np.dot(part_f, part_f))
            qq += float(np.dot(part_q, part_q))
            # Not np.abs(d).max(): that writes the part once more.
            largest = max(largest, float(np.maximum.reduce(d)), -float(np.minimum.reduce(d)))
        enough = min(ff, qq, dd if largest else ff) >= _SMALLEST_FAST_SUM
        if not (enough and math.isfinite(ff + qq + dd)):
            return False
        self._add_sums(ff, qq, dd, largest, f.size)
        return True

    def _add_exact(self, q: Array, f: Array) -> NDArray[np.bool_] | None:
        """Add a block summed in float64; return which elements a row's top-1 may hold, None for all."""
        q, f = q.astype(np.float64), f.astype(np.float64)
        finite = np.isfinite(q) & np.isfinite(f)
        usable = None
        if not finite.all():
            same = (q == f) | (np.isnan(q) & np.isnan(f))
            self.mismatches += int(np.count_nonzero(~(finite | same)))
            # Classes masked out by both models with -inf leave a row's top-1 as meaningful as before.
            usable = finite | (np.isneginf(q) & np.isneginf(f))
            q, f = np.where(finite, q, 0.0), np.where(finite, f, 0.0)
        d = _scaled(q, self.scale_d) - _scaled(f, self.scale_d)
        ff, qq = _square_sum(_scaled(f, self.scale_f)), _square_sum(_scaled(q, self.scale_q))
        self._add_sums(ff, qq, _square_sum(d), float(np.max(np.abs(d))), int(np.count_nonzero(finite)))
        return usable

    def _add_sums(self, ff: float, qq: float, dd: float, largest_d: float, elements: int) -> None:
        self.ff += ff
        self.qq += qq
        self.dd += dd
        self.largest_d = max(self.largest_d, largest_d)
        self.elements += elements

    def _count_flips(self, f: Array, rows: Array, top_q: Array, top_f: Array) -> None:
        """Count the rows of f in which it prefers its own top class to that of q by more than noise."""
        at_once = max(1, BLOCK // f.shape[1])
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            values = f[rows[part]].astype(np.float64)
            values[np.isneginf(values)] = 0.0
            values /= 2  # else a margin between values near the ends of float64 would overflow
            index = np.arange(len(values))
            margin = values[index, top_f[part]] - values[index, top_q[part]]
            self.flips += int(np.count_nonzero(margin > self.noise * np.abs(values).max(axis=1)))

    def result(self, pairs: Sequence[Pair]) -> Measures:
        norm_f, norm_q, norm_d = math.sqrt(self.ff), math.sqrt(self.qq), math.sqrt(self.dd)
        if norm_f:
            relative = _ldexp(norm_d / norm_f, self.scale_d - self.scale_f)
        else:
            relative = sys.float_info.max if norm_d else 0.0
        return Measures(
            elements=self.elements,
            reference_norm=_ldexp(norm_f, self.scale_f),
            relative_error=relative,
            sqnr=decibels(relative),
            cosine_similarity=self._cosine(norm_f, norm_q, norm_d, pairs),
            max_abs_error=_ldexp(self.largest_d, self.scale_d),
            rows=self.rows,
            flips=self.flips,
            nonfinite_mismatches=self.mismatches,
        )

    def _cosine(self, norm_f: float, norm_q: float, norm_d: float, pairs: Sequence[Pair]) -> float:
        if not norm_f or not norm_q:
            return 1.0 if norm_f == norm_q else 0.0
        ratio = _ldexp(norm_f / norm_q, self.scale_f - self.scale_q)
        if 1 / _COMPARABLE_NORMS < ratio < _COMPARABLE_NORMS:
            # The law of cosines needs no sum of its own, and where f and q are close, an error in their norms
            # enters only by its square, one in ‖q-f‖ only as a share of 1 - cosine.
            to_f = _ldexp(norm_d / norm_f, self.scale_d - self.scale_f)
            to_q = _ldexp(norm_d / norm_q, self.scale_d - self.scale_q)
            cosine = 1.0 + ((ratio - 1.0) ** 2 / ratio - to_f * to_q) / 2
        else:
            inner = 0.0
            for q, f in pairs:
                for block_q, block_f in _blocks(q, f, 1):
                    unit_f = _scaled(block_f.astype(np.float64), self.scale_f) / norm_f
                    unit_q = _scaled(block_q.astype(np.float64), self.scale_q) / norm_q
                    finite = np.isfinite(unit_q) & np.isfinite(unit_f)
                    inner += float(
                        np.sum(np.multiply(unit_f, unit_q, where=finite, out=np.zeros(finite.shape)))
                    )
            cosine = inner
        return min(1.0, max(-1.0, cosine))


def _blocks(q: Array, f: Array, classes: int) -> Iterator[Pair]:
    """Both arrays, flat, in blocks of whole rows."""
    flat_q, flat_f = q.reshape(-1), f.reshape(-1)
    size = max(1, BLOCK // classes) * classes
    for start in range(0, flat_f.size, size):
        yield flat_q[start : start + size], flat_f[start : start + size]


def _largest(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Largest magnitudes of q and f where both are finite; 1 where float64 holds every square anyway."""
    wide = np.dtype(np.float64).itemsize
    if all(x.dtype.itemsize < wide for pair in pairs for x in pair):
        return 1.0, 1.0
    largest_q = largest_f = 0.0
    for q, f in pairs:
        for block in _blocks(q, f, 1):
            wide_q, wide_f = (np.abs(x.astype(np.float64)) for x in block)
            finite = np.isfinite(wide_q) & np.isfinite(wide_f)
            largest_q = max(largest_q, float(np.max(wide_q, where=finite, initial=0.0)))
            largest_f = max(largest_f, float(np.max(wide_f, where=finite, initial=0.0)))
    return largest_q, largest_f


def _exponent(largest: float) -> int:
    """Power of two to divide by so that squares are safe, 0 where they are anyway."""
    exponent = math.frexp(largest)[1]
    return exponent if abs(exponent) > _SAFE_EXPONENT else 0


def _scaled(x: Array, exponent: int) -> Array:
    return np.ldexp(x, -exponent) if exponent else x


def _square_sum(x: Array) -> float:
    # Pairwise, as numpy sums; and not BLAS, which wakes a pool of threads for float64 blocks of this size.
    return float(np.sum(np.square(x)))


def _ldexp(x: float, exponent: int) -> float:
    try:
        return math.ldexp(x, exponent)
    except OverflowError:
        return sys.float_info.max
