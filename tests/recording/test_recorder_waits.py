"""Who waits for whom where records are taken, and what an interrupt or a log handler in the midst of it leaves."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from exported import Exported

from otel_quantmon import guard
from otel_quantmon.models.description import IO, Method, declared_shapes
from otel_quantmon.pipeline import Pipeline
from otel_quantmon.probe.fast_path import observed
from otel_quantmon.process.worker import worker
from otel_quantmon.recording.latency import LatencyMonitor
from recording.engines import INVOKE, Engine, engine_of, loaded, observer_with, run


def _always_on() -> Exported:
    """Providers with which each value is recorded by itself, since any of them may become an exemplar."""
    from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter

    return Exported(exemplar_filter=AlwaysOnExemplarFilter())


@pytest.fixture
def slow() -> Iterator[Exported]:
    exported = _always_on()
    yield exported
    exported.shut_down()


class Announcing:
    """A lock that says when a thread is about to wait for it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.waiting = threading.Semaphore(0)

    def __enter__(self) -> None:
        self.waiting.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


def test_callers_wait_once_too_much_waits(slow: Exported) -> None:
    """While one thread takes records for as long as it likes, no more calls of a kind wait in a call state than four
    times its limit and one for each thread; then the callers wait for it, and nothing is lost.
    """
    pipeline = observer_with(slow, spans="none", warmup=0, queue_size=16)
    engine = engine_of(pipeline)
    run(engine)
    state = engine._quantmon_probe.states[INVOKE]
    assert state is not None
    lock = pipeline.recorder.lock = Announcing(pipeline.recorder.lock)
    with ThreadPoolExecutor(4) as threads:
        with pipeline.recorder.lock:
            assert lock.waiting.acquire(timeout=0)
            working = [threads.submit(lambda: [run(engine) for _ in range(200)]) for _ in range(4)]
            for _ in working:
                assert lock.waiting.acquire(timeout=60)
            # Where a machine is slow, some of the calls are looked at more closely, and wait elsewhere.
            assert 4 * 16 <= max(len(state.durations), len(state.records)) <= 4 * 16 + 4
        for each in working:
            each.result(60)
    assert slow.count() == 801


def test_a_signal_handler_does_not_wait_for_the_call_that_it_interrupts(pipeline: Pipeline) -> None:
    """A call made where the same thread is taking records leaves its own to be taken later, by the next call."""
    engine = engine_of(pipeline)
    with pipeline.recorder.lock:
        for _ in range(1000):
            run(engine)
    state = engine._quantmon_probe.states[INVOKE]
    assert state is not None
    assert len(state.durations) > 4 * pipeline.recorder.limit
    run(engine)
    assert len(state.durations) == 1


def test_a_calibrated_call_may_be_taken_at_once(pipeline: Pipeline) -> None:
    """A collection right after its end, where it is looked at: it is learnt from or not, and nothing is raised."""

    class Taken(list[int]):
        def __len__(self) -> int:
            length = super().__len__()
            self.clear()
            return length

    engine = engine_of(pipeline)
    run(engine)
    state = engine._quantmon_probe.states[INVOKE]
    assert state is not None
    state.durations = Taken()
    state.overhead = 0.0
    state.ask_to_calibrate()
    run(engine)
    assert not state.calibrate
    assert state.overhead > 0.0


def test_judgement_does_not_wait_for_a_thread_that_takes_records(pipeline: Pipeline) -> None:
    """The worker has more to do, and there is no telling when the other one is done; what waits is judged next time."""
    engine = engine_of(pipeline)
    run(engine)
    state = engine._quantmon_probe.states[INVOKE]
    assert state is not None
    with pipeline.recorder.lock, ThreadPoolExecutor(1) as other:
        assert other.submit(pipeline.judging.run).result(60) is False
        assert state.waiting
    assert pipeline.judging.run() is True
    assert not state.waiting


