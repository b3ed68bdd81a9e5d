"""Whether two histograms are of the same distribution, as far as their buckets show."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

from otel_quantmon.desk.histogram import Buckets, Histogram

__all__ = ["Comparison", "compare"]


class Comparison(NamedTuple):
    """The two-sample test of Kolmogorov and Smirnov, on what both histograms count.

    Attributes:
        distance: The largest difference between the two shares of values below a bound, 0 to 1.
        p: Probability of such a distance, or a larger one, if both are samples of one distribution and their values
            independent. With buckets the distance is never larger than with the values themselves, so the test errs
            towards no difference.
    """

    distance: float
    p: float


def compare(one: Histogram, other: Histogram) -> Comparison | None:
    """Compare; None if either is empty, or if what holds values in one lies across what does in the other.

    Bounds need not be those of both: below all values of a histogram, above them and between two of its buckets its
    share is known too.

    The limit distribution and its correction for finite samples are those of Press et al., Numerical Recipes, 3rd ed.,
    section 14.3.3, after Stephens, J. R. Stat. Soc. B 32 (1970) 115.
    """
    if not one.count or not other.count or one.buckets is None or other.buckets is None:
        return None
    first, second = _Shares(one.buckets), _Shares(other.buckets)
    bounds = first.bounds | second.bounds
    shares = [(first.below(bound), second.below(bound)) for bound in bounds]
    known = [(before, after) for before, after in shares if before is not None and after is not None]
    # That both have nothing below a bound, or all, says nothing if it is all that is known.
    if not known or (len(known) < len(shares) and all(pair in _TRIVIAL for pair in known)):
        return None
    distance = max(abs(before - after) for before, after in known)
    effective = math.sqrt(one.count * other.count / (one.count + other.count))
    return Comparison(distance, _tail((effective + 0.12 + 0.11 / effective) * distance))


_TRIVIAL = {(0.0, 0.0), (1.0, 1.0)}


class _Shares:
    """The share of values not above a bound, wherever a histogram tells it.

    Attributes:
        bounds: Finite bounds of the buckets that hold values.
    """

    def __init__(self, found: Buckets) -> None:
        edges = found.edges()
        total = sum(count for _, _, count in edges)
        self._lower = [low for low, _, _ in edges]
        self._upper = [high for _, high, _ in edges]
        self._shares = [0.0, *(below / total for below in accumulate(count for _, _, count in edges))]
        self.bounds = {bound for bound in (*self._lower, *self._upper) if math.isfinite(bound)}

    def below(self, bound: float) -> float | None:
        """None if the bound is inside of a bucket that holds values."""
        place = bisect_right(self._upper, bound)
        if place < len(self._lower) and self._lower[place] < bound:
            return None
        return self._shares[place]


def _tail(scaled: float) -> float:
    """1 - K(x) of Kolmogorov's distribution: 2 sum (-1)**(j-1) exp(-2 j**2 x**2), or its dual for small x."""
    if scaled < 0.2:
        return 1.0
    if scaled < 1.18:
        step = math.exp(-(math.pi**2) / (8 * scaled**2))
        return 1 - math.sqrt(2 * math.pi) / scaled * (step + step**9 + step**25 + step**49)
    step = math.exp(-2 * scaled**2)
    return 2 * (step - step**4 + step**9)
