"""Background threads, for what may wait."""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Callable
from itertools import count
from time import monotonic, perf_counter_ns
from typing import TypeAlias

from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_quantmon.guard import internal_error

__all__ = ["Worker", "reference_worker", "worker"]

Job: TypeAlias = Callable[[], object]


class Worker:
    """Runs jobs one after another on a daemon thread, which starts with the first of them.

    Attributes:
        busy: nanoseconds spent in jobs so far.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.reset()

    def reset(self) -> None:
        """Begin anew without a thread; in a child after fork the old one does not exist."""
        self._jobs: queue.SimpleQueue[tuple[float, Job]]
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.busy = 0

    def submit(self, job: Job, delay: float = 0.0) -> None:
        """Have ``job`` run in ``delay`` seconds. What it raises is reported as a failure of this project."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._start()
        self._jobs.put((monotonic() + delay if delay else 0.0, job))

    def _start(self) -> None:
        # The queue is made with the thread: gevent may have replaced both since this module was imported, and its
        # threads in a queue of the standard library would stop the whole process.
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # No thread to be had, or the interpreter is ending: no job may wait, with a model in it, for nobody.
            self._thread = None
            raise

    def flush(self, timeout: float) -> bool:
        """Wait until the jobs that are due by now are done; False if that takes more than ``timeout`` seconds."""
        if self._thread is None:
            return True
        done = threading.Event()
        self.submit(done.set)
        return done.wait(timeout)

    def _run(self) -> None:
        jobs = self._jobs
        order = count()
        later: list[tuple[float, int, Job]] = []
        # What runs here, such as a replay, is not the application's.
        with suppress_instrumentation():
            while True:
                wait = max(0.0, later[0][0] - monotonic()) if later else None
                try:
                    due, job = jobs.get(timeout=wait)
                    if due:
                        heapq.heappush(later, (due, next(order), job))
                        continue
                except queue.Empty:
                    job = heapq.heappop(later)[2]
                started = perf_counter_ns()
                try:
                    job()
                except Exception as error:  # noqa: BLE001  the guard of the project
                    _report(error)
                # The job may be the last to hold a model's buffer.
                del job
                self.busy += perf_counter_ns() - started


def _report(error: Exception) -> None:
    try:
        internal_error(error)
    except Exception:  # noqa: BLE001  raised again under pytest: the test is to hear of it, the thread to live on
        threading.excepthook(threading.ExceptHookArgs([type(error), error, error.__traceback__, None]))


worker = Worker("otel-quantmon")

reference_worker = Worker("otel-quantmon-reference")
"""Only waits for the reference's process, which at its low priority may take its time."""
