"""Histograms as plain numbers, of explicit or exponential buckets: adding, quantiles, and what they were sent as."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Buckets", "Explicit", "Exponential", "Histogram", "from_row"]

# As many as the SDK's own exponential histogram has, twice: then the scale is halved.
MOST_BUCKETS = 320


@dataclass(frozen=True, slots=True)
class Explicit:
    """Buckets between bounds.

    Attributes:
        bounds: Upper bounds, inclusive, ascending.
        counts: One more than the bounds; the last one is of what is above all of them.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    def __add__(self, other: Explicit) -> Explicit:
        if self.bounds != other.bounds:
            raise ValueError("histograms of other bounds cannot be added")
        return Explicit(self.bounds, tuple(map(sum, zip(self.counts, other.counts, strict=True))))

    def minus(self, before: Explicit) -> Explicit | None:
        """Return what was added since ``before``; None if this is no continuation of it."""
        if self.bounds != before.bounds or any(
            now < then for now, then in zip(self.counts, before.counts, strict=True)
        ):
            return None
        return Explicit(
            self.bounds, tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        )

    def edges(self) -> list[tuple[float, float, int]]:
        """Lower bound, upper bound and count of each bucket that is not empty, ascending."""
        lower = (-math.inf, *self.bounds)
        upper = (*self.bounds, math.inf)
        return [(low, high, n) for low, high, n in zip(lower, upper, self.counts, strict=True) if n]

    def cells(self) -> tuple[list[float], list[int]]:
        """Upper bounds of all buckets, infinity last, and their counts."""
        return [*self.bounds, math.inf], list(self.counts)

    def to_json(self) -> str:
        """As `schema` says."""
        return json.dumps(self.counts)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Buckets that grow by a factor, as in OpenTelemetry's data model (base 2**(2**-scale)).

    Attributes:
        scale: The higher, the finer.
        zero: Count of values that are zero, or too close to zero.
        positive, negative: Counts by index: of values, and of absolute values of negative ones.
    """

    scale: int
    zero: int = 0
    positive: Mapping[int, int] = field(default_factory=dict[int, int])
    negative: Mapping[int, int] = field(default_factory=dict[int, int])

    def __add__(self, other: Exponential) -> Exponential:
        scale = min(self.scale, other.scale)
        positive = _added(_at(self.positive, self.scale, scale), _at(other.positive, other.scale, scale))
        negative = _added(_at(self.negative, self.scale, scale), _at(other.negative, other.scale, scale))
        return Exponential(scale, self.zero + other.zero, positive, negative).bounded()

    def bounded(self) -> Exponential:
        """Return the same in at most `MOST_BUCKETS`, if need be on a coarser scale."""
        found = self
        while len(found.positive) + len(found.negative) > MOST_BUCKETS:
            scale = found.scale - 1
            found = Exponential(
                scale,
                found.zero,
                _at(found.positive, scale + 1, scale),
                _at(found.negative, scale + 1, scale),
            )
        return found

    def minus(self, before: Exponential) -> Exponential | None:
        """Return what was added since ``before``; None if this is no continuation of it."""
        if self.scale > before.scale or self.zero < before.zero:
            return None
        positive = _subtracted(self.positive, _at(before.positive, before.scale, self.scale))
        negative = _subtracted(self.negative, _at(before.negative, before.scale, self.scale))
        if positive is None or negative is None:
            return None
        return Exponential(self.scale, self.zero - before.zero, positive, negative)

    def edges(self) -> list[tuple[float, float, int]]:
        """Lower bound, upper bound and count of each bucket that is not empty, ascending."""
        edge = self._edge
        below = [(-edge(i + 1), -edge(i), n) for i, n in sorted(self.negative.items(), reverse=True) if n]
        above = [(edge(i), edge(i + 1), n) for i, n in sorted(self.positive.items()) if n]
        return [*below, *([(0.0, 0.0, self.zero)] if self.zero else []), *above]

    def cells(self) -> tuple[list[float], list[int]]:
        """Upper bounds of the buckets that hold something and of those before them, and their counts."""
        found: dict[float, int] = {}
        for low, high, count in self.edges():
            found.setdefault(low, 0)
            found[high] = found.get(high, 0) + count
        return sorted(found), [found[bound] for bound in sorted(found)]

    def to_json(self) -> str:
        """As `schema` says."""
        positive, negative = sorted(self.positive.items()), sorted(self.negative.items())
        return json.dumps(
            {"scale": self.scale, "zero": self.zero, "positive": positive, "negative": negative}
        )

    def _edge(self, index: int) -> float:
        exponent = math.ldexp(index, -self.scale)
        return math.inf if exponent >= 1024 else 2.0**exponent


Buckets = Explicit | Exponential


def _at(counts: Mapping[int, int], scale: int, wanted: int) -> dict[int, int]:
    """Return ``counts`` on a coarser scale: two neighbours become one for each step."""
    merged: dict[int, int] = {}
    for index, count in counts.items():
        coarse = index >> (scale - wanted)
        merged[coarse] = merged.get(coarse, 0) + count
    return merged


def _added(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {index: one.get(index, 0) + other.get(index, 0) for index in one.keys() | other.keys()}


def _subtracted(now: Mapping[int, int], then: Mapping[int, int]) -> dict[int, int] | None:
    left = {index: now.get(index, 0) - then.get(index, 0) for index in now.keys() | then.keys()}
    return None if any(count < 0 for count in left.values()) else {i: n for i, n in left.items() if n}


@dataclass(frozen=True, slots=True)
class Histogram:
    """A distribution.

    Attributes:
        count: Number of values.
        sum: Sum of the values.
        min, max: The smallest and the largest; None where that was not sent.
        buckets: Buckets of the values; None for a count and a sum alone.
    """

    count: int
    sum: float
    min: float | None
    max: float | None
    buckets: Buckets | None

    def __add__(self, other: Histogram) -> Histogram:
        """Both together. Buckets that do not fit each other are dropped, counts and sums are not."""
        if not self.count or not other.count:
            return self if self.count else other
        return Histogram(
            self.count + other.count,
            self.sum + other.sum,
            None if self.min is None or other.min is None else min(self.min, other.min),
            None if self.max is None or other.max is None else max(self.max, other.max),
            _joined(self.buckets, other.buckets),
        )

    def minus(self, before: Histogram) -> Histogram | None:
        """Return what was added since ``before``, without smallest and largest value; None if it began anew."""
        if self.count < before.count:
            return None
        buckets = _difference(self.buckets, before.buckets)
        if buckets is None and self.buckets is not None:
            return None
        return Histogram(self.count - before.count, self.sum - before.sum, None, None, buckets)

    @staticmethod
    def joined(found: Iterable[Histogram]) -> Histogram:
        """All of ``found`` together; empty if there is none."""
        total = Histogram(0, 0.0, None, None, None)
        for histogram in found:
            total += histogram
        return total

    @property
    def mean(self) -> float | None:
        """None without a value."""
        return self.sum / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """About the value that ``share`` of all values are not above; None without buckets or values.

        Exact to the bucket it is in, whose ends are those of the values where they are known. In a bucket of positive
        numbers values are taken to be spread evenly over their logarithms, since the buckets grow by factors; in
        others evenly.
        """
        if self.buckets is None or not self.count:
            return None
        edges = self.buckets.edges()
        total = sum(count for _, _, count in edges)
        rank, below = share * total, 0
        for low, high, count in edges:
            if below + count >= rank or (low, high, count) == edges[-1]:
                return self._within(low, high, min(1.0, max(0.0, (rank - below) / count)))
            below += count
        return None

    def _within(self, low: float, high: float, part: float) -> float | None:
        if self.min is not None:
            low = max(low, self.min)
        if self.max is not None:
            high = min(high, self.max)
        # Of a bucket without an end only the other end is known.
        if math.isinf(high):
            high = low
        elif math.isinf(low):
            low = 0.0 if high > 0 else high
        if high <= low:
            return high if math.isfinite(high) else None
        if low > 0:
            return float(low * (high / low) ** part)
        return low + (high - low) * part

    def without_ends(self) -> Histogram:
        """Return the same without smallest and largest value."""
        return replace(self, min=None, max=None)


def _difference(now: Buckets | None, then: Buckets | None) -> Buckets | None:
    if isinstance(now, Explicit):
        return now.minus(then) if isinstance(then, Explicit) else None
    if isinstance(now, Exponential):
        return now.minus(then) if isinstance(then, Exponential) else None
    return None


def _joined(one: Buckets | None, other: Buckets | None) -> Buckets | None:
    if isinstance(one, Explicit) and isinstance(other, Explicit):
        return one + other if one.bounds == other.bounds else None
    if isinstance(one, Exponential) and isinstance(other, Exponential):
        return one + other
    return None


def from_row(row: Mapping[str, Any], kind: str, bounds: str | None) -> Histogram:
    """Return what stands in a row of ``series`` or ``point``.

    Args:
        row: A row with ``count``, ``sum``, ``min``, ``max`` and ``buckets``.
        kind, bounds: Kind and bounds of its series.
    """
    buckets: Buckets | None = None
    if row["buckets"] is not None:
        stored = json.loads(row["buckets"])
        if kind == "exponential":
            buckets = Exponential(
                stored["scale"], stored["zero"], _pairs(stored["positive"]), _pairs(stored["negative"])
            )
        else:
            buckets = Explicit(tuple(json.loads(bounds or "[]")), tuple(stored))
    return Histogram(row["count"] or 0, row["sum"] or 0.0, row["min"], row["max"], buckets)


def _pairs(stored: Sequence[Sequence[int]]) -> dict[int, int]:
    return {pair[0]: pair[1] for pair in stored}
