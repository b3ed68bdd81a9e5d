"""Which signals are anomalous: the thresholds, and the states of one model."""

from __future__ import annotations

from typing import NamedTuple

from otel_quantmon.monitors.fidelity import AnomalyState

__all__ = ["LIMITS", "Anomalies", "Limit"]


class Limit(NamedTuple):
    """Where a signal becomes anomalous, where it is well again, and how many samples in a row that takes."""

    enter: float
    leave: float
    samples: int


LIMITS = {
    # Half as slow again is more than other load on the machine does to a mean over a thousand calls.
    "latency_drift": Limit(0.5, 0.25, 3),
    "timeout": Limit(0.6, 0.4, 1),
    # One value in a hundred outside the range is where calibration by percentiles (99.9 and above) never puts it.
    "clipping": Limit(0.01, 0.005, 3),
    "nonfinite": Limit(0.6, 0.4, 1),
    # One decision in twenty: as many as separate the better int8 models from their float originals, ten times over.
    "disagreement": Limit(0.05, 0.025, 3),
    "fallback": Limit(0.6, 0.4, 1),
    # A page for every fourth call.
    "memory_growth": Limit(1024.0, 256.0, 3),
}
"""By `semconv.AnomalyType`; that of the relative error comes from the model's own baseline."""


class Anomalies:
    """The states of one model's signals. Not thread-safe."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], AnomalyState] = {}

    def update(self, kind: str, of: str, value: float, limit: Limit | None = None) -> bool:
        """Take a value of a signal; True when with it the signal becomes anomalous.

        Args:
            kind: of anomaly, a key of `LIMITS` unless ``limit`` is given.
            of: what it is measured on, such as an output's name; states of different ones are apart.
            value: of the signal.
            limit: instead of the one in `LIMITS`; the first one given for a signal holds.
        """
        state = self._states.get((kind, of))
        if state is None:
            enter, leave, samples = limit or LIMITS[kind]
            state = self._states[kind, of] = AnomalyState(enter, leave, samples=samples)
        return state.update(value) == "entered"

    def forget(self, kind: str) -> None:
        """Begin anew with a kind of anomaly whose limits have changed."""
        self._states = {key: state for key, state in self._states.items() if key[0] != kind}
