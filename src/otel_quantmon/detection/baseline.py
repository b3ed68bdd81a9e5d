"""What a stream was like when it was well: collected once, then frozen, kept in a few kilobytes."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from otel_quantmon.detection.bets import BINS, BOTTOM, TOP
from otel_quantmon.detection.blocks import Blocks, choose_blocks
from otel_quantmon.detection.detector import number

__all__ = ["Baseline", "Collector"]

_TICK = 1e-9  # seconds; `durations` multiplies by the same
_MOST_TICKS = 2**32


class Baseline:
    """A frozen sample of ``size`` observations, as far as ranks in 256 bins need it.

    Only the observations at the cuts between bins are kept, with the number of those below and up to each: at most
    512 numbers, whatever the size. Which bin an observation falls into, randomised where it ties or where a cut
    lies between two observations, is the same as with the whole sample.

    Args:
        values: The sample, finite numbers, at least 2, in the order of time.
        blocks: How many calls one value stands for, and what is left of autocorrelation; `choose_blocks`.

    Raises:
        ValueError: Too few values, or one that is not finite.
    """

    __slots__ = ("below", "blocks", "cuts", "effective", "size", "upto")

    def __init__(self, values: Sequence[float], blocks: Blocks | None = None) -> None:
        ordered = sorted(values)
        size = len(ordered)
        if size < 2 or not all(map(math.isfinite, ordered)):
            raise ValueError(f"no baseline of {size} observations, of which some may not be finite")
        ranks = {1, size}
        for i in range(1, BINS):
            position = (size + 1) * i / BINS
            ranks.update((math.floor(position), math.ceil(position)))
        cuts = sorted({ordered[rank - 1] for rank in ranks if 1 <= rank <= size})
        self._set(
            size,
            cuts,
            [bisect_left(ordered, cut) for cut in cuts],
            [bisect_right(ordered, cut) for cut in cuts],
            blocks or Blocks(1, 1.0),
        )

    def _set(self, size: int, cuts: list[float], below: list[int], upto: list[int], blocks: Blocks) -> None:
        self.size = size
        self.blocks = blocks
        self.effective = size / blocks.inflation
        # With a last cut that only an overflow reaches, and a count of none below the first, a search needs no special
        # cases.
        self.cuts = array("d", [*cuts, math.inf])
        code = "H" if size < 2**16 else "I"
        self.below = array(code, [*below, size])
        self.upto = array(code, [0, *upto, size])

    def interval(self, value: float) -> tuple[int, int]:
        """Between which numbers, from 0 to ``size + 1``, the rank of ``value`` is drawn."""
        at = bisect_left(self.cuts, value)
        if self.cuts[at] == value:
            return self.below[at], self.upto[at + 1] + 1
        return self.upto[at], self.below[at] + 1

    def row(self, value: float, share: float) -> int:
        """Return the row of a table of bets that ``value`` falls into; ``share``, of 0 to 1, is the random part."""
        low, high = self.interval(value)
        rank = low + share * (high - low)
        if rank >= self.size:
            return TOP
        return int(rank * BINS / (self.size + 1)) if rank >= 1.0 else BOTTOM

    def quantile(self, share: float) -> float:
        """Return the smallest kept observation with at least ``share`` of the sample up to it."""
        at = bisect_left(self.upto, math.ceil(share * self.size), 1)
        return self.cuts[min(at, len(self.cuts) - 1) - 1]

    def state(self) -> dict[str, Any]:
        """Plain JSON values, for `from_state`."""
        return {
            "size": self.size,
            "cuts": list(self.cuts)[:-1],
            "below": list(self.below)[:-1],
            "upto": list(self.upto)[1:-1],
            "block": self.blocks.size,
            "inflation": self.blocks.inflation,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Baseline:
        """Return the baseline that `state` was of.

        Raises:
            ValueError: The state is not one of a baseline.
        """
        size, block = int(number(state, "size")), int(number(state, "block"))
        cuts, below, upto = (_numbers(state, key) for key in ("cuts", "below", "upto"))
        lower, upper = [int(count) for count in below], [int(count) for count in upto]
        inflation = number(state, "inflation")
        whole = (
            2 <= size < 2**32
            and cuts
            and len(cuts) == len(lower) == len(upper)
            and lower[0] == 0
            and upper[-1] == size
            and all(low < high for low, high in zip(lower, upper, strict=True))
            and all(first < second for first, second in pairwise(cuts))
            and all(high <= low for high, low in zip(upper[:-1], lower[1:], strict=True))
            and block >= 1
            and inflation >= 1.0
        )
        if not whole:
            raise ValueError("a baseline whose cuts and counts do not go together")
        baseline = cls.__new__(cls)
        baseline._set(size, cuts, lower, upper, Blocks(block, inflation))
        return baseline


def _numbers(state: Mapping[str, Any], key: str) -> list[float]:
    value = state.get(key)
    if not isinstance(value, list):
        raise ValueError(f"a baseline's {key} is no list")
    return [number({key: item}, key) for item in cast("Sequence[Any]", value)]


class Collector:
    """Gathers the baseline of one stream from the first traffic after warm-up.

    What comes in the first ``warmup`` observations is left out: memory is allocated, caches and clock rates are cold.
    Calls after a pause are a stream of their own (`durations.py`), so nothing is left out after one. When enough has
    come, the two halves are compared by ranks. If they differ far beyond chance the stream was still settling: the
    older half goes, and collection goes on.

    A model of 5 µs makes 3,000 calls in a fiftieth of a second, in which the host is in one mood. So they are taken in
    runs of 160 calls in a row, of which the autocorrelation can be seen, over a ``span`` of time.

    Args:
        size: Observations of the baseline. 3,000 lose little to the correction for its length, 50 a lot.
        warmup: Observations to leave out at the beginning.
        span: Seconds from the first to the last run, at least.
    """

    _RUN = 160  # whole blocks of 16
    _SETTLING = (
        3  # halves that may be dropped, so that a stream that never settles gets a baseline all the same
    )
    # Standard deviations between two halves: 4 is chance once in 16,000 (Mann and Whitney 1947, large samples).
    _FARTHEST = 4.0

    __slots__ = ("_begun", "_dropped", "_size", "_skip", "_span", "_values")

    def __init__(self, size: int = 3000, *, warmup: int = 0, span: float = 30.0) -> None:
        self._size = size
        self._skip = warmup
        self._span = span
        self._begun: float | None = None
        # Whole nanoseconds, or else the observations as they are.
        self._values: array[Any] = array("I")
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: float, at: float) -> Baseline | None:
        """Take an observation made at ``at``, in seconds of a clock that never goes back; the baseline when full."""
        if self._skip:
            self._skip -= 1
            return None
        if self._begun is None:
            self._begun = at
        kept = len(self._values)
        last = (self._size - 1) // self._RUN
        if kept % self._RUN == 0 and kept and at < self._begun + self._span * (kept // self._RUN) / last:
            return None
        if math.isfinite(value):
            self._append(value)
        if len(self._values) < self._size:
            return None
        baseline = self.freeze()
        if baseline is None:
            self._begun = at - self._span * len(self._values) / self._size
        return baseline

    def extend(self, values: Iterable[float]) -> None:
        """Take more observations than the baseline needs, for a longer one by `freeze`."""
        for value in filter(math.isfinite, values):
            self._append(value)

    def _append(self, value: float) -> None:
        # Durations are whole nanoseconds, which take half the room, and learning is when a stream is largest.
        if self._values.typecode == "I":
            if 0.0 <= value < _MOST_TICKS * _TICK and (ticks := round(value / _TICK)) * _TICK == value:
                self._values.append(ticks)
                return
            self._values = self._gathered()
        self._values.append(value)

    def _gathered(self) -> array[float]:
        values = self._values
        return values if values.typecode == "d" else array("d", [ticks * _TICK for ticks in values])

    def freeze(self, *, at_once: bool = False) -> Baseline | None:
        """Return a baseline of what has come; None if it does not look settled yet, unless it has to be now.

        Raises:
            ValueError: Fewer than two observations have come.
        """
        values = self._gathered()
        if not at_once and self._dropped < self._SETTLING and not _settled(values, self._FARTHEST):
            self._dropped += 1
            self._values = self._values[len(values) // 2 :]
            return None
        blocks = choose_blocks(values)
        return Baseline(blocks.means(values), blocks)


def _settled(values: Sequence[float], farthest: float) -> bool:
    # Autocorrelation of the later half alone: a step between the halves would look like a great deal of it.
    blocks = choose_blocks(values[len(values) // 2 :])
    means = blocks.means(values)
    half = len(means) // 2
    if half < 8:
        return True
    first, second = sorted(means[:half]), means[half:]
    # Pairs in which the second half is greater, ties counted as one half.
    wins = sum(bisect_left(first, value) + bisect_right(first, value) for value in second) / 2
    expected = half * len(second) / 2
    spread = math.sqrt(expected * (len(means) + 1) / 6 * blocks.inflation)
    return abs(wins - expected) <= farthest * spread
