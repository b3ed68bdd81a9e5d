"""A handler of a signal that raises, or runs an inference, in the midst of one: the application hears of it."""

from __future__ import annotations

import enum
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
from exported import Exported
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from real_models import wake_word

from lifecycle.faults import TimeLimit, fail
from lifecycle.models import X, one_op_session, wake_word_interpreter
from otel_quantmon import guard
from otel_quantmon.process.worker import worker
from otel_quantmon.settings import Settings

pytestmark = pytest.mark.usefixtures("production")

# Each at another moment of a call, of which most fall into the runtime: so many that some fall everywhere.
_RAISED = 3_000


class _Alarm:
    """Raises ``kind`` in the main thread at some moment after `set`, once, and counts."""

    def __init__(self, kind: type[Exception]) -> None:
        self.raised = 0
        self.kind = kind
        self._random = random.Random(7)

    def set(self, most: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._random.uniform(1e-6, most))

    def handle(self, _number: int, _frame: object) -> None:
        self.raised += 1
        raise self.kind


@pytest.fixture(params=[TimeLimit, TimeoutError])
def alarm(request: pytest.FixtureRequest) -> Iterator[_Alarm]:
    """Of a class of the application's, and of one that much of what is called here knows as an `OSError`."""
    alarm = _Alarm(request.param)
    before = signal.signal(signal.SIGALRM, alarm.handle)
    yield alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class _Kept(SpanProcessor):
    """Does nothing that can swallow an exception, which the SDK's own processors do."""


_SETTINGS = {
    "without spans": Settings(spans="none", queue_size=8),
    "with spans": Settings(spans="all"),
    "with a timeout": Settings(timeout=30.0),
    "with samples": Settings(check_budget=1.0, queue_size=2, warmup=0),
}


def _session() -> tuple[Any, Callable[[], object]]:
    session = one_op_session()
    return session, lambda: session.run(None, X)


def _interpreter() -> tuple[Any, Callable[[], object]]:
    interpreter = wake_word_interpreter()
    return interpreter, lambda: interpreter.invoke()  # noqa: PLW0108  bound late, see `runner`


def _compiled() -> tuple[Any, Callable[[], object]]:
    module = pytest.importorskip(
        "ai_edge_litert.compiled_model", reason="LiteRT 1 has no compiled models", exc_type=ImportError
    )
    model = module.CompiledModel.from_file(str(wake_word()))
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(np.ones(120, np.int8))
    return model, lambda: model.run_by_index(0, inputs, outputs)


_CALLED = {"onnxruntime": _session, "litert": _interpreter, "compiled": _compiled}


