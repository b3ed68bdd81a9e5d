"""Latency of one series of inferences: a sliding window, and its drift from a baseline.

A call is held against calls of its own kind. How long a model takes follows from how much it is given, so a mix of
batch sizes that changes is no drift; each class of shapes has a baseline of its own. And neither baseline nor drift
follows single calls: the machine has stopped one of a hundred for a thousand times as long as a small model runs.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from otel_quantmon.recording.sketch import Sketch, quantiles_of
from otel_quantmon.recording.window import SlidingWindow

__all__ = ["MAX_CLASSES", "LatencyMonitor", "LatencySummary", "Moved", "middle_mean"]

Moved: TypeAlias = tuple[int | None, int, int]
"""Of one call: batch size, None where that is fixed, and bytes of all inputs and of all outputs."""

MAX_CLASSES = 64
"""Classes of shapes that have a baseline; calls of those met later are no part of the drift."""

# Sizes within a twelfth of each other are one class: the duration, which hardly grows faster than the square of a
# size (attention over a sequence), then differs by less than a fifth.
_CLASSES_PER_OCTAVE = 8

# The class of calls of which it is not known what they were given, and of those past `MAX_CLASSES`.
_UNKNOWN = 0

# Exact sizes whose class is remembered; they are the application's, so nothing else bounds them.
_MOST_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """The window at one moment.

    Attributes:
        mean, p50, p95, p99: Times in seconds; quantiles within `Sketch.relative_error`, the mean exact.
        drift: `middle_mean` of each duration over the baseline of its class, minus 1, within the same error; None while
            there is none.
    """

    mean: float
    p50: float
    p95: float
    p99: float
    drift: float | None


class LatencyMonitor:
    """Watches the last ``size`` durations that are not older than ``age``, and up to a quarter more of both.

    The baseline of a class of shapes is ``baseline`` if given, else the `middle_mean` of the first
    ``baseline_calls`` durations observed of it. What a session runs while it warms up, and what failed, is not to be
    fed in: the first runs allocate and would read as a drift that heals; a call that is refused at once would read
    as a gain.

    Not thread-safe: the caller feeds it from one thread at a time.

    Args:
        size: Durations that the window holds once there were so many, at least 1.
        age: Seconds for which a duration stays in the window, at least.
        baseline_calls: Calls that the baseline of a class is learnt from, at least 1.
        baseline: Duration in seconds to compare all calls with, whatever their shapes, instead of learning.
        watch: A function that is given the calls of each class: its name, their ends and their durations. Not those
            of which the class is not known.
    """

    __slots__ = (
        "_baseline_calls",
        "_baselines",
        "_class_of",
        "_given",
        "_learning",
        "_names",
        "_remembered",
        "_watch",
        "_window",
    )

    def __init__(
        self,
        *,
        size: int,
        age: float,
        baseline_calls: int,
        baseline: float | None = None,
        watch: Callable[[str, Sequence[int], Sequence[int]], object] | None = None,
    ) -> None:
        self._window = SlidingWindow(size, int(age * 1e9))
        self._baseline_calls = baseline_calls
        self._given = baseline
        # By class, in nanoseconds; None until it is known.
        self._baselines: list[float | None] = [None]
        # The same after each start, where numbers follow from which class was met first.
        self._names: list[str] = [""]
        self._watch = watch
        self._class_of: dict[tuple[int, int], int] = {}
        self._remembered: dict[Moved | None, int] = {}
        self._learning: dict[int, array[int]] = {}

    def baseline(self, moved: Moved | None = None) -> float | None:
        """Return what calls that move ``moved`` are compared with, in seconds; None until it is known."""
        if self._given is not None:
            return self._given
        baseline = self._baselines[self._class(moved)]
        return None if baseline is None else baseline * 1e-9

    def adopt(self, seconds: float, moved: Moved) -> None:
        """Compare calls of the class of ``moved`` with ``seconds``, in place of what was or is being learnt."""
        found = self._class(moved)
        if found != _UNKNOWN:
            self._baselines[found] = seconds * 1e9
            self._learning.pop(found, None)

    def observe(
        self, ends: Sequence[int], durations: Sequence[int], moved: Sequence[Moved | None]
    ) -> list[int]:
        """Take calls, oldest first: as many of each, times in nanoseconds of one clock.

        Args:
            ends, durations: Ends and durations of the calls.
            moved: What they moved, None where that is not known. Such calls are no part of the drift, unless a
                baseline for all calls is given.

        Returns:
            The durations in ascending runs, of which to sort them all is quickly made.
        """
        if not moved:
            return []
        if moved.count(moved[0]) == len(moved):
            # Mostly it is the same one object.
            return self.observe_alike(ends, durations, moved[0])
        remembered = self._remembered
        classes = [found if (found := remembered.get(one)) is not None else self._class(one) for one in moved]
        for of in set(classes):
            at = [i for i, found in enumerate(classes) if found == of]
            self._take(of, [ends[i] for i in at], [durations[i] for i in at])
        return self._window.add(ends, durations, classes)

    def observe_alike(self, ends: Sequence[int], durations: Sequence[int], moved: Moved | None) -> list[int]:
        """Take calls as `observe` does, that all move ``moved``."""
        found = self._class(moved)
        self._take(found, ends, durations)
        return self._window.add(ends, durations, found)

    def summary(self, now: int) -> LatencySummary | None:
        """Describe the window at ``now``, by the clock of the calls' ends; None when it is empty."""
        found = self._window.read(now)
        if not found:
            return None
        whole = next(iter(found.values()))
        if len(found) > 1:
            whole = Sketch()
            for sketch in found.values():
                whole.merge(sketch)
        points = whole.points()
        p50, p95, p99 = quantiles_of(points, (0.50, 0.95, 0.99))
        return LatencySummary(
            mean=whole.total / whole.count * 1e-9,
            p50=p50 * 1e-9,
            p95=p95 * 1e-9,
            p99=p99 * 1e-9,
            drift=self._drift(found, points),
        )

    def _drift(self, by_class: dict[int, Sketch], points: list[tuple[float, int]]) -> float | None:
        if self._given is not None:
            return _middle_mean_of(points) * 1e-9 / self._given - 1.0 if self._given else None
        if len(by_class) == 1:
            (of,) = by_class
            baseline = self._baselines[of]
            return _middle_mean_of(points) / baseline - 1.0 if baseline else None
        ratios = [
            (duration / baseline, count)
            for of, sketch in by_class.items()
            if (baseline := self._baselines[of])
            for duration, count in sketch.points()
        ]
        return _middle_mean_of(sorted(ratios)) - 1.0 if ratios else None

    def _class(self, moved: Moved | None) -> int:
        """Return the number of the class that a call is of; a new one is made while there are not too many."""
        if moved is None:
            return _UNKNOWN
        known = self._remembered.get(moved)
        if known is not None:
            return known
        key = _step(moved[0] or 0), _step(moved[1])
        found = self._class_of.get(key)
        if found is None:
            if len(self._class_of) >= MAX_CLASSES:
                return _UNKNOWN
            found = self._class_of[key] = len(self._baselines)
            self._baselines.append(None)
            self._names.append(f"{key[0]}.{key[1]}")
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[moved] = found
        return found

    def _take(self, of: int, ends: Sequence[int], durations: Sequence[int]) -> None:
        self._learn(of, durations)
        if self._watch is not None and of != _UNKNOWN:
            self._watch(self._names[of], ends, durations)

    def _learn(self, of: int, durations: Sequence[int]) -> None:
        if of == _UNKNOWN or self._given is not None or self._baselines[of] is not None:
            return
        learning = self._learning.setdefault(of, array("q"))
        learning.extend(durations[: self._baseline_calls - len(learning)])
        if len(learning) >= self._baseline_calls:
            self._baselines[of] = middle_mean(sorted(learning))
            del self._learning[of]


def middle_mean(ordered: Sequence[float]) -> float:
    """Mean of the middle half of ``ordered`` values, of which there is at least one.

    This is the interquartile mean: up to a quarter of the values may be off by anything, either way, and hardly
    move it; unlike the median, it does not jump where two ways through a model are about as frequent.
    """
    cut = len(ordered) // 4
    return fmean(ordered[cut : len(ordered) - cut])


def _middle_mean_of(points: Sequence[tuple[float, int]]) -> float:
    """Return the `middle_mean` of values in ascending order, each given with how often it occurs."""
    number = sum([count for _, count in points])
    skip = number // 4
    left = kept = number - 2 * skip
    total = 0.0
    for value, count in points:
        if count <= skip:
            skip -= count
            continue
        taken = min(count - skip, left)
        total += value * taken
        skip = 0
        left -= taken
        if not left:
            break
    return total / kept


def _step(size: int) -> int:
    return int(_CLASSES_PER_OCTAVE * math.log2(size)) + 1 if size > 0 else 0
