"""What the calls of a lane come to, from one report to the next."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from otel_quantmon import semconv

if TYPE_CHECKING:
    from otel_quantmon.probe.lane import Lane, Note
    from otel_quantmon.telemetry.bulk import BulkPoint
    from otel_quantmon.telemetry.instruments import Attributes, Instruments

__all__ = ["Account"]


class Account:
    """Sums up what was taken from one lane, so that OpenTelemetry is called once a report and not once a batch.

    Attributes:
        withheld: calls that the budget has kept from having a span.
    """

    __slots__ = ("_added", "_batches", "_durations", "_exemplars", "withheld")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.withheld = 0
        self._added = False
        self._batches: BulkPoint | None = None
        self._durations: dict[str | None, BulkPoint] = {}
        self._exemplars: dict[tuple[str | None, int], tuple[int, SpanContext]] = {}

    @property
    def empty(self) -> bool:
        """True while nothing was added since the last report."""
        return not self._added

    def add_plain(self, instruments: Instruments, lane: Lane, durations: Sequence[int]) -> None:
        """Take nanoseconds of successful calls of ``lane`` that no span shows."""
        if durations:
            self._point(instruments, lane, None).add(durations)

    def add_noted(self, instruments: Instruments, lane: Lane, calls: Iterable[tuple[int, Note]]) -> None:
        """Take nanoseconds of calls of ``lane``, and what is to be said of them."""
        bounds, exemplars = instruments.duration.bounds, self._exemplars
        durations: dict[str | None, list[int]] = {}
        for duration, note in calls:
            error_type = note.error_type
            alike = durations.setdefault(error_type, [])
            if note.span is None:
                alike.append(duration)
                continue
            # The SDK keeps the last exemplar of each bucket, so only that one has to take the slow way.
            bucket = error_type, bisect_left(bounds, duration)
            before = exemplars.get(bucket)
            exemplars[bucket] = duration, note.span
            if before is not None:
                alike.append(before[0])
        for error_type, alike in durations.items():
            self._point(instruments, lane, error_type).add(alike)

    def add_batches(self, instruments: Instruments, lane: Lane, sizes: Sequence[int]) -> None:
        """Take the batch sizes of calls of ``lane``."""
        if sizes:
            if self._batches is None:
                self._batches = instruments.batch_size.point(lane.series.attributes)
            self._batches.add(sizes)

    def report(self, instruments: Instruments, lane: Lane) -> None:
        """Record all that was added since the last time.

        Raises:
            Exception: whatever an instrument of a third party raises; what it was about to record is lost, not more.
        """
        self._added = False
        exemplars, self._exemplars = self._exemplars, {}
        withheld, self.withheld = self.withheld, 0
        for error_type, point in self._durations.items():
            point.report(
                (duration, set_span_in_context(NonRecordingSpan(span), Context()))
                for (of, _), (duration, span) in exemplars.items()
                if of == error_type
            )
        if self._batches is not None:
            self._batches.report()
        if withheld:
            instruments.spans_suppressed.add(withheld, lane.series.attributes)

    def _point(self, instruments: Instruments, lane: Lane, error_type: str | None) -> BulkPoint:
        self._added = True
        point = self._durations.get(error_type)
        if point is None:
            attributes: Attributes = {**lane.series.attributes, semconv.OPERATION_NAME: lane.method.name}
            if error_type is not None:
                attributes[semconv.ERROR_TYPE] = error_type
            point = self._durations[error_type] = instruments.duration.point(attributes)
        return point
