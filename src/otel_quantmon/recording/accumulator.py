"""What the calls of a call state come to, from one report to the next."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from otel_quantmon import semconv
from otel_quantmon.recording.batch import Batch
from otel_quantmon.telemetry.api import Context, SpanContext
from otel_quantmon.telemetry.bulk_histogram import BulkPoint
from otel_quantmon.telemetry.context import linked
from otel_quantmon.telemetry.instruments import Attributes, Instruments

__all__ = ["Accumulator"]


class Accumulator:
    """Sums up what was taken from one call state, so that OpenTelemetry is called once a report and not once a batch.

    Args:
        attributes: Attributes of the calls' series.
        operation: Name of their method.

    Attributes:
        withheld: Calls that the budget has kept from having a span.
    """

    __slots__ = ("_added", "_attributes", "_batches", "_durations", "_exemplars", "_operation", "withheld")

    def __init__(self, attributes: Attributes, operation: str) -> None:
        self._attributes = attributes
        self._operation = operation
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

    def add(self, instruments: Instruments, batch: Batch) -> None:
        """Take what ``batch`` has to be counted, out of it.

        Raises:
            Exception: Whatever an instrument of a third party raises.
        """
        if batch.shown:
            self._show(instruments, batch)
        for error_type, alike in batch.outcomes.items():
            self._point(instruments, error_type).add(alike)
        if batch.plain:
            self._point(instruments, None).add(batch.plain)
        if batch.batches:
            if self._batches is None:
                self._batches = instruments.batch_size.point(self._attributes)
            self._batches.add(batch.batches)
        # Nothing is called in between, see `Batch`.
        self.withheld += batch.withheld
        batch.withheld = 0

    def _show(self, instruments: Instruments, batch: Batch) -> None:
        """Make exemplars of the calls in ``batch`` that a span shows."""
        bounds, exemplars = instruments.duration.bounds, self._exemplars.copy()
        outcomes = {error_type: alike.copy() for error_type, alike in batch.outcomes.items()}
        for error_type, duration, span in batch.shown:
            alike = outcomes.setdefault(error_type, [])
            # The SDK keeps the last exemplar of each bucket, so only that one has to take the slow way.
            bucket = error_type, bisect_left(bounds, duration)
            before = exemplars.get(bucket)
            exemplars[bucket] = duration, span
            if before is not None:
                alike.append(before[0])
        # As above.
        self._exemplars, batch.outcomes, batch.shown = exemplars, outcomes, []

    def report(self, instruments: Instruments) -> None:
        """Record all that was added since the last time.

        Raises:
            Exception: Whatever an instrument of a third party raises. What it was about to record is lost, not more:
                the rest is for the next time, also where a handler of a signal has raised.
        """
        for error_type, point in self._durations.items():
            point.report(self._taken_exemplars(error_type))
        if self._batches is not None:
            self._batches.report()
        withheld, self.withheld = self.withheld, 0
        if withheld:
            instruments.spans_suppressed.add(withheld, self._attributes)
        self._added = False

    def _taken_exemplars(self, error_type: str | None) -> Iterator[tuple[int, Context]]:
        """Take the exemplars of ``error_type`` out, each right before it is recorded."""
        for of in [of for of in self._exemplars if of[0] == error_type]:
            duration, span = self._exemplars.pop(of)
            yield duration, linked(span)

    def _point(self, instruments: Instruments, error_type: str | None) -> BulkPoint:
        self._added = True
        point = self._durations.get(error_type)
        if point is None:
            attributes: Attributes = {**self._attributes, semconv.OPERATION_NAME: self._operation}
            if error_type is not None:
                attributes[semconv.ERROR_TYPE] = error_type
            point = self._durations[error_type] = instruments.duration.point(attributes)
        return point
