"""Background threads, for what may wait."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from time import monotonic, perf_counter_ns
from typing import TypeAlias

from otel_quantmon.guard import internal_error, pass_on

__all__ = ["Worker", "reference_worker", "worker"]

Job: TypeAlias = Callable[[], object]
# When it is due, and whether a flush does it at once.
_Entry: TypeAlias = tuple[float, Job, bool]


# Before all that has a time.
_FIRST = 0.0


class _Inbox:
    """Jobs that threads and handlers of signals leave for one thread.

    Not a `queue.SimpleQueue`: up to Python 3.12 its ``get`` with a timeout can wait for ever, where the time is up
    before it has looked twice (it then passes what is left of it, a negative number, to a lock).
    """

    def __init__(self) -> None:
        self._waiting: deque[_Entry] = deque()
        # Held until something is left here. It has no owner, so a handler may come in between wherever it likes.
        self._bell = threading.Lock()
        self._bell.acquire()

    def put(self, entry: _Entry) -> None:
        """Leave a job."""
        try:
            self._waiting.append(entry)
        finally:
            # If it is not, it was rung before, and who looks now finds this too. Asked first for gevent, whose lock
            # raises from frames of its own, which would look like the application's.
            if self._bell.locked():
                try:
                    self._bell.release()
                except RuntimeError as error:
                    # Another thread rang it in between; unless it is of a signal's handler.
                    pass_on(error)

    def get(self, timeout: float) -> _Entry | None:
        """Return the oldest, None if there is none within ``timeout`` seconds, or none yet."""
        if not self._waiting:
            self._bell.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
        try:
            return self._waiting.popleft()
        except IndexError:
            return None


class Worker:
    """Runs jobs one after another on a daemon thread, which starts with the first of them.

    Attributes:
        busy: Nanoseconds spent in jobs so far, without what counts elsewhere.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.reset()

    def reset(self) -> None:
        """Begin anew without a thread; in a child after fork the old one does not exist."""
        # It is made with the thread: gevent may have replaced both since this module was imported, and its threads at a
        # lock of the standard library would stop the whole process.
        self._jobs: _Inbox | None = None
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        # What is not yet due. It outlives the thread.
        self._later: list[tuple[float, int, Job, bool]] = []
        self._order = count()
        self.busy = 0
        self._elsewhere = 0

    def counts_elsewhere(self, nanoseconds: int) -> None:
        """Take note that so much of the present job is counted by somebody else; in another thread nothing."""
        if threading.current_thread() is self._thread:
            self._elsewhere += nanoseconds

    def submit(self, job: Job, delay: float = 0.0, *, flushed: bool = False) -> None:
        """Have ``job`` run in ``delay`` seconds, after those that are due before it.

        What it raises is reported as a failure of this project. If it is to be ``flushed``, a flush does it at once.
        """
        if self._thread is None or self._jobs is None:
            with self._lock:
                jobs = self._start()
        else:
            jobs = self._jobs
        jobs.put((monotonic() + delay, job, flushed))

    def _start(self) -> _Inbox:
        jobs = self._jobs or _Inbox()
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        # A handler of a signal may have come here meanwhile, in the same thread. From here on nothing is called.
        if self._jobs is None:
            self._jobs = jobs
        jobs = self._jobs
        if self._thread is not None:
            return jobs
        self._thread = thread
        try:
            thread.start()
        except BaseException:
            # No thread to be had, or the interpreter is ending; or a handler has raised, and the thread may be there or
            # not: if it is, it finds that it is no longer the one, and ends.
            self._thread = None
            jobs.put((monotonic(), _nothing, False))
            raise
        return jobs

    def flush(self, timeout: float) -> bool:
        """Wait until the jobs that are due by now are done, and those that are to be flushed.

        False if it takes more than ``timeout`` seconds.
        """
        jobs = self._jobs
        if self._thread is None or jobs is None:
            return True
        done = threading.Event()
        jobs.put((_FIRST, self._bring_forward, False))
        jobs.put((monotonic(), done.set, False))
        return done.wait(timeout)

    def _bring_forward(self) -> None:
        later = self._later
        later[:] = [(_FIRST if flushed else due, n, job, flushed) for due, n, job, flushed in later]
        heapq.heapify(later)

    def _run(self) -> None:
        jobs = self._jobs
        if jobs is None:
            return
        try:
            self._work(jobs)
        finally:
            # Where another thread has ended this one by an exception, the next job starts another.
            if self._thread is threading.current_thread():
                self._thread = None

    def _work(self, jobs: _Inbox) -> None:
        """Run jobs in the order in which they are due, until this is no longer the thread for them.

        A job that submits itself again and again, however soon, thus lets all others have their turn.
        """
        me, later, order = threading.current_thread(), self._later, self._order
        while True:
            wait = later[0][0] - monotonic() if later else threading.TIMEOUT_MAX
            got = jobs.get(max(wait, 0.0))
            if got is not None:
                if self._thread is not me:
                    jobs.put(got)
                    return
                due, job, flushed = got
                heapq.heappush(later, (due, next(order), job, flushed))
                continue
            if not later or later[0][0] > monotonic():
                continue
            job = heapq.heappop(later)[2]
            self._elsewhere = 0
            started = perf_counter_ns()
            try:
                job()
            except BaseException as error:  # noqa: BLE001  the guard of the project; nor does an exit in a hook end all
                _report(error)
            # The job may be the last to hold a model's buffer.
            del job
            self.busy += perf_counter_ns() - started - self._elsewhere


def _nothing() -> None:
    """A job that wakes a thread."""


def _report(error: BaseException) -> None:
    # Raised again under pytest: the test is to hear of it, the thread to live on.
    with suppress(Exception):
        if isinstance(error, Exception):
            internal_error(error)
            return
    threading.excepthook(threading.ExceptHookArgs([type(error), error, error.__traceback__, None]))


worker = Worker("otel-quantmon")

reference_worker = Worker("otel-quantmon-reference")
"""Only waits for the reference's process, which at its low priority may take its time."""
