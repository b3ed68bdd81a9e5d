"""How a child of `multiprocessing` ends: it delivers what it has counted, in the time that it may take for that.

It leaves through os._exit, past every atexit handler, the SDK's among them, or is ended by SIGTERM, as the workers of a
`Pool` that is used as a context manager are. Without the first of the two ways here it would lose what the SDK had not
yet exported, without the second its last calls.

A child that is started anew expects the signal before any code of the application runs. Servers such as uvicorn handle
it while they serve, before they import the application and a runtime with it; then they put back what was there and
raise it again, and what was there is ours.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from functools import cache
from time import monotonic
from types import FrameType
from typing import Any

from otel_quantmon.guard import guarded
from otel_quantmon.process.registry import registered

__all__ = ["deliver_at_end", "expect_end"]


def expect_end() -> None:
    """Have this process deliver if SIGTERM ends it, where nothing else is done about the signal."""
    if sys.platform != "win32":
        _Termination.expect()


def deliver_at_end(util: Any) -> None:
    """Have this process, a child of `multiprocessing`, deliver when it ends; ``util`` is that package's module."""
    util.Finalize(None, _deliver_last, exitpriority=0)
    expect_end()


def _deliver_last() -> None:
    """Deliver, and spare the process that cannot a second try: some children do run exit handlers."""
    with guarded:
        for provider in _deliver():
            shutdown = getattr(provider, "shutdown", None)
            if shutdown is not None:
                atexit.unregister(shutdown)


def _deliver() -> list[Any]:
    """Have the providers export what this process has for them; those that had not done so in time."""
    seconds = [seconds for one in registered() if (seconds := one.exit_timeout()) is not None]
    if not seconds:
        return []
    deadline = monotonic() + max(seconds)
    # At once, or one that hangs would leave the next one no time; apart, since exporters do not keep to timeouts.
    flushing = [(provider, _flush(provider, max(seconds))) for provider in _providers()]
    late: list[Any] = []
    for provider, thread in flushing:
        thread.join(max(0.0, deadline - monotonic()))
        if thread.is_alive():
            late.append(provider)
    return late


def _providers() -> list[Any]:
    return list({id(provider): provider for one in registered() for provider in one.exporting()}.values())


def _flush(provider: Any, seconds: float) -> threading.Thread:
    def flush() -> None:
        with guarded:
            provider.force_flush(round(seconds * 1000))

    thread = threading.Thread(target=flush, name="otel-quantmon-delivery", daemon=True)
    thread.start()
    return thread


class _Termination:
    """Delivers when SIGTERM comes, and then lets the signal do what it does by default.

    Only where nothing else is done about the signal; whoever handles it later takes the place of this.
    """

    _expected: _Termination | None = None

    def __init__(self) -> None:
        self._came = False
        self._delivered = False
        self._delivering = threading.Lock()
        self._pipe: tuple[int, int] | None = None

    @classmethod
    def expect(cls) -> None:
        """Wait for the signal from now on."""
        if threading.current_thread() is not threading.main_thread():
            return
        if cls._expected is not None or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        _forget_in_children()
        cls._expected = self = cls()
        self._watch()
        signal.signal(signal.SIGTERM, self.handle)

    @classmethod
    def forget(cls) -> None:
        """In a child after fork: end as without us."""
        self, cls._expected = cls._expected, None
        if self is None:
            return
        if signal.getsignal(signal.SIGTERM) == self.handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._pipe is not None:
            reading, writing = self._pipe
            others = signal.set_wakeup_fd(-1)
            if others not in {-1, writing}:
                signal.set_wakeup_fd(others)
            os.close(reading)
            os.close(writing)

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """End the process; at once if the signal comes again."""
        came, self._came = self._came, True
        if not came:
            with guarded:
                self._deliver_once()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    def _deliver_once(self) -> None:
        with self._delivering:
            if not self._delivered:
                self._delivered = True
                _deliver()

    # A handler in Python waits until the main thread comes back from a runtime, for ever if that hangs, and SIGTERM is
    # how an application ends such a child. So a thread, which the interpreter wakes when the signal comes, does the
    # same without waiting for the main thread.

    def _watch(self) -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        others = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if others != -1:
            signal.set_wakeup_fd(others)
            os.close(reading)
            os.close(writing)
            return
        self._pipe = reading, writing
        threading.Thread(
            target=self._wait, args=(reading,), name="otel-quantmon-termination", daemon=True
        ).start()

    def _wait(self, reading: int) -> None:
        while numbers := os.read(reading, 64):
            if signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) == self.handle:
                with guarded:
                    self._deliver_once()
                _end_by_default()


@cache
def _forget_in_children() -> None:
    """What a process expects is no business of those that it forks; once for all."""

    def forget() -> None:
        with guarded:
            _Termination.forget()

    os.register_at_fork(after_in_child=forget)


def _end_by_default() -> None:
    """End this process by SIGTERM from any thread; `signal.signal` works in the main thread alone."""
    number = signal.SIGTERM
    try:
        import ctypes

        set_action = ctypes.pythonapi.PyOS_setsig
        set_action.argtypes, set_action.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        set_action(number, None)
    except (ImportError, AttributeError):
        # An interpreter without it; the process is not to stay, whatever its exit code.
        number = signal.SIGKILL
    os.kill(os.getpid(), number)
