"""Latency of one series of inferences: a sliding window, and its drift from a baseline."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

__all__ = ["LatencyMonitor", "LatencySummary"]


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """The window at one moment.

    Attributes:
        mean, p50, p95, p99: in seconds.
        drift: ``mean / baseline - 1``; None while there is no baseline.
    """

    mean: float
    p50: float
    p95: float
    p99: float
    drift: float | None


class LatencyMonitor:
    """Keeps the last ``size`` durations that are not older than ``age``.

    The baseline is ``baseline`` if given, else the mean of the first ``baseline_calls`` durations observed.
    What a session runs while it warms up, and what failed, is not to be fed in: the first runs allocate and
    would read as a drift that heals; a call that is refused at once would read as a gain.

    Not thread-safe: the caller feeds it from one thread at a time.

    Args:
        size: most durations in the window, at least 1.
        age: seconds after which a duration leaves the window.
        baseline_calls: calls that the baseline is learnt from, at least 1.
        baseline: mean duration in seconds to compare with instead of learning one.
    """

    __slots__ = ("_age", "_baseline", "_baseline_calls", "_durations", "_ends", "_learnt", "_learnt_sum")

    def __init__(self, *, size: int, age: float, baseline_calls: int, baseline: float | None = None) -> None:
        self._ends: deque[int] = deque(maxlen=size)
        self._durations: deque[int] = deque(maxlen=size)
        self._age = int(age * 1e9)
        self._baseline_calls = baseline_calls
        self._baseline = baseline
        self._learnt = 0
        self._learnt_sum = 0

    @property
    def baseline(self) -> float | None:
        """Mean duration in seconds that drift is measured from; None until it is known."""
        return self._baseline

    @baseline.setter
    def baseline(self, seconds: float) -> None:
        self._baseline = seconds

    def observe(self, ends: Sequence[int], durations: Sequence[int]) -> None:
        """Take calls, oldest first: as many ends as durations, in nanoseconds of one clock."""
        self._ends.extend(ends)
        self._durations.extend(durations)
        if self._baseline is None:
            learnt = durations[: self._baseline_calls - self._learnt]
            self._learnt += len(learnt)
            self._learnt_sum += sum(learnt)
            if self._learnt >= self._baseline_calls:
                self._baseline = self._learnt_sum / self._learnt * 1e-9

    def summary(self, now: int) -> LatencySummary | None:
        """Describe the window at ``now``, by the clock of the calls' ends; None when it is empty."""
        oldest = now - self._age
        while self._ends and self._ends[0] < oldest:
            self._ends.popleft()
            self._durations.popleft()
        if not self._ends:
            return None
        durations = sorted([duration * 1e-9 for duration in self._durations])
        mean = fmean(durations)
        return LatencySummary(
            mean=mean,
            p50=_quantile(durations, 0.50),
            p95=_quantile(durations, 0.95),
            p99=_quantile(durations, 0.99),
            drift=mean / self._baseline - 1.0 if self._baseline else None,
        )


def _quantile(ordered: list[float], share: float) -> float:
    # The inverse of the empirical distribution (Hyndman and Fan 1996, type 1): always a duration that was
    # measured, so that a p99 of a short window is not an interpolation that no call ever took.
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
