"""Does the memory of the process grow for good?

Resident memory goes up and down with every call, so blocks of calls are looked at, and of each only its least: the
lower envelope. What a block's least is above the least of the block before, by call, is the increment. In a process
that is warm, increments of both signs are about as large, and most are zero. A leak shifts them up. The rank
e-detector decides, on the increments of this very process after warm-up; the test of a trend by Mann and Kendall is
known to raise false alarms on the memory of aging software (Machida and others 2013, ISSREW). Theil's slope only
says how much it is.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.detector import Judgement
from otel_quantmon.detection.e_detector import RankEDetector

__all__ = ["CALLS_OF_INCREMENT", "Envelope", "Increment", "LeakDetector", "attribute", "slope"]

CALLS_OF_INCREMENT = 128
"""Calls in which memory grows by one increment."""

# Blocks kept for the slope and for the attribution; the work of Theil's slope grows with the square.
_KEPT = 64

# Stands among the models for what grows by time.
_TIME = ""

# Standard deviations of a rank correlation by chance, 1/sqrt(n), that the calls of the model must exceed.
_CERTAIN = 3.0


@dataclass(frozen=True, slots=True)
class Increment:
    """Of one block against the one before.

    Attributes:
        growth: Bytes for each call of the block.
        bytes: Bytes by which the least of the block lies above the least of the one before.
        calls: Calls by model, of those that were called, between these two samples. While memory grows, the least is
            the first of a block, and what came between is mostly the block before.
        low: Least memory of the block.
        samples: Samples of memory between the two, which stand for the time between them.
    """

    growth: float
    bytes: int
    calls: Mapping[str, int]
    low: int
    samples: int


class Envelope:
    """Turns samples of memory into increments of the lower envelope.

    Args:
        calls: Fewest calls of a block. An allocator takes memory from the system in steps of over 100 kB, so a leak of
            1 kB a call shows in every block only if those have a hundred calls.
        samples: Fewest samples of a block: the fewer, the more a block's least is above the true one.
    """

    __slots__ = ("_before", "_begun", "_calls", "_count", "_low", "_samples", "_seen", "_skip")

    def __init__(self, *, calls: int = CALLS_OF_INCREMENT, samples: int = 2) -> None:
        self._calls = calls
        self._samples = samples
        self._begun: int | None = None
        self._count = 0
        self._seen = 0
        # The least sample: bytes, the calls of each model until then, and its number.
        self._low: tuple[int, dict[str, int], int] = (0, {}, 0)
        self._before: tuple[int, dict[str, int], int] | None = None
        self._skip = False

    def add(self, calls: Mapping[str, int], resident: int) -> Increment | None:
        """Take ``resident`` bytes, seen after so many calls of each model in all; an increment where a block ends.

        A model that is gone keeps its calls here: the sum of all never falls.
        """
        total = sum(calls.values())
        if self._begun is None:
            self._begun = total
        if not self._count or resident < self._low[0]:
            self._low = (resident, dict(calls), self._seen)
        self._seen += 1
        self._count += 1
        made = total - self._begun
        if made < self._calls or self._count < self._samples:
            return None
        (low, at, seen), before, skip = self._low, self._before, self._skip
        self._before, self._begun, self._count, self._skip = self._low, total, 0, False
        if before is None or skip:
            return None
        # Most of those that were ever called may be gone.
        begun = before[1]
        between = {model: more for model, count in at.items() if (more := count - begun.get(model, 0))}
        return Increment((low - before[0]) / made, low - before[0], between, low, seen - before[2])

    def skip(self) -> None:
        """Memory changes for a known reason, such as a model that is loaded: this block says nothing."""
        self._skip = True


class LeakDetector:
    """Looks for growing memory in increments, in bytes a call. See `Detector`.

    Args:
        baseline: Increments of the warmed-up process.
        alarm: Calls between false alarms, at least; ``calls`` of them are one observation.
        calls: Calls of a block.
        least: Bytes a call that are no leak yet.
        seed: See `RankEDetector`.
    """

    __slots__ = ("_calls", "_detector", "_growths")

    def __init__(
        self,
        baseline: Baseline,
        *,
        alarm: float,
        calls: int = CALLS_OF_INCREMENT,
        least: float = 128.0,
        seed: int = 0,
    ) -> None:
        self._calls = calls
        self._detector = RankEDetector(baseline, alarm=alarm / calls, sides="up", tolerance=least, seed=seed)
        self._growths: deque[float] = deque(maxlen=_KEPT)

    @property
    def suspicion(self) -> float:
        """See `Detector`."""
        return self._detector.suspicion

    def update(self, value: float) -> Judgement | None:
        """See `Detector`; ``value`` is the growth of one block, in bytes a call."""
        if math.isfinite(value):
            self._growths.append(value)
        judgement = self._detector.update(value)
        if judgement is None:
            return None
        # The sum of the increments is what has been kept of the memory: their mean, where most may be zero.
        since = min(judgement.observations, len(self._growths))
        growth = math.fsum(list(self._growths)[-since:]) / since
        return Judgement(
            evidence=judgement.evidence,
            value=growth,
            baseline=0.0,
            statistic="mean",
            direction="up",
            observations=judgement.observations * self._calls,
            returned=judgement.returned,
        )

    def update_many(self, values: Sequence[float], start: int = 0) -> tuple[int, Judgement | None]:
        """See `Detector`."""
        for at in range(start, len(values)):
            judgement = self.update(values[at])
            if judgement is not None:
                return at + 1, judgement
        return len(values), None

    def reverse(self) -> None:
        """See `Detector`."""
        self._detector.reverse()

    def reset(self) -> None:
        """See `Detector`."""
        self._growths.clear()
        self._detector.reset()

    def state(self) -> dict[str, Any]:
        """See `Detector`."""
        return self._detector.state()


def slope(increments: Sequence[Increment]) -> float:
    """Bytes a call over the last blocks, at least two: Theil's, the median of the slopes between all pairs.

    H. Theil, "A rank-invariant method of linear and polynomial regression analysis", 1950. Up to 29% of the blocks
    may be outliers.
    """
    last = increments[-_KEPT:]
    points: list[tuple[int, int]] = []
    calls = 0
    for increment in last:
        calls += sum(increment.calls.values())
        points.append((calls, increment.low))
    return median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2))


def attribute(increments: Sequence[Increment]) -> str | None:
    """Return the model whose calls the increments follow, and no other's; None if there is no such model.

    Rank correlation of the bytes of each block with each model's calls. The best must be beyond chance, and stay so
    when what any other explains, or time by itself, is taken out (partial correlation). A process whose models are
    called in a fixed proportion, or one model as often all the time, names none: nothing distinguishes them.
    """
    last = increments[-_KEPT:]
    models = list(dict.fromkeys(model for increment in last for model in increment.calls))
    if len(last) < 8 or not models:
        return None
    grown = _ranks([float(increment.bytes) for increment in last])
    called = {model: _ranks([float(i.calls.get(model, 0)) for i in last]) for model in models}
    follow = {model: _correlation(grown, ranks) for model, ranks in called.items()}
    best = max(models, key=follow.__getitem__)
    called[_TIME] = _ranks([float(increment.samples) for increment in last])
    follow[_TIME] = _correlation(grown, called[_TIME])
    certain = min(0.95, _CERTAIN / math.sqrt(len(last)))
    if follow[best] < certain:
        return None
    for other, ranks in called.items():
        if other == best or follow[other] <= 0.0:  # one that memory does not follow explains nothing
            continue
        shared = _correlation(called[best], ranks)
        rest = (1.0 - shared * shared) * (1.0 - follow[other] ** 2)
        if rest <= 1e-9 or (follow[best] - shared * follow[other]) / math.sqrt(rest) < certain:
            return None
    return best


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [
        float(bisect_left(ordered, value) + bisect_right(ordered, value) - len(ordered)) for value in values
    ]


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    # Of ranks that are centred already.
    size = math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / size if size else 0.0