@pytest.mark.parametrize("settings", _SETTINGS.values(), ids=list(_SETTINGS))
@pytest.mark.parametrize("kind", ["onnxruntime", "litert", "compiled"])
def test_what_a_signal_handler_raises_reaches_the_application(
    kind: str,
    settings: Settings,
    alarm: _Alarm,
    exported: Exported,
    instrumentor: Any,
    tflite_instrumentor: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of thousands of exceptions at any moment of a call none is lost, and no call that was completed is missing from
    the counts; nothing stays in flight, the columns of a call state's records keep in step, and no failure of ours is
    told.
    """
    providers = exported.providers | {"tracer_provider": TracerProvider(shutdown_on_exit=False)}
    providers["tracer_provider"].add_span_processor(_Kept())
    for one in (instrumentor, tflite_instrumentor):
        one.instrument(**providers, settings=settings)
    holder, call = _CALLED[kind]()
    for _ in range(50):
        call()
    # From then on the histogram takes counts.
    assert worker.flush(60)
    before_all = exported.count()
    caught = completed = 0
    # In a callback of a weak reference or of garbage collection Python itself cannot pass an exception on.
    unraisable: list[str] = []
    monkeypatch.setattr(
        sys,
        "unraisablehook",
        lambda unraised: unraisable.append(str(getattr(unraised.object, "__module__", ""))),
    )

    def until_raised() -> None:
        nonlocal completed
        before = alarm.raised
        alarm.set(150e-6)
        while alarm.raised == before:
            call()
            completed += 1

    while alarm.raised < _RAISED:
        try:
            # A function of its own: from Python 3.12 on, the jump that closes a loop may be outside of the `try`.
            until_raised()
        except alarm.kind:  # noqa: PERF203  each one is caught
            caught += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert caught + len(unraisable) == alarm.raised
    assert not [module for module in unraisable if "quantmon" in module]
    call()
    (state,) = holder._quantmon_probe.states.values()
    assert not state.in_flight
    assert len(state.ends) == len(state.durations)
    assert len(state.moved) == (len(state.durations) if state.measure is not None else 0)
    assert exported.active() == 0
    # One that was cut short may be counted or not.
    assert completed < exported.count() - before_all <= completed + 1 + caught
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_handler_that_runs_an_inference_is_not_kept_waiting(exported: Exported, instrumentor: Any) -> None:
    """With a timeout set, a handler may come between any two steps of a call and run the same session itself."""
    instrumentor.instrument(**exported.providers, settings=Settings(timeout=30.0, check_budget=1.0))
    session = one_op_session()
    random_moment = random.Random(3)
    ran = 0

    def handle(_number: int, _frame: object) -> None:
        nonlocal ran
        session.run(None, X)
        ran += 1

    before = signal.signal(signal.SIGALRM, handle)
    try:
        while ran < 1_000:
            expected = ran + 1
            signal.setitimer(signal.ITIMER_REAL, random_moment.uniform(1e-6, 100e-6))
            while ran < expected:
                session.run(None, X)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert exported.active() == 0


def test_interrupts_leave_nothing_in_flight(
    exported: Exported, instrumentor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 25,142 times Ctrl+C, at any moment of a call, no call is in flight, and none that was over is missing."""
    instrumentor.instrument(**exported.providers)
    session = one_op_session()
    random_moment = random.Random(5)
    for _ in range(50):
        session.run(None, X)
    assert worker.flush(60)
    before_all = exported.calls()
    completed = interrupted = raised = 0
    # In a callback of garbage collection, as hypothesis has one, Python itself cannot pass an exception on.
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def handle(_number: int, _frame: object) -> None:
        nonlocal raised
        raised += 1
        raise KeyboardInterrupt

    def until_raised() -> None:
        nonlocal completed
        expected = raised + 1
        signal.setitimer(signal.ITIMER_REAL, random_moment.uniform(1e-6, 60e-6))
        while raised < expected:
            session.run(None, X)
            completed += 1

    before = signal.signal(signal.SIGALRM, handle)
    try:
        while raised < 25_142:
            try:
                # A function of its own, see above.
                until_raised()
            except KeyboardInterrupt:  # noqa: PERF203  it is what is tested
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    session.run(None, X)
    assert interrupted + len(unraisable) == raised
    assert exported.active() == 0
    assert completed < exported.calls() - before_all <= completed + 1 + interrupted


def test_what_a_wait_makes_of_a_time_limit_is_the_time_limit() -> None:
    """A handler that raises where `threading.Condition.wait`, as in `Thread.start`, has let go of its lock is told by
    Python as a lock that is not held: not of ours, and the application gets what it has raised.
    """

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code.co_name == "_release_save":
            sys.setprofile(None)
            signal.raise_signal(signal.SIGALRM)

    def handle(_number: int, _frame: object) -> None:
        raise TimeLimit

    def wait() -> None:
        with guard.guarded:
            sys.setprofile(profile)
            threading.Event().wait(60)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        with pytest.raises(TimeLimit) as raised:
            wait()
    finally:
        sys.setprofile(None)
        signal.signal(signal.SIGALRM, before)
    assert isinstance(raised.value.__context__, RuntimeError)


def test_what_the_application_has_handled_before_is_not_raised_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A failure of ours in a call that is made while a time limit is handled is ours, and told."""

    def handle(_number: int, _frame: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.raise_signal(signal.SIGALRM)
    except TimeLimit:
        _fail_under_the_guard()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


class _Label(enum.Enum):
    """Labels that a hook makes of results."""

    CAT = "cat"


def test_an_enumerations_error_is_not_a_handlers(caplog: pytest.LogCaptureFixture) -> None:
    """Signals that are left alone have members of an enumeration for handlers. A hook that makes a member of one of its
    own, of a value that has none, fails in the same method: it stays inside, and is told.
    """
    with guard.guarded:
        _Label("dog")
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


def test_a_handler_that_is_an_object_lets_go_of_its_frame() -> None:
    """It is known by the code of its class, whichever class of its bases that is in."""

    class Limit:
        def __call__(self, number: int, frame: object) -> None:
            del frame
            raise TimeLimit

    class Derived(Limit):
        pass

    def work() -> None:
        with guard.guarded:
            signal.raise_signal(signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, Derived())
    try:
        with pytest.raises(TimeLimit):
            work()
    finally:
        signal.signal(signal.SIGALRM, before)


def _fail_under_the_guard() -> None:
    with guard.guarded:
        fail()
