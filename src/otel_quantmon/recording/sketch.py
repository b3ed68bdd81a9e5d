"""A distribution in a few numbers, which can be merged with others and sent.

It is the base-2 exponential histogram of OpenTelemetry's data model ("Metrics Data Model", ExponentialHistogram): at
scale *s* the bucket *i* holds the values above ``base ** i`` and not above ``base ** (i + 1)``, where ``base`` is
``2 ** (2 ** -s)``. To go one scale down is to merge each two neighbours, so what was counted at different scales still
fits together.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from math import frexp, ldexp
from typing import Any

__all__ = ["FINEST_SCALE", "Sketch", "quantiles_of"]


FINEST_SCALE = 5
"""Scale of a sketch until its values need a coarser one: 32 buckets for each power of two, each 2.2% wide."""

_STEPS = 1 << FINEST_SCALE
# What the values of one power of two are cut at. frexp gives their fractions, from 0.5 to below 1.
_CUTS = tuple(2.0 ** (step / _STEPS) / 2 for step in range(_STEPS + 1))
_LEAST_NORMAL = sys.float_info.min
# Of OpenTelemetry's data model: all finite numbers fit into two buckets at the first of them.
_SCALES = range(-10, 21)


class Sketch:
    """Counts numbers, none of them negative, into buckets of a fixed relative width.

    A batch costs what it costs to sort it, and one search for each bucket that it touches; a model's calls mostly lie
    in ten to forty. Sum, number and extremes are exact, the sum
    as exact as addition is where numbers are floats. Merging is commutative and associative, and gives what one sketch
    of all the numbers would be.

    Not thread-safe.

    Args:
        size: Most buckets from the lowest to the highest one that is used, at least 2. When the numbers spread
            further, the scale falls. 320 hold a factor of 1,000 between the extremes at the finest scale.

    Attributes:
        count, total: Number of the numbers, and their sum.
        least, most: Smallest and largest of the numbers, both 0 while there is none.
    """

    __slots__ = ("_counts", "_high", "_low", "_shift", "_size", "_zeros", "count", "least", "most", "total")

    def __init__(self, size: int = 320) -> None:
        if size < 2:
            raise ValueError(f"a sketch needs at least 2 buckets, not {size}")
        self._size = size
        # The scale is FINEST_SCALE - _shift; an index at the finest scale, shifted right by it, is that of the bucket.
        self._shift = 0
        self._counts: dict[int, int] = {}
        self._low = self._high = 0
        self._zeros = 0
        self.count = 0
        self.total: float = 0
        self.least: float = 0
        self.most: float = 0

    @property
    def scale(self) -> int:
        """As in OpenTelemetry; with each one less, buckets are twice as wide on a logarithmic axis."""
        return FINEST_SCALE - self._shift

    @property
    def relative_error(self) -> float:
        """Largest distance of a quantile from a number that was counted, over that number: 0.0108 at scale 5.

        It is ``(base - 1) / (base + 1)`` (Masson, Rim, Lee: "DDSketch", 2019, section 2).
        """
        # The same, without a base that overflows.
        return math.tanh(math.log(2) * 2.0 ** (-self.scale) / 2)

    def add(self, values: Iterable[float]) -> None:
        """Count ``values``, in any order; to sort those that are sorted already costs little.

        Raises:
            ValueError: One of them is negative, infinite or not a number; then none is counted.
        """
        ordered = sorted(values)
        if not ordered:
            return
        finite = ordered[0] >= 0 and ordered[-1] <= sys.float_info.max
        total = sum(ordered) if finite else math.nan
        # A NaN makes the sum one, wherever it came to lie.
        if math.isnan(total):
            raise ValueError("only finite numbers that are not negative can be counted")
        self._extend(len(ordered), total, ordered[0], ordered[-1])
        done = bisect_right(ordered, 0)
        self._zeros += done
        if done < len(ordered):
            self._cover(_index(ordered[done]) >> self._shift, _index(ordered[-1]) >> self._shift)
        shift, counts = self._shift, self._counts
        while done < len(ordered):
            bucket = _index(ordered[done]) >> shift
            # At least the one that was looked up: a whole number past 2**53 may be above the float that it is.
            upto = max(done + 1, bisect_right(ordered, _upper(bucket, shift), done))
            counts[bucket] = counts.get(bucket, 0) + upto - done
            done = upto

    def merge(self, other: Sketch) -> None:
        """Count what ``other`` has counted, in the smaller of both sizes."""
        self._size = min(self._size, other._size)
        self._extend(other.count, other.total, other.least, other.most)
        self._zeros += other._zeros
        self._coarsen(max(0, other._shift - self._shift))
        low, high = (other._low, other._high) if other._counts else (self._low, self._high)
        ahead = self._shift - other._shift if other._counts else 0
        self._cover(low >> ahead, high >> ahead)
        shift, counts = self._shift - other._shift, self._counts
        if not counts and not shift:
            self._counts = other._counts.copy()
            return
        for bucket, count in other._counts.items():
            counts[bucket >> shift] = counts.get(bucket >> shift, 0) + count

    def points(self) -> list[tuple[float, int]]:
        """Return what the numbers were, within `relative_error`, in ascending order: each with how many they are."""
        counts, shift, most = self._counts, self._shift, self.most
        # From the upper bound to the point that is as far, relatively, from both bounds.
        inwards = 1.0 - self.relative_error
        found: list[tuple[float, int]] = [(0.0, self._zeros)] if self._zeros else []
        for bucket in sorted(counts):
            value = min(_upper(bucket, shift), most) * inwards
            found.append((max(value, self.least), counts[bucket]))
        return found

    def buckets(self) -> list[tuple[float, int]]:
        """Return `points` that are the same number for the same bucket, whatever else is in the sketch.

        So two sketches of one scale can be compared bucket by bucket.
        """
        shift, inwards = self._shift, 1.0 - self.relative_error
        most = sys.float_info.max
        found = [
            (min(_upper(bucket, shift), most) * inwards, n) for bucket, n in sorted(self._counts.items())
        ]
        return [(0.0, self._zeros), *found] if self._zeros else found

    def coarsen(self, scale: int) -> None:
        """Go down to ``scale``, where the sketch is at a finer one."""
        shift = self.scale - scale
        if shift > 0:
            self._coarsen(shift)

    def quantiles(self, *shares: float) -> list[float]:
        """For each share the least number that covers it, within `relative_error` (Hyndman and Fan 1996, type 1).

        Raises:
            ValueError: The sketch is empty.
        """
        if not self.count:
            raise ValueError("an empty sketch has no quantiles")
        return quantiles_of(self.points(), shares)

    def to_wire(self) -> dict[str, Any]:
        """Return the sketch in numbers, for JSON; named as in OTLP's ``ExponentialHistogramDataPoint``."""
        counts = [self._counts.get(bucket, 0) for bucket in range(self._low, self._high + 1)]
        return {
            "count": self.count,
            "sum": self.total,
            "min": self.least,
            "max": self.most,
            "scale": self.scale,
            "zero_count": self._zeros,
            "offset": self._low if self._counts else 0,
            "bucket_counts": counts if self._counts else [],
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any], size: int = 320) -> Sketch:
        """Read what `to_wire` wrote, or a point of another OpenTelemetry SDK without negative values.

        Args:
            wire: JSON value from outside, which is checked.
            size: As of the class.

        Raises:
            ValueError: The value is no sketch.
        """
        scale, offset, zeros, count = (
            _whole(wire, name) for name in ("scale", "offset", "zero_count", "count")
        )
        if scale not in _SCALES:
            raise ValueError(f"scale {scale} is not one from {_SCALES[0]} to {_SCALES[-1]}")
        numbers: list[Any] | None = wire.get("bucket_counts")
        if not isinstance(numbers, list):
            raise ValueError("bucket_counts is not a list")
        counts = [_whole({"bucket_counts": number}, "bucket_counts") for number in numbers]
        total, least, most = (_number(wire, name) for name in ("sum", "min", "max"))
        if min(zeros, *counts, 0) < 0 or zeros + sum(counts) != count or least > most:
            raise ValueError("counts or extremes of the sketch contradict each other")
        sketch = cls(size)
        sketch._extend(count, total, least, most)
        sketch._zeros = zeros
        # From a finer scale, buckets are merged at once.
        finer = max(0, scale - FINEST_SCALE)
        sketch._shift = max(0, FINEST_SCALE - scale)
        for index, number in enumerate(counts, offset):
            bucket = index >> finer
            if number:
                if not _LOWEST >> sketch._shift <= bucket <= _HIGHEST >> sketch._shift:
                    raise ValueError(f"bucket {index} at scale {scale} holds no finite number")
                sketch._counts[bucket] = sketch._counts.get(bucket, 0) + number
        if sketch._counts:
            sketch._low, sketch._high = min(sketch._counts), max(sketch._counts)
            sketch._cover(sketch._low, sketch._high)
        return sketch

    def _extend(self, count: int, total: float, least: float, most: float) -> None:
        if count:
            self.least = min(self.least, least) if self.count else least
            self.most = max(self.most, most)
            self.count += count
            self.total += total

    def _cover(self, low: int, high: int) -> None:
        """Coarsen the scale until ``low`` and ``high``, at the present one, fit in beside what is there."""
        if self._counts:
            low, high = min(low, self._low), max(high, self._high)
        shift = 0
        while (high >> shift) - (low >> shift) >= self._size:
            shift += 1
        self._coarsen(shift)
        self._low, self._high = low >> shift, high >> shift

    def _coarsen(self, shift: int) -> None:
        if shift:
            self._shift += shift
            before, self._counts = self._counts, {}
            self._low, self._high = self._low >> shift, self._high >> shift
            for bucket, count in before.items():
                self._counts[bucket >> shift] = self._counts.get(bucket >> shift, 0) + count


