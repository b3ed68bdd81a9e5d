"""`InferenceSession.run_async` on its short way: calls of which nothing is wanted but their times."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from packaging.version import Version

from otel_quantmon.probe.call_state import CallState
from otel_quantmon.process.worker import worker

from .models import doubling, until_told

Instrument = Callable[..., None]

X = np.ones((2, 3), np.float32)


def session_of(exported: Exported) -> Any:
    """A session of which everything is known that is read in the background."""
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    exported.raw_metrics()
    return session


def state_of(session: Any) -> CallState:
    """The state of the calls of `run_async`."""
    [state] = [
        state for method, state in session._quantmon_probe.states.items() if method.name == "run_async"
    ]
    return state


def run_async(session: Any, *options: Any, **named: Any) -> None:
    """Make one call and wait until its callback has ended."""
    over = threading.Event()
    session.run_async(None, {"x": X}, lambda *_: over.set(), None, *options, **named)
    assert over.wait(60)


def test_calls_wait_in_columns_until_they_are_recorded(exported: Exported, instrument: Instrument) -> None:
    """Each is a time and a size in the columns, also with options by position; a keyword costs the longer way only."""
    instrument(spans="none", warmup=0)
    session = session_of(exported)
    run_async(session)
    state = state_of(session)
    waiting = len(state.durations), len(state.records)
    for _ in range(10):
        run_async(session)
    run_async(session, onnxruntime.RunOptions())
    assert (len(state.durations), len(state.records)) == (waiting[0] + 11, waiting[1])
    assert len(state.ends) == len(state.moved) == len(state.durations)
    run_async(session, run_options=onnxruntime.RunOptions())
    assert len(state.records) == waiting[1] + 1
    assert exported.count() == 13
    assert exported.point("quantmon.inference.batch_size").sum == 26
    assert exported.point("quantmon.memory.allocated").value == 13 * 24
    assert exported.point("quantmon.inference.active").value == 0


def test_the_cost_of_a_call_is_learnt(exported: Exported, instrument: Instrument) -> None:
    """One call is calibrated, and what it took on both threads is what the like are said to cost."""
    instrument(spans="none", warmup=0)
    session = session_of(exported)
    run_async(session)
    state = state_of(session)
    assert 0 < state.overhead < 1e9
    assert not state.slow


def test_what_is_found_while_a_call_runs_is_shown_by_it(exported: Exported, instrument: Instrument) -> None:
    """An anomaly that was found after the call began is on its span, and the next call is a plain one again."""
    instrument(spans="auto", warmup=0)
    session = session_of(exported)
    run_async(session)
    state = state_of(session)
    over = threading.Event()

    class Feeds(dict[str, Any]):
        """Feeds that are read on the caller's thread, after the call has begun."""

        def keys(self) -> Any:
            state.show_anomaly("timeout")
            return super().keys()

    session.run_async(None, Feeds(x=X), lambda *_: over.set(), None)
    assert over.wait(60)
    assert state.anomaly is None
    assert "quantmon.anomaly.type='timeout'" in exported.spans()
    run_async(session)
    run_async(session)
    assert not state.slow


@pytest.mark.parametrize("spans", ["none", "auto"])
def test_a_call_that_is_refused_at_once_counts_once(
    spans: str, exported: Exported, instrument: Instrument
) -> None:
    """The session's own exception reaches the caller, no call stays active, and the failure is counted."""
    instrument(spans=spans, warmup=0)
    session = session_of(exported)
    for _ in range(3):
        run_async(session)
    with pytest.raises(ValueError, match="input"):
        session.run_async(None, {}, lambda *_: None, None)
    assert exported.count() == 4
    assert exported.count(error_type="ValueError") == 1
    assert exported.point("quantmon.inference.active").value == 0


