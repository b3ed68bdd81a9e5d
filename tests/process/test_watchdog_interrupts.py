"""A signal's handler that raises while the watchdog is told of a call."""

from __future__ import annotations

import signal
import threading

from otel_quantmon.process.watchdog import Ticket, Watchdog


class LateError(Exception):
    """What the handler raises."""


def test_a_handler_that_raises_at_any_moment_leaves_no_lock_of_the_watchdog_held() -> None:
    """After each of 5,000 times in `watch` and `cancel` other threads get it."""
    watchdog = Watchdog()
    # One that never runs: a second thread would want the interpreter at each ticket, and each signal wait for it.
    watchdog._thread = threading.Thread()
    raised = 0

    def handle(_number: int, _frame: object) -> None:
        raise LateError

    def until_raised() -> None:
        signal.setitimer(signal.ITIMER_REAL, 50e-6 + 1e-6 * (raised % 100))
        while True:
            later, sooner = Ticket(lambda: None), Ticket(lambda: None)
            watchdog.watch(later, 60)
            watchdog.watch(sooner, 50)
            watchdog.cancel(later)
            # Takes both out, in a loop.
            watchdog.cancel(sooner)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        while raised < 5_000:
            try:
                # A function of its own: here the jump back of the loop would be in a block as well.
                until_raised()
            except LateError:  # noqa: PERF203  it is what is tested
                raised += 1
                assert not watchdog._lock._is_owned()
                # Nobody takes out the tickets of those that were cut short, and all are looked through each time.
                watchdog._due.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
