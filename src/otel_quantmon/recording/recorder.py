"""From the records that finished calls leave in their call states, to metrics.

A record waits: until a collection, or until so many wait in its call state that the caller takes them itself. Nothing
is dropped, so counts are exact. Judgement takes what waits too, a few times a second and for a share of one core
that is bounded; nothing else runs in the background, where it would hold the interpreter's lock against the very calls
that are observed.

Where recording is slow, as with an exemplar filter that wants every value, calls may end faster than their records
can be taken. Callers do not wait for each other before several times the limit of a call state waits in it, and then
they do: memory is bounded, and a collection always finds a bounded number of records.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any

from otel_quantmon.guard import internal_error, pass_on
from otel_quantmon.recording.batch import Batch
from otel_quantmon.recording.pending import PendingCalls
from otel_quantmon.recording.series import SeriesKey
from otel_quantmon.telemetry.instruments import Instruments
from otel_quantmon.telemetry.providers import Providers

__all__ = ["Recorder"]

# Call states that may have lost their model before it is checked which of them have; so many more than are alive.
_SPARE_STATES = 256

# Times its limit that may wait in a call state before its callers wait for their turn to take it.
_MOST_LIMITS = 4


class Recorder:
    """Turns the records of all call states into metrics.

    Attributes:
        lock: Held while records of one call state are taken; holding it keeps windows and totals still for a reader. It
            knows its owner: a signal handler that runs an inference may have interrupted the one who holds it.
        calls_overhead, drain_overhead: Nanoseconds spent so far beside the calls, and in draining.
        allocated: Bytes of output tensors so far, by `Series.key`.
        taken: Is called whenever records have been taken.
    """

    def __init__(self, providers: Callable[[], Providers], *, limit: int, check_budget: float) -> None:
        self._providers = providers
        self.limit = limit
        self.check_budget = check_budget
        self.lock: Any = threading.RLock()
        # Strong references, in their order: a call state outlives its model until its last record is taken.
        self._pending: dict[PendingCalls, None] = {}
        self._sweep_at = _SPARE_STATES
        # What to call once the lock is free.
        self._later: deque[Callable[[], object]] = deque()
        self.calls_overhead = 0.0
        self.drain_overhead = 0
        self.allocated: dict[SeriesKey, int] = {}
        self.taken: Callable[[], object] = lambda: None

    def add(self, pending: PendingCalls) -> None:
        """Take records from ``pending`` from now on, for as long as its model lives and then until it is empty."""
        self._pending[pending] = None
        if len(self._pending) > self._sweep_at:
            self.drain()
            # Not by twice as many: those that linger go the next time.
            left = list(self._pending)
            self._sweep_at = len(left) + sum([one.model_alive() for one in left]) + _SPARE_STATES

    def flush(self, pending: PendingCalls) -> None:
        """Take what waits in ``pending``: if another thread is at it, only once too much waits."""
        lock = self.lock
        if lock._is_owned():
            return
        if max(len(pending.durations), len(pending.records)) >= _MOST_LIMITS * pending.limit:
            with lock:
                self._take(pending)
            self._tell()
            return
        try:
            if lock.acquire(blocking=False):
                self._take(pending)
        finally:
            # Whether it was taken is asked of the lock alone: a signal handler that raises may come in between.
            try:
                lock.release()
            except RuntimeError as error:
                # Unless such a handler has raised it.
                pass_on(error)
        self._tell()

    def drain(self) -> int:
        """Report what waits by now in all call states, and forget those whose model is gone.

        The lock is held for one call state after another, so that callers need not wait for the whole.

        Returns:
            Nanoseconds of it that `drain_overhead` counts, for who would count them again.
        """
        spent = 0
        if self.lock._is_owned():
            return spent
        for pending in list(self._pending):
            # In this order: after its model has gone and its last call has ended, nothing adds to a call state.
            alive = pending.model_alive() or pending.in_flight
            with self.lock:
                spent += self._take(pending)
                spent += self._report(pending)
            self._tell()
            if not alive and not pending.waiting:
                if pending.lingers:
                    # A call may be between its end and its record, and so in neither place; the next time it is here.
                    pending.lingers = False
                else:
                    self._pending.pop(pending, None)
        return spent

    def take(self) -> int:
        """Take what waits by now in all call states, without reporting it; nothing while another thread is at it.

        The worker does not wait: a lock that somebody does not let go of, as where a debugger quits at the end of a
        ``with``, is not to hold up all that the worker does.

        Returns:
            As `drain`.
        """
        spent = 0
        if self.lock._is_owned():
            return spent
        for pending in list(self._pending):
            if pending.waiting and self.lock.acquire(blocking=False):
                try:
                    spent += self._take(pending)
                finally:
                    self.lock.release()
                self._tell()
        return spent

    def used(self) -> bool:
        """Return True if any call was recorded, or waits to be."""
        return self.drain_overhead > 0 or any(pending.waiting for pending in list(self._pending))

    def forget(self) -> None:
        """Drop what another process counts: called in a child after fork."""
        self.lock = threading.RLock()
        self.calls_overhead, self.drain_overhead = 0.0, 0
        self.allocated.clear()
        self._later.clear()
        for pending in self._pending:
            pending.forget()

    def _take(self, pending: PendingCalls) -> int:
        # What somebody had to leave before what came after it.
        left = 0 if pending.batch is None else self._take_batch(pending)
        return left + self._take_batch(pending)

    def _take_batch(self, pending: PendingCalls) -> int:
        batch = pending.take()
        if batch is None:
            return 0
        started = perf_counter_ns()
        instruments = self._providers().instruments
        if instruments.recording():
            try:
                self._add_up(instruments, pending, batch)
            except Exception as error:  # noqa: BLE001  an instrument that raises loses this call state's records only
                pass_on(error)
                self._later.append(partial(internal_error, error))
        pending.batch = None
        return self._spent(started)

    def _report(self, pending: PendingCalls) -> int:
        if pending.accumulator.empty:
            return 0
        started = perf_counter_ns()
        pending.reported()
        try:
            pending.accumulator.report(self._providers().instruments)
        except Exception as error:  # noqa: BLE001  as above
            pass_on(error)
            self._later.append(partial(internal_error, error))
        return self._spent(started)

    def _spent(self, started: int) -> int:
        spent = perf_counter_ns() - started
        self.drain_overhead += spent
        return spent

    def _tell(self) -> None:
        """Do what may log. A handler of the log may do anything, so no lock is held meanwhile."""
        while self._later:
            try:
                call = self._later.popleft()
            except IndexError:
                # Another thread was faster.
                return
            call()

    def _add_up(self, instruments: Instruments, pending: PendingCalls, batch: Batch) -> None:
        series = pending.series
        # Where traces are off, it is not the budget that withholds spans.
        withholding = pending.span_mode == "auto" and self._providers().spans.recording()
        if not batch.parted:
            batch.part(
                io=pending.io, measured=pending.measured, overhead=pending.overhead, withholding=withholding
            )
        # Nothing is called from one addition to what takes it out of the batch, here and below: see `Batch`.
        series.calls += batch.calls
        batch.calls = 0
        self.calls_overhead += batch.overhead
        batch.overhead = 0.0
        try:
            if not batch.seen:
                batch.seen = True
                self._observe(pending, batch)
        finally:
            pending.accumulator.add(instruments, batch)
        if not batch.passed_on:
            batch.passed_on = True
            calls = len(batch.durations) + len(batch.records)
            pending.recorded(batch.spent, calls)
            timeouts = None if pending.timeout is None else batch.timeouts
            failed, late = batch.failed, batch.late
            series.streams.ended(calls, batch.errors, timeouts, failed=failed, late=late)
            self._later.append(self.taken)
        if batch.last is not None:
            total = self.allocated.get(series.key, 0) + batch.written
            series.io_bytes = batch.last.input_bytes + batch.last.output_bytes
            self.allocated[series.key] = total
            batch.last = None

    def _observe(self, pending: PendingCalls, batch: Batch) -> None:
        """Have the windows of the series take the durations."""
        latency, io, moved = pending.series.latency, pending.io, batch.moved
        # What is fixed is not measured at each call. And mostly calls are alike, so that one size is enough.
        if not pending.measured:
            runs = latency.observe_alike(batch.ends, batch.durations, io)
        elif moved and moved.count(moved[0]) == len(moved):
            runs = latency.observe_alike(batch.ends, batch.durations, moved[0] or io)
        else:
            runs = latency.observe(batch.ends, batch.durations, [one or io for one in moved])
        batch.plain = runs
        typical = batch.typical(io)
        if typical:
            pending.series.streams.shown(batch.traced)
            latency.observe(*zip(*typical, strict=True))
