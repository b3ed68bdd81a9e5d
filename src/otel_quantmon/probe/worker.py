"""The one background thread of a process, for what may wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter_ns

from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_quantmon.guard import internal_error

__all__ = ["Worker", "worker"]


class Worker:
    """Runs jobs one after another on a daemon thread, which starts with the first of them.

    Attributes:
        busy: nanoseconds spent in jobs so far.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew without a thread; in a child after fork the old one does not exist."""
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.busy = 0

    def submit(self, job: Callable[[], object]) -> None:
        """Have ``job`` run soon. What it raises is reported as a failure of this project."""
        self._jobs.put(job)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="otel-quantmon", daemon=True)
                    self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until the jobs submitted so far are done; False if that takes more than ``timeout`` seconds."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._jobs.put(done.set)
        return done.wait(timeout)

    def _run(self) -> None:
        jobs = self._jobs
        # What runs here, such as a reference model, is not the application's.
        with suppress_instrumentation():
            while True:
                job = jobs.get()
                started = perf_counter_ns()
                try:
                    job()
                except Exception as error:  # noqa: BLE001  the guard of the project
                    internal_error(error)
                # The job may be the last to hold a model's buffer.
                del job
                self.busy += perf_counter_ns() - started


worker = Worker()