def quantiles_of(points: Sequence[tuple[float, int]], shares: Iterable[float]) -> list[float]:
    """For each share the least value that covers it, of `Sketch.points` that are not empty."""
    covered = list(accumulate([count for _, count in points]))
    return [points[bisect_left(covered, max(1, math.ceil(share * covered[-1])))][0] for share in shares]


def _index(value: float) -> int:
    """Return the bucket of ``value`` at the finest scale; numbers below the normal ones count as the least of those."""
    fraction, exponent = frexp(max(value, _LEAST_NORMAL))
    return (exponent - 1) * _STEPS + bisect_left(_CUTS, fraction) - 1


@lru_cache(maxsize=4096)  # models are read one after another, and their durations fall into the same buckets
def _upper(bucket: int, shift: int) -> float:
    """Return the upper bound of ``bucket``, ``shift`` scales below the finest: infinity where no float is above it."""
    octave, step = divmod((bucket + 1) << shift, _STEPS)
    return ldexp(_CUTS[step], octave + 1) if octave < sys.float_info.max_exp else math.inf


_LOWEST, _HIGHEST = _index(_LEAST_NORMAL), _index(sys.float_info.max)


def _whole(wire: Mapping[str, Any], name: str) -> int:
    value = wire.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is not a whole number")
    return value


def _number(wire: Mapping[str, Any], name: str) -> float:
    value = wire.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} is not a finite number from 0 up")
    return value
