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

__all__ = ["PAIRS", "Autocorrelation", "rank_correlation"]

PAIRS = 32
"""Pairs of calls in a row that decide: the first ones soon, and once again as many more, over some minutes."""

# Of the first pairs one in so many is kept for the second decision.
_ONE_IN = 4

# Standard deviations of Spearman's coefficient of independent pairs, which are 1 / sqrt(pairs - 1); by chance it is
# beyond this in one number of 160, one-sided (Kendall and Gibbons, Rank Correlation Methods, 1990).
_FARTHEST = 2.5


class Autocorrelation:
    """Learns from pairs of calls in a row how much they are alike.

    The first pairs may all be of one scene of a film, in which only noise varies. So it is decided twice.

    Attributes:
        alike: True if they are alike; None until that is known. It never is where nothing varies.
    """

    __slots__ = ("_enough", "_pairs", "alike")

    def __init__(self) -> None:
        self.alike: bool | None = None
        # Pairs that the next decision waits for, 0 after the last one.
        self._enough = PAIRS
        self._pairs: dict[str, tuple[array[float], array[float]]] = {}

    def add(self, first: Mapping[str, float], second: Mapping[str, float]) -> None:
        """Take the same numbers of two calls in a row."""
        if not self._enough:
            return
        for name, value in first.items():
            following = second.get(name, math.nan)
            if math.isfinite(value) and math.isfinite(following):
                firsts, seconds = self._pairs.setdefault(name, (array("d"), array("d")))
                firsts.append(value)
                seconds.append(following)
        if any(len(firsts) >= self._enough for firsts, _ in self._pairs.values()):
            self._decide()

    def _decide(self) -> None:
        wanted, pairs = self._enough, self._pairs
        found = [
            one > _FARTHEST / math.sqrt(len(firsts) - 1)
            for firsts, seconds in pairs.values()
            if len(firsts) * 2 >= wanted and (one := rank_correlation(firsts, seconds)) is not None
        ]
        if not found:
            # Nothing varies so far.
            pairs.clear()
            return
        self.alike = any(found)
        if wanted > PAIRS:
            self._enough = 0
            pairs.clear()
        else:
            self._enough = PAIRS + PAIRS // _ONE_IN
            self._pairs = {
                name: (firsts[::_ONE_IN], seconds[::_ONE_IN]) for name, (firsts, seconds) in pairs.items()
            }


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, from -1 to 1; None where one side is constant. Ties have their middle rank."""
    one, other = _ranks(first), _ranks(second)
    spread = math.sqrt(math.fsum(x * x for x in one) * math.fsum(y * y for y in other))
    return math.fsum(x * y for x, y in zip(one, other, strict=True)) / spread if spread else None


def _ranks(values: Sequence[float]) -> list[int]:
    """Twice the ranks, less their mean."""
    ordered = sorted(values)
    return [bisect_left(ordered, value) + bisect_right(ordered, value) - len(values) for value in values]
