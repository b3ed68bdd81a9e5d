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
    """Compare; None if either is empty, or they have no bound in common.

    The limit distribution and its correction for finite samples are those of Press et al., Numerical Recipes, 3rd ed.,
    section 14.3.3, after Stephens, J. R. Stat. Soc. B 32 (1970) 115.
    """
    if not one.count or not other.count or one.buckets is None or other.buckets is None:
        return None
    first, second = _shares(one.buckets), _shares(other.buckets)
    common = sorted({bound for bound, _ in first} & {bound for bound, _ in second})
    bounds = [bound for bound in common if math.isfinite(bound)]
    if not bounds:
        return None
    distance = max(abs(_below(first, bound) - _below(second, bound)) for bound in bounds)
    effective = math.sqrt(one.count * other.count / (one.count + other.count))
    return Comparison(distance, _tail((effective + 0.12 + 0.11 / effective) * distance))


def _shares(found: Buckets) -> list[tuple[float, float]]:
    """Upper bounds of all buckets, also of empty ones, with the share of values not above each."""
    bounds, counts = found.cells()
    total = sum(counts)
    return list(zip(bounds, (below / total for below in accumulate(counts)), strict=True))


def _below(shares: list[tuple[float, float]], bound: float) -> float:
    place = bisect_right(shares, (bound, 2.0))
    return shares[place - 1][1] if place else 0.0


def _tail(scaled: float) -> float:
    """1 - K(x) of Kolmogorov's distribution: 2 sum (-1)**(j-1) exp(-2 j**2 x**2), or its dual for small x."""
    if scaled < 0.2:
        return 1.0
    if scaled < 1.18:
        step = math.exp(-(math.pi**2) / (8 * scaled**2))
        return 1 - math.sqrt(2 * math.pi) / scaled * (step + step**9 + step**25 + step**49)
    step = math.exp(-2 * scaled**2)
    return 2 * (step - step**4 + step**9)
