"""What every detector does, whatever it looks at, and what it says when it has made up its mind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

__all__ = ["RETURN_EVIDENCE", "Detector", "Direction", "Judgement", "number"]

Direction = Literal["up", "down"]

Observation_contra = TypeVar("Observation_contra", contravariant=True)

RETURN_EVIDENCE = 1000.0
"""Where a changed stream counts as back at its baseline: one that stays gets there once in so many observations."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A stream has left its baseline, or has come back to it.

    Attributes:
        evidence: How sure it is: the value of the e-detector, which a stream without a change reaches at most once
            in so many observations. None for a fact, which needs no statistics.
        value: Statistic of the stream since the change, in the stream's own unit.
        baseline: The same statistic of the baseline.
        statistic: What ``value`` and ``baseline`` are: a quantile such as ``p50``, ``rate``, ``mean`` or ``fact``.
        direction: Direction in which the stream has moved.
        observations: Number of observations since the estimated change, at least 1.
        stream: Which of several numbers it was, where a detector watches several; empty otherwise.
        returned: The stream is back at its baseline, and ``observations`` counts since then.
    """

    evidence: float | None
    value: float
    baseline: float
    statistic: str
    direction: Direction
    observations: int
    stream: str = ""
    returned: bool = False

    @property
    def change(self) -> float:
        """``value / baseline - 1``; infinite from a baseline of zero."""
        if self.baseline:
            return (self.value - self.baseline) / abs(self.baseline)
        return math.copysign(math.inf, self.value) if self.value else 0.0


class Detector(Protocol[Observation_contra]):
    """Watches one stream of observations: numbers, or sketches, which are a few numbers by name. Not thread-safe.

    A detector looks for a change away from its baseline until it has found one. Then it waits for `reverse`, which
    makes it look for the way back, or for `reset`, with which it begins anew.
    """

    @property
    def suspicion(self) -> float:
        """The e-value of now: about 1 without a change, the alarm's level at an alarm."""
        ...

    def update(self, value: Observation_contra) -> Judgement | None:
        """Take one observation; a judgement if it was the one that decided. What is not finite is passed over."""
        ...

    def update_many(
        self, values: Sequence[Observation_contra], start: int = 0
    ) -> tuple[int, Judgement | None]:
        """Take observations from index ``start`` up to the one that decides: the index after it, its judgement."""
        ...

    def reverse(self) -> None:
        """Look for the way back, after a judgement that there is a change."""
        ...

    def reset(self) -> None:
        """Look for a change with no evidence yet; the baseline stays."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the baseline as plain JSON values, for a later `Detector` of the same kind. Evidence is not kept."""
        ...


def number(state: Mapping[str, Any], key: str) -> float:
    """Return a finite number out of a state.

    Raises:
        ValueError: The value is not one.
    """
    value = state.get(key)
    if not isinstance(value, bool) and isinstance(value, (int, float)):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if math.isfinite(found):
            return found
    raise ValueError(f"a baseline's {key} is no finite number")
