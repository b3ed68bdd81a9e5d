"""From the records that finished calls leave in their lanes, to metrics.

A record waits: until a collection, or until so many wait in its lane that the caller takes them itself. Nothing
is dropped, so counts are exact; nothing runs in the background, where it would hold the interpreter's lock
against the very calls that are observed.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import sub
from time import perf_counter_ns

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from otel_quantmon import semconv
from otel_quantmon.guard import internal_error
from otel_quantmon.probe.call import TIMEOUT
from otel_quantmon.probe.lane import Lane, Note, Record
from otel_quantmon.probe.loaded import IO
from otel_quantmon.probe.series import SeriesKey
from otel_quantmon.telemetry.instruments import Attributes, Instruments

__all__ = ["Recorder"]

# Lanes that may have lost their model before a look at which of them have; so many more than are alive.
_SPARE_LANES = 256


class Recorder:
    """Turns the records of all lanes into metrics.

    Attributes:
        lock: held while records are taken; holding it keeps windows and totals still for a reader.
        calls_overhead, drain_overhead: nanoseconds spent so far beside the calls, and in draining.
        allocated: bytes of output tensors so far, by `Series.key`.
    """

    def __init__(self, instruments: Callable[[], Instruments], check_budget: float) -> None:
        self._check_budget = check_budget
        self._instruments = instruments
        self.lock = threading.Lock()
        # Strong references: a lane outlives its model until its last record is taken.
        self._lanes: list[Lane] = []
        self._look_at = _SPARE_LANES
        self.calls_overhead = 0
        self.drain_overhead = 0
        self.allocated: dict[SeriesKey, int] = {}

    def add(self, lane: Lane) -> None:
        """Take records from ``lane`` from now on, for as long as its model lives and then until it is empty."""
        with self.lock:
            if len(self._lanes) >= self._look_at:
                self.drain()
                self._look_at = 2 * len(self._lanes) + _SPARE_LANES
            self._lanes.append(lane)

    def relieve(self, lane: Lane) -> None:
        """Take what waits in ``lane``, unless another thread is at it."""
        if self.lock.acquire(blocking=False):
            try:
                self._take(lane)
            finally:
                self.lock.release()

    def drain(self) -> None:
        """Take what waits in all lanes, and forget those whose model is gone. The caller holds `lock`."""
        alive: list[Lane] = []
        for lane in self._lanes:
            # In this order: after its model has gone and its last call has ended, nothing adds to a lane.
            if lane.model_alive() or lane.in_flight:
                alive.append(lane)
            self._take(lane)
        self._lanes = alive

    def forget(self) -> None:
        """Drop what another process counts: called in a child after fork."""
        self.lock = threading.Lock()
        self.calls_overhead = self.drain_overhead = 0
        self.allocated.clear()
        for lane in self._lanes:
            lane.pending.clear()
            lane.in_flight.clear()

    def _take(self, lane: Lane) -> None:
        pending = lane.pending
        if not pending:
            return
        started = perf_counter_ns()
        instruments = self._instruments()
        waiting = len(pending)
        records = [pending.popleft() for _ in range(waiting)]
        if instruments.recording():
            try:
                self._record(instruments, lane, records)
            except Exception as error:  # noqa: BLE001  an instrument that raises loses this lane's records only
                internal_error(error)
        self.drain_overhead += perf_counter_ns() - started

    def _record(self, instruments: Instruments, lane: Lane, records: list[Record]) -> None:
        series = lane.series
        series.calls += len(records)
        # Column by column: the records have left the cache, and one pass over them is dearer than what is done to them.
        starts, ends, overheads, moved, notes = zip(*records, strict=True)
        self.calls_overhead += sum(overheads)
        # A call that raised has produced nothing; one that only overran its timeout has.
        if any(notes):
            moved = tuple(
                io
                for io, note in zip(moved, notes, strict=True)
                if note is None or note.error_type in (None, TIMEOUT)
            )
        self._count_io(instruments, lane, moved)
        durations = list(map(sub, ends, starts))
        if lane.sampler is not None:
            lane.sampler.earn(sum(durations) * self._check_budget)
        noted: list[tuple[int, int, Note]] = []
        withheld = len(records)
        if any(notes):
            calls = list(zip(ends, durations, notes, strict=True))
            noted = [(end, duration, note) for end, duration, note in calls if note is not None]
            plain = [(end, duration) for end, duration, note in calls if note is None]
            series.latency.observe(plain)
            durations = [duration for _, duration in plain]
            withheld = len(plain) + sum([note.withheld for _, _, note in noted])
        else:
            series.latency.observe(list(zip(ends, durations, strict=True)))
        values = [duration * 1e-9 for duration in durations]
        attributes: Attributes = {**series.attributes, semconv.OPERATION_NAME: lane.method.name}
        # Where traces are off, it is not the budget that withholds spans.
        if withheld and lane.spans == "auto" and lane.observer.spans.recording():
            instruments.spans_suppressed.add(withheld, series.attributes)
        if lane.timeout is not None and series.fidelity is not None:
            late = any(note.error_type == TIMEOUT for _, _, note in noted)
            series.fidelity.judge("timeout", lane.method.name, float(late))
        if noted:
            self._record_noted(instruments, lane, noted, attributes, values)
        instruments.duration.record_many(values, attributes)

    @staticmethod
    def _record_noted(
        instruments: Instruments,
        lane: Lane,
        noted: list[tuple[int, int, Note]],
        attributes: Attributes,
        durations: list[float],
    ) -> None:
        """Record those with a note; their durations that need no exemplar and no attribute go to ``durations``."""
        # The SDK keeps the last exemplar of each bucket, so only that one has to take the slow way.
        exemplars: dict[tuple[str | None, int], tuple[float, SpanContext]] = {}
        by_error: dict[str, list[float]] = {}
        lane.series.latency.observe(
            [(end, duration) for end, duration, note in noted if note.error_type is None and not note.warmup]
        )
        for _, duration, note in noted:
            seconds = duration * 1e-9
            values = durations if note.error_type is None else by_error.setdefault(note.error_type, [])
            if note.span is None:
                values.append(seconds)
                continue
            bucket = note.error_type, bisect_left(semconv.DURATION_BOUNDARIES, seconds)
            if bucket in exemplars:
                values.append(exemplars[bucket][0])
            exemplars[bucket] = seconds, note.span
        for error_type in {None, *by_error, *(error_type for error_type, _ in exemplars)}:
            linked = [
                (seconds, set_span_in_context(NonRecordingSpan(span), Context()))
                for (of, _), (seconds, span) in exemplars.items()
                if of == error_type
            ]
            told = attributes if error_type is None else {**attributes, semconv.ERROR_TYPE: error_type}
            instruments.duration.record_many(by_error.get(error_type, []) if error_type else [], told, linked)

    def _count_io(self, instruments: Instruments, lane: Lane, moved: Sequence[IO | None]) -> None:
        fixed = lane.io
        known = [io for io in moved if io is not None] if lane.measure else []
        written = sum([io.output_bytes for io in known])
        batches = [io.batch for io in known if io.batch is not None]
        if fixed is not None:
            rest = len(moved) - len(known)
            written += rest * fixed.output_bytes
            if fixed.batch is not None:
                batches += [fixed.batch] * rest
        last = known[-1] if known else fixed
        if last is not None:
            lane.series.io_bytes = last.input_bytes + last.output_bytes
            self.allocated[lane.series.key] = self.allocated.get(lane.series.key, 0) + written
        if batches:
            instruments.batch_size.record_many(batches, lane.series.attributes)
