"""Ends calls that run past their timeout: one thread for all of them, started by the first."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any, Protocol

from otel_quantmon.guard import internal_error

__all__ = ["Ticket", "Timeouts", "Watchdog", "watchdog"]


class Ticket:
    """One call under watch.

    Attributes:
        overdue: True once its time is over.
        expired: True once the call has for that been told to end; set by who tells it.
    """

    __slots__ = ("_end", "cancelled", "expired", "overdue")

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self.cancelled = False
        self.overdue = False
        self.expired = False

    def expire(self) -> None:
        """Have the call told to end."""
        self.overdue = True
        self._end()


class Timeouts(Protocol):
    """How a runtime lets a call be ended from another thread."""

    def arm(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], seconds: float
    ) -> tuple[Ticket, tuple[Any, ...], dict[str, Any]]:
        """Put a call under watch; returns the arguments to call with instead."""
        ...

    def disarm(self, ticket: Ticket) -> None:
        """Take it off again, whether it expired or not, and leave the application's own objects as they were."""
        ...

    def reset(self) -> None:
        """In a child after fork: forget the calls of threads that are not here."""
        ...


class Watchdog:
    """Expires tickets at their deadline, on a daemon thread that sleeps in between."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew without a thread; in a child after fork the old one does not exist."""
        self._wakeup = threading.Condition()
        self._due: list[tuple[float, int, Ticket]] = []
        self._order = count()
        self._thread: threading.Thread | None = None

    def watch(self, ticket: Ticket, seconds: float) -> None:
        """Expire ``ticket`` in so many seconds, unless it is cancelled before."""
        deadline = monotonic() + seconds
        with self._wakeup:
            heapq.heappush(self._due, (deadline, next(self._order), ticket))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="otel-quantmon-watchdog", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    # No thread to be had, or the interpreter is ending: nothing may wait for nobody.
                    self._due.clear()
                    raise
                self._thread = thread
            elif self._due[0][2] is ticket:
                self._wakeup.notify()

    def cancel(self, ticket: Ticket) -> None:
        """Let ``ticket`` go. After this returns it will not expire."""
        with self._wakeup:
            ticket.cancelled = True
            # Calls are far shorter than their timeouts: without this the heap would hold a timeout's worth of them.
            while self._due and self._due[0][2].cancelled:
                heapq.heappop(self._due)
            if len(self._due) > 64 and sum(entry[2].cancelled for entry in self._due) * 2 > len(self._due):
                self._due = [entry for entry in self._due if not entry[2].cancelled]
                heapq.heapify(self._due)

    def _run(self) -> None:
        while True:
            with self._wakeup:
                while not self._due:
                    self._wakeup.wait()
                deadline, _, ticket = self._due[0]
                wait = deadline - monotonic()
                if wait > 0:
                    self._wakeup.wait(wait)
                    continue
                heapq.heappop(self._due)
                if not ticket.cancelled:
                    # Under the lock, so that a cancelled ticket can be reused the moment `cancel` returns.
                    try:
                        ticket.expire()
                    except Exception as error:  # noqa: BLE001  the guard of the project
                        internal_error(error)


watchdog = Watchdog()
