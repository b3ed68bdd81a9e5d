"""Which detector watches for which type of anomaly. Another detector is a file, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.bernoulli import FactDetector, RateDetector, rate_state
from otel_quantmon.detection.detector import Detector
from otel_quantmon.detection.distribution import SketchDetector
from otel_quantmon.detection.e_detector import RankEDetector
from otel_quantmon.detection.leak import LeakDetector

__all__ = ["KINDS", "Kind"]

State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of anomaly.

    Attributes:
        observation: Kind of observation that the detector is fed with: a ``value``; an ``event``, 0 or 1 for each
            trial; a ``sketch``; a ``growth`` of memory, from `leak.Envelope`; a ``fact``, the number of things that
            have changed.
        make: A detector from the state of a baseline (`Detector.state`), its alarm level, and the stream's seed.
            Raises ValueError if the state is not one of this kind.
    """

    observation: Literal["value", "event", "sketch", "growth", "fact"]
    make: Callable[[State, float, int], Detector[Any]]


def _ranks(sides: Literal["up", "down", "both"], margin: float = 0.0, tolerance: float = 0.0) -> Kind:
    def make(state: State, alarm: float, seed: int) -> RankEDetector:
        baseline = Baseline.from_state(state)
        return RankEDetector(
            baseline, alarm=alarm, seed=seed, sides=sides, margin=margin, tolerance=tolerance
        )

    return Kind("value", make)


def _rate(certain_after: int = 0) -> Kind:
    def make(state: State, alarm: float, _: int) -> RateDetector:
        events, trials = rate_state(state)
        return RateDetector(events, trials, alarm=alarm, certain_after=certain_after)

    return Kind("event", make)


def _sketches() -> Kind:
    return Kind(
        "sketch",
        lambda state, alarm, seed: SketchDetector(SketchDetector.baselines(state), alarm=alarm, seed=seed),
    )


KINDS: Final[Mapping[str, Kind]] = {
    # Slower is what hurts, and a busy host makes small models faster. A twentieth is what a clock rate does.
    "latency_drift": _ranks("up", margin=0.05),
    "stall": _rate(),
    "error_rate": _rate(certain_after=2),
    "timeout": _rate(certain_after=2),
    "relative_error": _ranks("up", margin=0.05),
    "disagreement": _rate(),
    "cosine": _ranks("down"),
    "output_distribution": _sketches(),
    "input_distribution": _sketches(),
    # A share of values: one in a thousand is no matter.
    "clipping": _ranks("up", tolerance=0.001),
    "nonfinite": _rate(certain_after=1),
    "speedup": _ranks("down", margin=0.05),
    "memory_growth": Kind(
        "growth",
        lambda state, alarm, seed: LeakDetector(Baseline.from_state(state), alarm=alarm, seed=seed),
    ),
    "fallback": Kind("fact", lambda _state, _alarm, _seed: FactDetector()),
    "model_changed": Kind("fact", lambda _state, _alarm, _seed: FactDetector()),
}
"""By type of anomaly, as in `budget.SHARES`."""
