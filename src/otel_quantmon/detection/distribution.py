"""What a tensor is like in a few numbers, and one detector over them.

Sampled tensors are too many numbers to watch each, so each gives a sketch, see `fidelity.numerics.sketches`. One
change in the data moves several of its numbers, and one alarm reports it: the numbers divide the level of their stream,
and the judgement names the one that got there first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from otel_quantmon.detection.baseline import Baseline, Collector
from otel_quantmon.detection.detector import Judgement
from otel_quantmon.detection.e_detector import RankEDetector

__all__ = ["SketchCollector", "SketchDetector"]

# Sketches that are kept of each number, to tell since when it has moved.
_KEPT = 64

# Of the distance from a number's median in the baseline to its outer tenth on the side of the shift: less is no
# change of the data yet. Each side has its own, since loudness spreads over decades, and silence lies close together.
_LEAST_SHIFT = 0.1


class SketchCollector:
    """Gathers the baselines of a stream's sketches, which are frozen together.

    Args:
        size: Sketches of the baseline.
    """

    __slots__ = ("_collectors", "_seen", "_size")

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self._seen = 0
        self._collectors: dict[str, Collector] = {}

    def add(self, sketch: Mapping[str, float], at: float) -> dict[str, Baseline] | None:
        """Take the sketch of one call made at ``at``, in seconds; the baselines by name when there are enough."""
        self._seen += 1
        for name, value in sketch.items():
            collector = self._collectors.setdefault(name, Collector(self._size + 1, span=0.0))
            collector.add(value, at)
        return self.freeze() if self._seen >= self._size else None

    def __len__(self) -> int:
        return self._seen

    def extend(self, sketches: Iterable[Mapping[str, float]]) -> None:
        """See `Collector.extend`."""
        for sketch in sketches:
            self._seen += 1
            for name, collector in self._collectors.items():
                collector.extend((sketch.get(name, math.nan),))

    def freeze(self, *, at_once: bool = True) -> dict[str, Baseline]:
        """Return the baselines by name. A number that was finite in less than half of the sketches gets none."""
        found: dict[str, Baseline] = {}
        for name, collector in self._collectors.items():
            baseline = collector.freeze(at_once=at_once) if len(collector) * 2 >= self._seen else None
            if baseline is not None:
                found[name] = baseline
        return found


class SketchDetector:
    """Watches the numbers of a sketch together. See `Detector`; an observation is a sketch.

    Args:
        baselines: Baselines by name of the number, at least one, all of sketches of the same calls.
        alarm: Sketches between false alarms, at least.
        seed: See `RankEDetector`.
    """

    __slots__ = ("_detectors", "_moved")

    def __init__(self, baselines: Mapping[str, Baseline], *, alarm: float, seed: int = 0) -> None:
        # A constant number (the low end of an image is always 0) needs no care: ties are drawn at random.
        self._detectors = {
            name: RankEDetector(
                baseline,
                alarm=alarm * len(baselines),
                seed=seed + i,
                kept=_KEPT,
                tolerance=_LEAST_SHIFT * baseline.quantile(0.9) - _LEAST_SHIFT * baseline.quantile(0.5),
                below=_LEAST_SHIFT * baseline.quantile(0.5) - _LEAST_SHIFT * baseline.quantile(0.1),
            )
            for i, (name, baseline) in enumerate(baselines.items())
        }
        self._moved: str | None = None

    @property
    def suspicion(self) -> float:
        """See `Detector`."""
        if self._moved is not None:
            return self._detectors[self._moved].suspicion
        return sum(one.suspicion for one in self._detectors.values()) / len(self._detectors)

    def update(self, value: Mapping[str, float]) -> Judgement | None:
        """See `Detector`; numbers that a sketch lacks are passed over."""
        return self.update_many((value,))[1]

    def update_many(
        self, values: Sequence[Mapping[str, float]], start: int = 0
    ) -> tuple[int, Judgement | None]:
        """See `Detector`."""
        if self._moved is not None:
            return self._update_one(self._moved, values, start)
        # Of those after the one that decides, a number that decides later may have seen some. Until the way back is
        # found only the first one counts, and then all begin anew.
        first, reached = len(values), None
        for name in self._detectors:
            at, judgement = self._update_one(name, values, start)
            if judgement is not None and (reached is None or at < first):
                self._moved, first, reached = name, at, judgement
        return first, reached

    def _update_one(
        self, name: str, values: Sequence[Mapping[str, float]], start: int
    ) -> tuple[int, Judgement | None]:
        numbers = [value.get(name, math.nan) for value in values[start:]]
        at, judgement = self._detectors[name].update_many(numbers)
        return start + at, None if judgement is None else replace(judgement, stream=name)

    def reverse(self) -> None:
        """See `Detector`: the number that has moved must come back."""
        if self._moved is None:
            self._moved = max(self._detectors, key=lambda name: self._detectors[name].suspicion)
        self._detectors[self._moved].reverse()

    def reset(self) -> None:
        """See `Detector`."""
        self._moved = None
        for detector in self._detectors.values():
            detector.reset()

    def state(self) -> dict[str, Any]:
        """See `Detector`: by name of the number."""
        return {name: detector.state() for name, detector in self._detectors.items()}

    @staticmethod
    def baselines(state: Mapping[str, Any]) -> dict[str, Baseline]:
        """Baselines out of a state.

        Raises:
            ValueError: The state is not one of sketches.
        """
        found: dict[str, Baseline] = {}
        if not state:
            raise ValueError("a baseline of sketches without a number")
        for name, one in state.items():
            if not isinstance(one, dict):
                raise ValueError(f"the baseline of {name} is no table")
            found[name] = Baseline.from_state(cast("dict[str, Any]", one))
        return found
