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
        expired: True once the call was ended for that; set by `end`.
    """

    __slots__ = ("_end", "cancelled", "expired", "overdue")

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self.cancelled = False
        self.overdue = False
        self.expired = False

    def expire(self) -> None:
        """Have the call end."""
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
    """Expires tickets at their deadline, on a daemon thread that sleeps in between.

    No loop stands in a block that holds a lock, here and wherever a lock is taken on the caller's thread: from Python
    3.12 on, what a signal's handler raises at a loop's jump back passes by the block around the loop, and its lock
    would stay held.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew without a thread; in a child after fork the old one does not exist."""
        # The lock is entered itself: a condition does so by a function of its own, after which a signal's handler that
        # raises would leave the lock held for ever.
        self._lock: Any = threading.RLock()
        self._wakeup = threading.Condition(self._lock)
        self._due: list[tuple[float, int, Ticket]] = []
        self._order = count()
        self._thread: threading.Thread | None = None

    def watch(self, ticket: Ticket, seconds: float) -> None:
        """Expire ``ticket`` in so many seconds, unless it is cancelled before."""
        deadline = monotonic() + seconds
        with self._lock:
            heapq.heappush(self._due, (deadline, next(self._order), ticket))
            if self._thread is None:
                self._start()
            elif self._due and self._due[0][2] is ticket:
                self._wakeup.notify()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="otel-quantmon-watchdog", daemon=True)
        # A handler of a signal may have come here meanwhile, in the same thread. Nothing is called in between.
        if self._thread is not None:
            return
        self._thread = thread
        try:
            thread.start()
        except BaseException as error:
            # Where a handler has raised, the thread may be there or not: if it is, it finds that it is no longer the
            # one, and ends.
            self._thread = None
            if isinstance(error, RuntimeError):
                # No thread to be had, or the interpreter is ending: nothing may wait for nobody.
                self._due.clear()
            raise

    def cancel(self, ticket: Ticket) -> None:
        """Let ``ticket`` go. After this returns it will not expire."""
        with self._lock:
            ticket.cancelled = True
            self._sweep()

    def _sweep(self) -> None:
        # Calls are far shorter than their timeouts: without this the heap would hold a timeout's worth of them.
        while self._due and self._due[0][2].cancelled:
            heapq.heappop(self._due)
        if len(self._due) > 64 and sum(entry[2].cancelled for entry in self._due) * 2 > len(self._due):
            due = [entry for entry in self._due if not entry[2].cancelled]
            heapq.heapify(due)
            self._due = due

    def _run(self) -> None:
        while True:
            failure = None
            with self._lock:
                self._wakeup.wait_for(lambda: self._due or not self._is_current())
                if not self._is_current():
                    return
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
                        failure = error
            if failure is not None:
                # It logs, and a handler of the log may run a call that is put under watch.
                internal_error(failure)

    def _is_current(self) -> bool:
        return self._thread is threading.current_thread()


watchdog = Watchdog()
