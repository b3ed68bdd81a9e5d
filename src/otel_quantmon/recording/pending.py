"""Finished calls that wait to be recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from otel_quantmon.models.description import IO, Method
from otel_quantmon.recording.accumulator import Accumulator
from otel_quantmon.recording.batch import Batch
from otel_quantmon.recording.outcome import OutcomeRecord
from otel_quantmon.recording.series import Series
from otel_quantmon.semconv import SpanMode

__all__ = ["PendingCalls"]


class PendingCalls:
    """The calls of one method of one loaded model that have ended and are not yet recorded.

    The caller's thread appends, and the recorder takes: at a collection, or when so many wait that the caller takes
    them itself.

    Args:
        method: Method of the calls.
        series: Series that the calls belong to.
        io: What every call moves, None where that is not fixed.
        measure_calls: True if what a call moves is measured at each call.
        limit: Calls that may wait before a caller takes them.
        span_mode: Span mode in force.
        timeout: Seconds after which a call has timed out, None for no limit.
        model_alive: Tells whether the runtime's object is still there.

    Attributes:
        method, series, io, limit, span_mode, timeout, model_alive: As given.
        measured: As ``measure_calls``.
        ends, durations, moved: Columns of the calls of which there is nothing else to say: successes of a warm call
            state without a span, in mode ``auto`` because of the budget. An end is by `time.perf_counter_ns`, a
            duration is in nanoseconds. They are apart, since a tuple for each call costs a tenth of the whole
            observation more. Threads that end calls at once may append to one column in another order than to the
            next, and exchange times that hardly differ. What calls moved is only there if `measured`.
        records: The other calls, each with its outcome. Appending is atomic, here and above.
        in_flight: One entry for each call that is running: appending to it and popping are atomic where adding to a
            number is not. A list would allocate anew whenever it is no longer empty.
        overhead: Nanoseconds that the observation takes of a call with nothing else to say, as lately calibrated.
        batch: What was taken and is not yet added up, None if nothing is.
        accumulator: What was added up and is not yet reported.
        lingers: True if it is to be kept for a collection more than its model: there may be calls that have begun with
            it though the runtime's object has another one by now.
    """

    __slots__ = (
        "__weakref__",
        "accumulator",
        "batch",
        "durations",
        "ends",
        "in_flight",
        "io",
        "limit",
        "lingers",
        "measured",
        "method",
        "model_alive",
        "moved",
        "overhead",
        "records",
        "series",
        "span_mode",
        "timeout",
    )

    def __init__(
        self,
        method: Method,
        series: Series,
        *,
        io: IO | None,
        measure_calls: bool,
        limit: int,
        span_mode: SpanMode,
        timeout: float | None,
        model_alive: Callable[[], bool],
    ) -> None:
        self.method = method
        self.series = series
        self.io = io
        self.measured = measure_calls
        self.limit = limit
        self.span_mode: SpanMode = span_mode
        self.timeout = timeout
        self.model_alive = model_alive
        self.ends: list[int] = []
        self.durations: list[int] = []
        self.moved: list[IO | None] = []
        self.records: list[OutcomeRecord] = []
        self.in_flight: deque[None] = deque()
        self.overhead = 0.0
        self.batch: Batch | None = None
        self.lingers = False
        self.accumulator = Accumulator(series.attributes, method.name)

    @property
    def waiting(self) -> bool:
        """True if any call is yet to be added up."""
        return bool(self.durations or self.records or self.batch)

    def take(self) -> Batch | None:
        """Return what was left of an earlier batch, or else the calls that wait; None if there are none."""
        if self.batch is not None:
            return self.batch
        # As many as there are of each by now: others append meanwhile, to the durations last.
        waiting, records = len(self.durations), len(self.records)
        if not waiting and not records:
            return None
        batch = Batch()
        # Nothing is called from here on, see `Batch`.
        batch.ends, batch.durations = self.ends[:waiting], self.durations[:waiting]
        batch.moved, batch.records = self.moved[:waiting], self.records[:records]
        del self.ends[:waiting], self.durations[:waiting], self.moved[:waiting], self.records[:records]
        self.batch = batch
        return batch

    def forget(self) -> None:
        """Drop what waits: in a child after fork it is the parent's."""
        for waiting in (self.ends, self.durations, self.moved, self.records):
            waiting.clear()
        self.batch = None
        self.accumulator.clear()
        # A call that forks while it runs still has the list that it is in.
        self.in_flight = deque()

    def recorded(self, nanoseconds: int, calls: int) -> None:
        """Take note that so many calls, which took so long together, have been recorded."""

    def reported(self) -> None:
        """Take note that what was recorded is about to be reported, at a collection."""