@pytest.mark.parametrize("spans", ["auto", "all"])
def test_the_callback_is_called_after_an_exception_that_is_passed_on(
    spans: str, exported: Exported, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has the form of a debugger's exception comes out of the observation on either way: ONNX Runtime drops it on
    its thread, and the application, which waits for its callback, would have hung.
    """
    raised: list[type[Exception]] = []

    def interrupt(_frame: object) -> None:
        raised.append(TimeoutError)
        raise TimeoutError

    def hook(*_: Any) -> None:
        # In the last call alone: after one that raised, ONNX Runtime 1.16 runs no callback any more.
        if last:
            interrupt(sys._getframe())

    last = False
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    instrument(spans=spans, response_hook=hook)
    session = session_of(exported)
    with exported.tracer.start_as_current_span("request"):
        for _ in range(3):
            run_async(session)
        assert state_of(session).slow is (spans == "all")
        last = True
        run_async(session)
    assert exported.count() == 4
    assert raised == [TimeoutError]


# Up to 1.23 at least, such a process hangs or ends by SIGSEGV without us too; 1.32 keeps what it runs.
_DROPPED = pytest.mark.skipif(
    Version(onnxruntime.__version__) < Version("1.32"),
    reason="this release of ONNX Runtime does not keep a session that is dropped while it runs",
)


class UnderWay:
    """Calls that last until they are told, of a session that nothing else refers to when it is dropped.

    Attributes:
        died: Name of the thread on which the session died.
        over: Set when the callback of the last call has been called.
    """

    def __init__(self, exported: Exported) -> None:
        self.died: list[str] = []
        self.over = threading.Event()
        self._told = np.zeros((), np.int64)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self._session: Any = onnxruntime.InferenceSession(
            until_told(), options, providers=["CPUExecutionProvider"]
        )
        exported.raw_metrics()
        # The paths of the first calls are others: they warm up and are calibrated.
        for _ in range(3):
            self.start()
            self.tell()
            assert self.over.wait(60)
        # What hooks were given is let go of by the worker.
        assert worker.flush(60)
        weakref.finalize(self._session, lambda: self.died.append(threading.current_thread().name))

    def start(self) -> None:
        """Begin a call."""
        self._told[()] = 0
        self.over.clear()
        feeds = {"x": X, "told": self._told}
        self._session.run_async(None, feeds, lambda *_: self.over.set(), None)

    def drop(self) -> None:
        """Let go of the session."""
        del self._session

    def tell(self) -> None:
        """Have the call end."""
        self._told[()] = 1


@_DROPPED
@pytest.mark.parametrize(
    "settings",
    [{"spans": "none"}, {"spans": "all"}, {"timeout": 600.0}, {"response_hook": lambda *_: None}],
    ids=["times alone", "a span", "a timeout", "a hook"],
)
def test_a_session_that_is_dropped_while_a_call_runs_dies_where_it_is_dropped(
    settings: dict[str, Any], exported: Exported, instrument: Instrument
) -> None:
    """As without us: on the thread of ONNX Runtime, that and the main thread may wait for each other for ever."""
    instrument(**settings)
    calls = UnderWay(exported)
    calls.start()
    calls.drop()
    died = list(calls.died)
    calls.tell()
    assert calls.over.wait(60)
    assert died == [threading.current_thread().name]
    assert exported.count() == 4


@_DROPPED
def test_a_session_that_is_dropped_while_a_hook_has_it_does_not_die_on_the_runtimes_thread(
    exported: Exported, instrument: Instrument
) -> None:
    """The hook is given the session, and when it was the last to have it, a thread of ours lets go of it."""
    entered, dropped = threading.Event(), threading.Event()
    given: list[str] = []
    last = False

    def hook(_span: Any, call: Any, *_: Any) -> None:
        given.append(type(call.instance).__name__)
        if last:
            entered.set()
            assert dropped.wait(60)

    instrument(response_hook=hook)
    calls = UnderWay(exported)
    last = True
    calls.start()
    calls.tell()
    assert entered.wait(60)
    calls.drop()
    assert calls.died == []
    dropped.set()
    assert calls.over.wait(60)
    assert worker.flush(60)
    assert calls.died == ["otel-quantmon"]
    assert given == ["InferenceSession"] * 4
