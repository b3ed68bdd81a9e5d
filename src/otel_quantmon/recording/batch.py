"""Calls on their way from a call state to where they are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from otel_quantmon.detection.life_cycle import ObservedCall
from otel_quantmon.models.description import IO
from otel_quantmon.recording.outcome import TIMEOUT, Outcome, OutcomeRecord
from otel_quantmon.telemetry.api import SpanContext

__all__ = ["Batch"]


class Batch:
    """Calls that were taken from a call state, and what of them is still to be added up.

    A handler of a signal may raise wherever a call has returned, and where a loop or a function begins: whoever was
    adding up stops there, and the next one goes on with the batch. So each part is added, and taken out of the batch,
    by statements that call nothing; what is added in many steps is taken out before, and may in part be lost.

    Attributes:
        ends, durations, moved, records: What was taken, see `otel_quantmon.recording.pending.PendingCalls`.
        parted: True once the rest is there.
        calls: Number of calls that are to be added to the series.
        seen: True once the window of durations has taken them, or has begun to.
        passed_on: True once the call state and the assessment know of them, or have begun to.
        plain: Durations of the calls that no span shows.
        outcomes: Durations of the others, by their ``error.type``.
        shown: Those of them that become exemplars, with their ``error.type`` and their span.
        withheld: Number of calls that the budget has kept from having a span.
        overhead: Nanoseconds that the observation took.
        last: What the last call moved, None if that is not known or has been added.
        written: Bytes of all outputs.
        batches: Batch sizes.
    """

    __slots__ = (
        "batches",
        "calls",
        "durations",
        "ends",
        "last",
        "moved",
        "outcomes",
        "overhead",
        "parted",
        "passed_on",
        "plain",
        "records",
        "seen",
        "shown",
        "withheld",
        "written",
    )

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.durations: list[int] = []
        self.moved: list[IO | None] = []
        self.records: list[OutcomeRecord] = []
        self.parted = self.seen = self.passed_on = False
        self.calls = self.withheld = self.written = 0
        self.overhead = 0.0
        self.plain: list[int] = []
        self.outcomes: dict[str | None, list[int]] = {}
        self.shown: list[tuple[str | None, int, SpanContext]] = []
        self.last: IO | None = None
        self.batches: list[int] = []

    def part(self, *, io: IO | None, measured: bool, overhead: float, withholding: bool) -> None:
        """Sort the calls by what is to be done with them.

        Args:
            io: What each of them moved, where that is fixed.
            measured: True if what they moved was measured.
            overhead: Nanoseconds that the observation took of each plain call.
            withholding: True if it is the span budget that keeps those from having a span.
        """
        if self.parted:
            return
        records = self.records
        calls = len(self.durations) + len(records)
        spent = len(self.durations) * overhead + sum([outcome.overhead for *_, outcome in records])
        outcomes: dict[str | None, list[int]] = {}
        shown: list[tuple[str | None, int, SpanContext]] = []
        for _, duration, _, outcome in records:
            if outcome.span is None:
                outcomes.setdefault(outcome.error_type, []).append(duration)
            else:
                shown.append((outcome.error_type, duration, outcome.span))
        withheld = 0
        if withholding:
            withheld = len(self.durations) + sum([outcome.withheld for *_, outcome in records])
        moved = self.moved + [size for _, _, size, outcome in records if not outcome.failed]
        if not measured:
            moved += [None] * len(self.durations)
        written = 0
        batches: list[int] = []
        for found, alike in _counted(moved):
            size = found or io
            if size is not None:
                written += alike * size.output_bytes
                if size.batch is not None:
                    batches += [size.batch] * alike
        last = (moved[-1] or io) if moved else None
        plain = self.durations.copy()
        # Nothing is called from here on.
        self.calls, self.overhead, self.withheld = calls, spent, withheld
        self.plain, self.outcomes, self.shown = plain, outcomes, shown
        self.last, self.written, self.batches = last, written, batches
        self.parted = True

    def typical(self, io: IO | None) -> list[tuple[int, int, IO | None]]:
        """Return ends, durations and sizes (``io`` where that is fixed) of the typical calls with an outcome."""
        return [
            (end, duration, size or io)
            for end, duration, size, outcome in self.records
            if _is_typical(outcome)
        ]

    @property
    def spent(self) -> int:
        """Nanoseconds that the calls took."""
        return sum(self.durations) + sum([duration for _, duration, _, _ in self.records])

    @property
    def timeouts(self) -> int:
        """Calls that ran past their timeout."""
        return sum([outcome.error_type == TIMEOUT for *_, outcome in self.records])

    @property
    def failed(self) -> list[ObservedCall]:
        """Calls that raised, as in `errors`."""
        return [
            ObservedCall(end, duration, outcome.span)
            for end, duration, _, outcome in self.records
            if outcome.error_type is not None and outcome.error_type != TIMEOUT
        ]

    @property
    def late(self) -> list[ObservedCall]:
        """Calls that ran past their timeout."""
        return [
            ObservedCall(end, duration, outcome.span)
            for end, duration, _, outcome in self.records
            if outcome.error_type == TIMEOUT
        ]

    @property
    def traced(self) -> list[tuple[int, SpanContext]]:
        """Ends of the calls that a sampled span shows, with its context."""
        return [(end, outcome.span) for end, _, _, outcome in self.records if outcome.span is not None]

    @property
    def errors(self) -> list[str]:
        """Types of what the other calls raised."""
        return [
            outcome.error_type
            for *_, outcome in self.records
            if outcome.error_type is not None and outcome.error_type != TIMEOUT
        ]


def _counted(moved: list[IO | None]) -> Iterable[tuple[IO | None, int]]:
    # Mostly it is the same one object.
    if moved and moved.count(moved[0]) == len(moved):
        return ((moved[0], len(moved)),)
    return Counter(moved).items()


def _is_typical(outcome: Outcome) -> bool:
    # What failed may have ended at once, and the first calls allocate.
    return outcome.error_type is None and not outcome.warmup
