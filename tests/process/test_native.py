"""What the end of a process does about this project's own calls of a runtime."""

from __future__ import annotations

import threading

from otel_quantmon.process import fork
from otel_quantmon.process.native import NativeCalls, native_calls

_SECONDS = 60


def under_way(calls: NativeCalls, let_go: threading.Event) -> threading.Thread:
    """A thread in the midst of a call, which comes back when it is let go."""
    begun = threading.Event()

    def call() -> None:
        with calls.allowed() as allowed:
            assert allowed
            begun.set()
            let_go.wait(_SECONDS)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    assert begun.wait(_SECONDS)
    return thread


def test_the_end_waits_for_each_call_and_no_other_one_is_allowed() -> None:
    """It comes back when the last of them is over, at once where there is none, and none is allowed from then on."""
    calls, let_go = NativeCalls(), threading.Event()
    threads = [under_way(calls, let_go) for _ in range(2)]
    ended: list[bool] = []
    ending = threading.Thread(target=lambda: ended.append(calls.end(_SECONDS)), daemon=True)
    ending.start()
    while not calls._ending:
        ending.join(0.001)
    with calls.allowed() as allowed:
        assert not allowed
    assert ended == []
    let_go.set()
    for thread in (*threads, ending):
        thread.join(_SECONDS)
    assert ended == [True]
    assert calls.end(0.0)


def test_a_call_that_hangs_does_not_hold_the_end() -> None:
    """What does not come back is left behind when the time for it is over."""
    calls, let_go = NativeCalls(), threading.Event()
    thread = under_way(calls, let_go)
    try:
        assert not calls.end(0.01)
    finally:
        let_go.set()
        thread.join(_SECONDS)


def test_a_child_does_not_wait_for_the_calls_of_its_parent() -> None:
    """Their threads are not in the child, so they would never be over."""
    let_go = threading.Event()
    thread = under_way(native_calls, let_go)
    fork._after_fork_in_child()
    try:
        assert native_calls._under_way == []
    finally:
        let_go.set()
        thread.join(_SECONDS)
