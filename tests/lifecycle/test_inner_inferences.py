"""Finalizers and log handlers of the application that run an inference where one is observed."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from contextlib import suppress
from typing import Any

import pytest
from exported import Exported

from lifecycle.faults import fail
from lifecycle.models import X, one_op_session
from otel_quantmon import InferenceTimeoutError, guard
from otel_quantmon.process.worker import worker
from otel_quantmon.recording.latency import LatencyMonitor
from otel_quantmon.settings import Settings

pytestmark = pytest.mark.usefixtures("production")


@pytest.mark.parametrize(
    "settings", [Settings(), Settings(spans="all", timeout=30.0, queue_size=2)], ids=["fast", "slow"]
)
def test_a_finalizer_runs_an_inference(settings: Settings, exported: Exported, instrumentor: Any) -> None:
    """At every allocation garbage may be collected, and a finalizer of the application's run the same session: each
    call returns, and none stays in flight.
    """
    instrumentor.instrument(**exported.providers, settings=settings)
    session = one_op_session()

    class Cycle:
        def __init__(self) -> None:
            self.me = self

    finalized: list[None] = []

    def infer() -> None:
        session.run(None, X)
        finalized.append(None)

    thresholds = gc.get_threshold()
    gc.set_threshold(3, 1, 1)
    try:
        for _ in range(300):
            weakref.finalize(Cycle(), infer)
            session.run(None, X)
    finally:
        gc.set_threshold(*thresholds)
    # While another thread collects, such as the worker, `gc.collect` does nothing.
    assert worker.flush(60)
    gc.collect()
    assert len(finalized) == 300
    assert exported.active() == 0


def test_an_inference_of_a_finalizer_on_a_thread_of_ours_is_counted(
    exported: Exported, instrumentor: Any
) -> None:
    """Garbage of the application's may be collected there too, and what its finalizers run is the application's."""
    instrumentor.instrument(**exported.providers)
    session = one_op_session()
    session.run(None, X)
    assert worker.flush(60)

    class Cycle:
        def __init__(self) -> None:
            self.me = self

    gc.disable()
    try:
        weakref.finalize(Cycle(), session.run, None, X)
        worker.submit(gc.collect)
        assert worker.flush(60)
    finally:
        gc.enable()
    assert exported.calls() == 2


def test_a_log_handler_runs_an_inference(
    exported: Exported, instrumentor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that runs an inference for each message, itself and on another thread that it waits for, keeps nobody
    waiting, whatever we have to say: of an anomaly, or of a failure of our own.
    """
    monkeypatch.setattr(guard, "_reported", set())
    settings = Settings(timeout=1e-9, queue_size=1, warmup=0)
    instrumentor.instrument(**exported.providers, settings=settings)
    session = one_op_session()
    levels: list[int] = []

    def infer() -> None:
        with suppress(InferenceTimeoutError):
            session.run(None, X)

    class Handler(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            # Logging's own lock, not ours, would keep a thread waiting that has something to say meanwhile.
            self.emit(record)
            return True

        def emit(self, record: logging.LogRecord) -> None:
            levels.append(record.levelno)
            infer()
            other = threading.Thread(target=infer)
            other.start()
            other.join(60)
            assert not other.is_alive()

    handler = Handler()
    logging.getLogger("otel_quantmon").addHandler(handler)
    try:
        for _ in range(10):
            infer()
        with monkeypatch.context() as fault:
            fault.setattr(LatencyMonitor, "observe", fail)
            fault.setattr(LatencyMonitor, "observe_alike", fail)
            fault.setattr(LatencyMonitor, "summary", fail)
            infer()
            exported.calls()
    finally:
        logging.getLogger("otel_quantmon").removeHandler(handler)
    assert logging.ERROR in levels
    assert exported.active() == 0
