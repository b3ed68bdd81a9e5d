"""The background threads, whatever comes in the midst of their start."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from types import FrameType

import pytest

from otel_quantmon.process.watchdog import Ticket, Watchdog
from otel_quantmon.process.worker import Worker


class Alarm(Exception):  # noqa: N818  as applications name theirs
    """What a handler of a signal raises."""


def at_step(step: int, act: Callable[[], object], call: Callable[[], object]) -> bool:
    """Do ``call``, and ``act`` where a handler comes in for that time; False if there are not so many places."""
    left = step

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        # Before a call of C code, such as the release of a lock, no handler comes in. And what one raises in the
        # midst of Python's own `Thread.start` breaks that.
        above = frame if event.startswith("c_") else frame.f_back
        ours = any(one is not None and "otel_quantmon" in one.f_code.co_filename for one in (frame, above))
        left -= ours and event != "c_call"
        if not left:
            sys.setprofile(None)
            act()

    try:
        sys.setprofile(profile)
        call()
    finally:
        sys.setprofile(None)
    return left <= 0


def raise_alarm() -> None:
    raise Alarm


def alive(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_handler_that_submits_a_job_while_the_thread_is_started_starts_no_second_one() -> None:
    """At whichever step it comes, both jobs are done, by one thread."""
    step = 1
    while True:
        own, done = Worker(f"test-{step}"), list[tuple[str, threading.Thread]]()

        def job(name: str, done: list[tuple[str, threading.Thread]] = done) -> Callable[[], object]:
            return lambda: done.append((name, threading.current_thread()))

        more = at_step(
            step,
            lambda own=own, job=job: own.submit(job("handler")),
            lambda own=own, job=job: own.submit(job("outer")),
        )
        assert own.flush(60)
        if not more:
            break
        assert {name for name, _ in done} == {"handler", "outer"}
        assert len({thread for _, thread in done}) == 1
        assert len(alive(f"test-{step}")) == 1
        step += 1
    assert step > 8


def test_a_handler_that_raises_while_the_thread_is_started_costs_that_job_at_most() -> None:
    """At whichever step it comes, later jobs are done, each once, by one thread."""
    step = 1
    while True:
        own, done = Worker(f"test-{step}"), list[tuple[int, threading.Thread]]()

        def job(number: int, done: list[tuple[int, threading.Thread]] = done) -> Callable[[], object]:
            return lambda: done.append((number, threading.current_thread()))

        try:
            more = at_step(step, raise_alarm, lambda own=own, job=job: own.submit(job(1)))
        except Alarm:
            more = True
        for number in (2, 3, 4):
            own.submit(job(number))
            assert own.flush(60)
        if not more:
            break
        assert [number for number, _ in done] in ([1, 2, 3, 4], [2, 3, 4])
        assert len({thread for number, thread in done if number > 1}) == 1
        step += 1
    assert step > 8


def test_what_a_handler_raises_while_a_job_is_submitted_comes_out_whatever_it_is() -> None:
    """Also a RuntimeError, which the lock that wakes the thread raises itself where it was rung before."""
    own, step = Worker("test-raising"), 1
    own.submit(lambda: None)
    assert own.flush(60)

    def fail() -> None:
        raise RuntimeError("of the application")

    while True:
        raised = False
        try:
            more = at_step(step, fail, lambda: own.submit(lambda: None))
        except RuntimeError as error:
            raised = more = str(error) == "of the application"
        assert raised == more
        if not more:
            break
        step += 1
    assert step > 3
    assert own.flush(60)


def test_a_job_that_submits_itself_again_lets_others_have_their_turn() -> None:
    """Jobs are done in the order in which they are due: one that has waited for its time goes before those after it."""
    own, done, over = Worker("test-turns"), threading.Event(), threading.Event()

    def again() -> None:
        if not over.is_set():
            own.submit(again)

    own.submit(again)
    own.submit(done.set, 0.01)
    try:
        assert done.wait(60)
    finally:
        over.set()


def test_a_job_that_is_due_at_once_or_nearly_so_is_done_without_another_one_coming() -> None:
    """Waits of nothing and of a few microseconds end, however the threads take turns: thousands of them."""
    own = Worker("test-due")
    for delay in (0.0, 1e-7, 1e-6, 1e-5, 1e-4) * 1000:
        done = threading.Event()
        own.submit(lambda: sum(range(2000)))  # meanwhile the next one comes
        own.submit(done.set, delay)
        assert done.wait(60)


def test_a_flush_does_what_is_to_be_flushed_and_nothing_else_that_is_not_due() -> None:
    """However far away it is; what is due later by itself stays where it is."""
    own, done = Worker("test-flush"), list[str]()
    own.submit(lambda: done.append("later"), 3600.0)
    own.submit(lambda: done.append("flushed"), 7200.0, flushed=True)
    own.submit(lambda: done.append("due"))
    assert own.flush(60)
    assert sorted(done) == ["due", "flushed"]
    assert own.flush(60)
    assert sorted(done) == ["due", "flushed"]


# Threads that end by an exception tell of it.
_TOLD = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@_TOLD
def test_a_job_that_exits_does_not_end_the_thread() -> None:
    """As ``sys.exit`` in a hook of the application does: what is submitted later is done all the same."""
    own, done = Worker("test-exit"), threading.Event()
    own.submit(sys.exit)
    own.submit(done.set)
    assert done.wait(60)


@_TOLD
def test_a_thread_that_is_ended_from_outside_is_followed_by_another() -> None:
    """What another thread sets in it costs the job that it is about to begin, at most, and none that is to wait."""
    own, done = Worker("test-ended"), threading.Event()
    own.submit(lambda: None)
    assert own.flush(60)
    (thread,) = alive("test-ended")
    own.submit(done.set, 3600.0)
    assert own.flush(60)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
    )
    while thread.is_alive():
        own.submit(lambda: None)
        thread.join(0.01)
    own.submit(lambda: None)
    assert own.flush(60)
    assert [entry[2] for entry in own._later] == [done.set]
    assert len(alive("test-ended")) == 1


@pytest.mark.parametrize("handler", ["raises", "watches"])
def test_a_handler_while_the_watchdog_is_started_leaves_one_that_works(handler: str) -> None:
    """At whichever step a handler raises or puts a call of its own under watch, calls expire from then on."""
    step = 1
    while True:
        own, expired = Watchdog(), [threading.Event() for _ in range(2)]
        inner, outer, late = (Ticket(expired[0].set), Ticket(lambda: None), Ticket(expired[1].set))
        act = raise_alarm if handler == "raises" else lambda own=own, inner=inner: own.watch(inner, 0.0)
        try:
            more = at_step(step, act, lambda own=own, outer=outer: own.watch(outer, 600.0))
        except Alarm:
            more = True
        own.watch(late, 0.0)
        assert expired[1].wait(60)
        if not more:
            break
        assert handler == "raises" or expired[0].wait(60)
        step += 1
    assert step > 8


def test_a_watchdog_logs_without_its_lock(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure to end a call is told while other calls can be put under watch."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    own, told = Watchdog(), threading.Event()
    owned: list[bool] = []

    def tell(_: object) -> None:
        owned.append(own._wakeup._is_owned())
        told.set()

    monkeypatch.setattr("otel_quantmon.process.watchdog.internal_error", tell)
    own.watch(Ticket(raise_alarm), 0.0)
    assert told.wait(60)
    assert owned == [False]
