"""The thread that ends overdue calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from otel_quantmon.process.watchdog import Ticket, Watchdog


@pytest.fixture
def watchdog() -> Watchdog:
    """One that nothing else uses; its thread, if it starts one, is a daemon that sleeps from then on."""
    return Watchdog()


def tickets() -> Iterator[tuple[Ticket, threading.Event]]:
    while True:
        expired = threading.Event()
        yield Ticket(expired.set), expired


def test_a_ticket_expires_at_its_deadline_not_before(watchdog: Watchdog) -> None:
    """It is told to end, and knows that it is overdue."""
    ticket, expired = next(tickets())
    began = monotonic()
    watchdog.watch(ticket, 0.05)
    assert expired.wait(60)
    assert monotonic() - began >= 0.05
    assert ticket.overdue


def test_tickets_expire_in_the_order_of_their_deadlines(watchdog: Watchdog) -> None:
    """Also one whose deadline is before that which the thread already waits for."""
    (late, late_expired), (early, early_expired), *_ = (
        pair for pair, _ in zip(tickets(), range(2), strict=False)
    )
    watchdog.watch(late, 3600)
    watchdog.watch(early, 0.01)
    assert early_expired.wait(60)
    assert not late_expired.is_set()


def test_a_cancelled_ticket_does_not_expire(watchdog: Watchdog) -> None:
    """One with a later deadline has expired, the cancelled one has not."""
    (ticket, expired), (marker, marked), *_ = (pair for pair, _ in zip(tickets(), range(2), strict=False))
    with watchdog._wakeup:  # it has no chance to expire before
        watchdog.watch(ticket, 0.02)
        watchdog.cancel(ticket)
    watchdog.watch(marker, 0.04)
    assert marked.wait(60)
    assert not expired.is_set()
    assert not ticket.overdue


def test_cancel_after_expiry_is_harmless(watchdog: Watchdog) -> None:
    """Both ways of an ending call meet here."""
    ticket, expired = next(tickets())
    watchdog.watch(ticket, 0.001)
    assert expired.wait(60)
    watchdog.cancel(ticket)
    assert ticket.overdue


def test_cancelled_tickets_do_not_pile_up(watchdog: Watchdog) -> None:
    """Calls are far shorter than their timeouts: a long one among them must not keep the short ones' tickets."""
    held = Ticket(lambda: None)
    watchdog.watch(held, 3600)
    for _ in range(10_000):
        ticket = Ticket(lambda: None)
        watchdog.watch(ticket, 7200)
        watchdog.cancel(ticket)
    assert len(watchdog._due) <= 130


def test_a_ticket_that_raises_does_not_stop_the_others(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")

    def raising() -> None:
        raise ValueError("cannot be told to end")

    ticket, expired = next(tickets())
    watchdog.watch(Ticket(raising), 0.001)
    watchdog.watch(ticket, 0.01)
    assert expired.wait(60)


def test_one_thread_serves_all_and_starts_with_the_first(watchdog: Watchdog) -> None:
    """Without a timeout in the settings there is no thread."""
    assert watchdog._thread is None
    for _ in range(3):
        watchdog.watch(Ticket(lambda: None), 3600)
    thread = watchdog._thread
    assert thread is not None
    assert thread.daemon
    assert sum(t.name == thread.name and t is thread for t in threading.enumerate()) == 1