def test_a_handler_that_raises_while_records_are_taken_leaves_the_lock_free(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes out of the middle of a flush, such as an alarm's exception, does not lock the next one out."""

    class Alarm(BaseException):
        pass

    def interrupted(_: object) -> None:
        raise Alarm

    engine = engine_of(pipeline)
    run(engine)
    state = engine._quantmon_probe.states[INVOKE]
    assert state is not None
    for limit in (state.limit, 0):
        state.limit = limit
        with monkeypatch.context() as fault:
            fault.setattr(pipeline.recorder, "_take", interrupted)
            with pytest.raises(Alarm):
                pipeline.recorder.flush(state)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(pipeline.recorder.lock.acquire, blocking=False).result(60)
            other.submit(pipeline.recorder.lock.release).result(60)


def test_a_handler_that_raises_at_any_step_of_adding_up_costs_no_call(
    pipeline: Pipeline, exported: Exported
) -> None:
    """Interrupted once at each call of a function and after each return in a flush, where alone a signal's handler can
    come in, every later collection has all calls, their bytes, batch sizes and the spans that were withheld, once.
    """

    class Alarm(BaseException):
        pass

    model = loaded("net", io=None)
    measure = Method("invoke", lambda *_: IO(3, 5, 7), declared_shapes)
    engine = engine_of(pipeline, model, spans="auto", span_budget=1e-9)
    probe = engine._quantmon_probe
    state = probe.state(measure)
    assert state is not None
    run_measured = observed(
        Engine.invoke, measure, lambda engine, method: engine._quantmon_probe.state(method)
    )

    def work() -> None:
        for number in range(6):
            # Every other one leaves a record with its outcome.
            state.to_warm_up, state.look_at = number % 2, 0
            run_measured(engine)

    def interrupted(step: int) -> bool:
        left = step

        def profile(_frame: object, event: str, _argument: object) -> None:
            nonlocal left
            # A handler runs after a call of a built-in function, never in place of it.
            left -= event != "c_call"
            if not left:
                sys.setprofile(None)
                raise Alarm

        over = False
        try:
            sys.setprofile(profile)
            pipeline.recorder.flush(state)
            over = True
            sys.setprofile(None)
        except Alarm:
            pass
        return not over

    work()
    exported.raw_metrics()
    assert worker.flush(60)
    step, calls = 1, 6
    while True:
        work()
        calls += 6
        if not interrupted(step):
            break
        step += 1
        # In turns by what comes next: another flush, or a collection.
        if step % 3 == 0:
            assert exported.count() == calls
    assert step > 50
    assert exported.count() == calls
    assert state.series.calls == calls
    assert exported.point("quantmon.inference.batch_size").count == calls
    assert exported.point("quantmon.memory.allocated").value == 7 * calls
    assert exported.point("quantmon.spans.suppressed").value == calls
    assert not state.waiting


def test_nothing_is_logged_while_the_lock_is_held(
    pipeline: Pipeline, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log handler finds the recorder free, at an anomaly and at a failure of ours: another thread may be at it that
    the handler waits for.
    """
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    monkeypatch.setattr(guard, "_reported", set())
    owned: list[bool] = []

    class Handler(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            owned.append(pipeline.recorder.lock._is_owned())
            run(engine)

    def failing(*_: object) -> None:
        raise ValueError

    engine = engine_of(pipeline)
    handler = Handler()
    logging.getLogger("otel_quantmon").addHandler(handler)
    try:
        for _ in range(17):
            run(engine)
        for series in pipeline.live_series():
            series.streams.fact("model_changed", "Other", 1.0, 1.0)
        pipeline.judging.run(at_once=True)
        assert owned == [False]
        monkeypatch.setattr(LatencyMonitor, "observe_alike", failing)
        monkeypatch.setattr(LatencyMonitor, "observe", failing)
        exported.raw_metrics()
        assert owned == [False, False]
    finally:
        logging.getLogger("otel_quantmon").removeHandler(handler)
