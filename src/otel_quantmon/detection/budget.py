"""How many false alarms a process may raise, and how they are divided among its streams.

The promise is one for the whole process: without a change, at most ``per_million`` alarms in 10^6 calls. A stream
with level A that takes ``rate`` observations a call adds at most ``rate / A`` alarms a call. A call is one of a single
model and shape class, and feeds only the streams of that model and class. So the number of models does not count; what
must not exceed the budget is the sum over the types of streams that one call can feed. Each type has a share,
the outputs of a model divide that of their type, and a stream that sees few calls has a lower level for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

__all__ = ["DEFAULT_PER_MILLION", "SHARES", "Budget"]

DEFAULT_PER_MILLION: Final = 1.0

SHARES: Final[Mapping[str, float]] = {
    "latency_drift": 0.10,
    "stall": 0.05,
    "error_rate": 0.05,
    "timeout": 0.05,
    "relative_error": 0.10,
    "disagreement": 0.10,
    "cosine": 0.05,
    "output_distribution": 0.15,
    "input_distribution": 0.15,
    "clipping": 0.05,
    "nonfinite": 0.05,
    "speedup": 0.02,
    "memory_growth": 0.05,
    "fallback": 0.01,
    "model_changed": 0.01,
}
"""By type of anomaly; they add up to 0.99, and what is left goes to types of others' making. Facts need little."""

_OTHER = 0.01


class Budget:
    """Levels for the streams of one process.

    Args:
        per_million: False alarms in 10^6 calls of the process, at most; more than 0.

    Raises:
        ValueError: The budget is not above 0.
    """

    __slots__ = ("_per_call",)

    def __init__(self, per_million: float = DEFAULT_PER_MILLION) -> None:
        if not 0.0 < per_million <= 1e6:
            raise ValueError(f"{per_million} false alarms in a million calls")
        self._per_call = per_million * 1e-6

    def level(self, kind: str, *, rate: float = 1.0, position: int = 0) -> float:
        """Return ``A`` of a stream: observations between its false alarms, at least.

        Args:
            kind: Type of anomaly; types that are not in `SHARES` divide one more share.
            rate: Observations of the stream for each call of the process that could feed it, at most 1: 0.01 where
                one call in a hundred is sampled. A burst of samples spends as much more than its share.
            position: Number of the stream among those of its kind that a call feeds, such as an output's number. The
                n-th has ``1 / ((n + 1) (n + 2))`` of the share, so that one more never changes those before
                it, and their sum stays below 1.

        Returns:
            At least 2.
        """
        part = 1.0 / ((position + 1) * (position + 2))
        return max(2.0, rate / (self._per_call * SHARES.get(kind, _OTHER) * part))

    def sole_level(self, kind: str, *, rate: float = 1.0) -> float:
        """`level` of the only stream of its kind that a call feeds: the whole share."""
        return max(2.0, rate / (self._per_call * SHARES.get(kind, _OTHER)))

    @staticmethod
    def suspicion_level(alarm: float, share: float = 0.5) -> float:
        """Level of suspicion, below that of an alarm: where ``share`` of the alarm's evidence is there.

        Evidence is a logarithm, so at one half half of the delay is left. Without a change the level is reached once in
        so many observations at most, which bounds what looking closer costs.
        """
        return max(10.0, math.pow(alarm, share))
