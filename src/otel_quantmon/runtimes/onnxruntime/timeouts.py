"""Timeouts through `RunOptions.terminate`, which ONNX Runtime looks at between two nodes of the graph."""

from __future__ import annotations

import sys
import threading
from typing import Any

from otel_quantmon.process.watchdog import Ticket, watchdog

__all__ = ["RunOptionsTimeouts"]

# Position of the run options after the session, by method.
_POSITION = {
    "run": 2,
    "run_async": 4,
    "run_with_ort_values": 2,
    "run_with_iobinding": 1,
    "run_with_ortvaluevector": 0,
}


class _Use:
    """The calls that run with one `RunOptions` at the moment."""

    __slots__ = ("options", "terminate_before", "tickets")

    def __init__(self, options: Any) -> None:
        self.options = options
        self.terminate_before = bool(options.terminate)
        self.tickets: list[Ticket] = []

    def end_if_all_expired(self) -> None:
        # The flag ends every call that runs with these options; one that still has time must not pay for another.
        if all(ticket.overdue for ticket in self.tickets):
            for ticket in self.tickets:
                ticket.expired = True
            self.options.terminate = True


class RunOptionsTimeouts:
    """Ends ONNX Runtime's runs. An application's own `RunOptions` is used, and left as it was.

    One that several calls use at once ends none of them before all have run past their timeouts.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """See `Timeouts.reset`."""
        self._lock = threading.RLock()
        self._uses: dict[int, _Use] = {}
        self._use_of: dict[Ticket, _Use] = {}

    def arm(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], seconds: float
    ) -> tuple[Ticket, tuple[Any, ...], dict[str, Any]]:
        """See `Timeouts.arm`."""
        position = _POSITION[method]
        options = args[position] if len(args) > position else kwargs.get("run_options")
        if options is None:
            options = sys.modules["onnxruntime"].RunOptions()
            if len(args) > position:
                args = (*args[:position], options, *args[position + 1 :])
            else:
                kwargs = {**kwargs, "run_options": options}
        fresh = _Use(options)
        with self._lock:
            # A handler of a signal that runs with the same options comes in before all of this or after it.
            use = self._uses.setdefault(id(options), fresh)
            if use is fresh:
                # Read again: outside the lock it may have been the flag of a call that has ended since.
                use.terminate_before = bool(options.terminate)
            elif any(other.expired for other in use.tickets):
                # Told to end and not yet over: they go on until this call is over or overdue too.
                options.terminate = use.terminate_before
            ticket = Ticket(lambda: self._expire(use))
            self._use_of[ticket] = use
            use.tickets.append(ticket)
            self._uses[id(options)] = use
        try:
            watchdog.watch(ticket, seconds)
        except BaseException:
            self.disarm(ticket)
            raise
        return ticket, args, kwargs

    def disarm(self, ticket: Ticket) -> None:
        """See `Timeouts.disarm`."""
        watchdog.cancel(ticket)
        with self._lock:
            use = self._use_of.pop(ticket, None)
            if use is None or ticket not in use.tickets:
                return
            use.tickets.remove(ticket)
            if use.tickets:
                use.end_if_all_expired()
                return
            self._uses.pop(id(use.options), None)
            if ticket.expired:
                use.options.terminate = use.terminate_before

    def _expire(self, use: _Use) -> None:
        with self._lock:
            if use.tickets:
                use.end_if_all_expired()
