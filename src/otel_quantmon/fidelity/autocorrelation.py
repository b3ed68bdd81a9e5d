"""Whether calls in a row are alike, as in sound and film.

The bound on false alarms counts on observations that tell something new each. Samples are far apart, and what is left
of autocorrelation between them is in the baseline. Where something is suspicious, calls in a row would be a quicker
answer, but only if they are no more alike than any others: 64 windows of one sentence are one observation, not 64.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

__all__ = ["PAIRS", "Autocorrelation"]

PAIRS = 32
"""Pairs of calls in a row that decide."""

# Standard deviations of Spearman's coefficient of independent pairs, which are 1 / sqrt(pairs - 1); by chance it is
# beyond this in one number of 160, one-sided (Kendall and Gibbons, Rank Correlation Methods, 1990).
_FARTHEST = 2.5


class Autocorrelation:
    """Learns from pairs of calls in a row, spread over the first traffic, how much they are alike.

    Attributes:
        alike: True if they are alike; None until that is known. It never is where nothing varies.
    """

    __slots__ = ("_pairs", "alike")

    def __init__(self) -> None:
        self.alike: bool | None = None
        self._pairs: dict[str, tuple[array[float], array[float]]] = {}

    def add(self, first: Mapping[str, float], second: Mapping[str, float]) -> None:
        """Take the same numbers of two calls in a row."""
        if self.alike is not None:
            return
        for name, value in first.items():
            following = second.get(name, math.nan)
            if math.isfinite(value) and math.isfinite(following):
                firsts, seconds = self._pairs.setdefault(name, (array("d"), array("d")))
                firsts.append(value)
                seconds.append(following)
        if any(len(firsts) >= PAIRS for firsts, _ in self._pairs.values()):
            self._decide()

    def _decide(self) -> None:
        found = [rank_correlation(*pairs) for pairs in self._pairs.values() if len(pairs[0]) * 2 >= PAIRS]
        known = [one for one in found if one is not None]
        if known:
            self.alike = max(known) > _FARTHEST / math.sqrt(PAIRS - 1)
        self._pairs.clear()


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, from -1 to 1; None where one side is constant. Ties have their middle rank."""
    one, other = _ranks(first), _ranks(second)
    spread = math.sqrt(math.fsum(x * x for x in one) * math.fsum(y * y for y in other))
    return math.fsum(x * y for x, y in zip(one, other, strict=True)) / spread if spread else None


def _ranks(values: Sequence[float]) -> list[int]:
    """Twice the ranks, less their mean."""
    ordered = sorted(values)
    return [bisect_left(ordered, value) + bisect_right(ordered, value) - len(values) for value in values]
