"""Autocorrelated streams: how much farther the sum of a stream's evidence wanders than that of independent calls.

Without autocorrelation the mean of n ranks has an n-th of a rank's variance. How many times as much it has in the
baseline is the inflation at the scale n; the largest over all scales, from 2 to a twelfth of the baseline, is the
stream's. For AR(1) noise it tends to ``(1 + r) / (1 - r)``, and a host whose moods last for hundreds of calls shows at
the scale of those, where calls next to each other look independent. Ranks, since one stall among thousands of calls
would be most of a plain variance.

A detector raises the power of its level by the inflation, and counts the baseline as so many fewer observations. For a
small shift of Gaussian noise that is as quick as any rule can be: sums of independent calls with the same variance have
the same divergence. Where even that is too much for the range of floats, calls are gathered to means of 4 or 16 first.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

__all__ = ["Blocks", "choose_blocks"]

_SIZES = (1, 4, 16)
# Times 17, the logarithm of a usual level, it stays below that of the largest float.
_MOST_INFLATION = 30.0
# Means that an estimate needs. Chance gives it a standard deviation of sqrt(2 / means) (chi-square); what is not two
# and a half times that is taken for none, and what is gets one for the doubt.
_FEWEST = 12
_CERTAIN = 2.5


@dataclass(frozen=True, slots=True)
class Blocks:
    """Attributes: ``size``: calls to a mean, ``inflation``: of the variance of sums of means, at least 1."""

    size: int
    inflation: float

    def means(self, values: Sequence[float]) -> list[float]:
        """Means of whole blocks, in the order of time."""
        size = self.size
        if size == 1:
            return list(values)
        return [
            # A sixteenth of each is exact, and the sum stays finite where they are.
            math.fsum(value / size for value in values[i : i + size])
            for i in range(0, len(values) - size + 1, size)
        ]


def choose_blocks(values: Sequence[float]) -> Blocks:
    """Return the blocks for a stream of which ``values`` are a sample in the order of time."""
    best = Blocks(1, _inflation(values))
    for size in _SIZES[1:]:
        if best.inflation <= _MOST_INFLATION or len(values) < _FEWEST * size:
            break
        best = Blocks(size, _inflation(Blocks(size, 1.0).means(values)))
    return Blocks(best.size, min(best.inflation, _MOST_INFLATION))


def _inflation(values: Sequence[float]) -> float:
    """Largest variance of means of ranks, over what it is of as many independent ones; at least 1."""
    ordered = sorted(values)
    middle = len(values)
    sums = [0.0, *accumulate(float(_rank(ordered, value) - middle) for value in values)]
    variance = math.fsum((b - a) ** 2 for a, b in pairwise(sums))
    if not variance:
        return 1.0
    variance /= middle
    most, scale = 1.0, 2
    while middle // scale >= _FEWEST:
        ends = sums[::scale]
        count = len(ends) - 1
        found = math.fsum((b - a) ** 2 for a, b in pairwise(ends)) / count / scale / variance
        error = math.sqrt(2.0 / count)
        if found > 1.0 + _CERTAIN * error:
            most = max(most, found * (1.0 + error))
        scale *= 2
    return most


def _rank(ordered: Sequence[float], value: float) -> int:
    return bisect_left(ordered, value) + bisect_right(ordered, value)
