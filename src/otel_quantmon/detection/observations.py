"""What was observed of a model, and waits until it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from otel_quantmon.detection.life_cycle import ObservedCall

__all__ = ["Ended", "Reading", "spread"]


class Reading(NamedTuple):
    """One observation of one stream; see `ModelStreams.read` and `ModelStreams.fact`."""

    kind: str
    of: str
    value: Any
    at: float
    call: ObservedCall | None
    fact: bool


class Ended(NamedTuple):
    """Ends of calls; see `ModelStreams.ended`."""

    calls: int
    errors: Sequence[str]
    timeouts: int | None
    failed: Sequence[ObservedCall]
    late: Sequence[ObservedCall]


def spread(events: int, trials: int) -> list[int]:
    """Where among trials events are put whose place is not known: even, which is no evidence for a change."""
    return (
        [(i + 1) * trials // (events + 1) for i in range(events)] if events < trials else list(range(trials))
    )
