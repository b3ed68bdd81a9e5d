"""From the records that finished calls leave in their lanes, to metrics.

A record waits: until a collection, or until so many wait in its lane that the caller takes them itself. Nothing
is dropped, so counts are exact; nothing runs in the background, where it would hold the interpreter's lock
against the very calls that are observed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter_ns

from otel_quantmon.guard import internal_error
from otel_quantmon.probe.ending import TIMEOUT
from otel_quantmon.probe.lane import Lane, Note, NotedRecord
from otel_quantmon.probe.loaded import IO
from otel_quantmon.probe.series import SeriesKey
from otel_quantmon.telemetry.instruments import Instruments

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
        self.calls_overhead = 0.0
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
        """Report all that waits in all lanes, and forget those whose model is gone. The caller holds `lock`."""
        alive: list[Lane] = []
        for lane in self._lanes:
            # In this order: after its model has gone and its last call has ended, nothing adds to a lane.
            if lane.model_alive() or lane.in_flight:
                alive.append(lane)
            self._take(lane)
            self._report(lane)
        self._lanes = alive

    def forget(self) -> None:
        """Drop what another process counts: called in a child after fork."""
        self.lock = threading.Lock()
        self.calls_overhead, self.drain_overhead = 0.0, 0
        self.allocated.clear()
        for lane in self._lanes:
            for waiting in (lane.ends, lane.durations, lane.moved, lane.noted):
                waiting.clear()
            lane.account.clear()
            # A call that forks while it runs still has the list that it is in.
            lane.in_flight = []

    def _take(self, lane: Lane) -> None:
        if not (lane.durations or lane.noted):
            return
        started = perf_counter_ns()
        instruments = self._instruments()
        # As many as there are of each by now: others append meanwhile, to this one last.
        waiting = len(lane.durations)
        ends, durations, moved = lane.ends[:waiting], lane.durations[:waiting], lane.moved[:waiting]
        del lane.ends[:waiting], lane.durations[:waiting], lane.moved[:waiting]
        noted = lane.noted[:]
        del lane.noted[: len(noted)]
        if instruments.recording():
            try:
                self._add_up(instruments, lane, ends, durations, moved, noted)
            except Exception as error:  # noqa: BLE001  an instrument that raises loses this lane's records only
                internal_error(error)
        self.drain_overhead += perf_counter_ns() - started

    def _report(self, lane: Lane) -> None:
        if lane.account.empty:
            return
        started = perf_counter_ns()
        # Not whenever records are taken: a call right after that is slow, since they have driven it from the caches.
        lane.ask_to_weigh()
        try:
            lane.account.report(self._instruments(), lane)
        except Exception as error:  # noqa: BLE001  as above
            internal_error(error)
        self.drain_overhead += perf_counter_ns() - started

    def _add_up(
        self,
        instruments: Instruments,
        lane: Lane,
        ends: list[int],
        durations: list[int],
        moved: list[IO | None],
        noted: list[NotedRecord],
    ) -> None:
        series, account = lane.series, lane.account
        series.calls += len(durations) + len(noted)
        notes = [(duration, note) for _, duration, _, note in noted]
        self.calls_overhead += len(durations) * lane.overhead + sum([note.overhead for _, note in notes])
        series.latency.observe(ends, durations)
        typical = [(end, duration) for end, duration, _, note in noted if _is_typical(note)]
        if typical:
            series.latency.observe(*zip(*typical, strict=True))
        # Where traces are off, it is not the budget that withholds spans.
        if lane.spans == "auto" and lane.observer.spans.recording():
            account.withheld += len(durations) + sum([note.withheld for _, note in notes])
        if lane.sampler is not None:
            lane.sampler.earn(
                (sum(durations) + sum([duration for duration, _ in notes])) * self._check_budget
            )
        if lane.timeout is not None and series.fidelity is not None:
            late = any(note.error_type == TIMEOUT for _, note in notes)
            series.fidelity.judge("timeout", lane.method.name, float(late))
        moved += [io for _, _, io, note in noted if not note.failed]
        measured = [io for io in moved if io is not None]
        unmeasured = len(moved) - len(measured) + (len(durations) if lane.measure is None else 0)
        self._count_io(instruments, lane, measured, unmeasured)
        account.add_noted(instruments, lane, notes)
        account.add_plain(instruments, lane, durations)

    def _count_io(self, instruments: Instruments, lane: Lane, measured: list[IO], unmeasured: int) -> None:
        fixed = lane.io
        written = sum([io.output_bytes for io in measured])
        batches = [io.batch for io in measured if io.batch is not None]
        if fixed is not None:
            written += unmeasured * fixed.output_bytes
            if fixed.batch is not None:
                batches += [fixed.batch] * unmeasured
        last = measured[-1] if measured else fixed
        if last is not None:
            lane.series.io_bytes = last.input_bytes + last.output_bytes
            self.allocated[lane.series.key] = self.allocated.get(lane.series.key, 0) + written
        lane.account.add_batches(instruments, lane, batches)


def _is_typical(note: Note) -> bool:
    # What failed may have ended at once, and the first calls allocate.
    return note.error_type is None and not note.warmup
