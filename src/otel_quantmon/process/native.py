"""Keeps this project's own calls of a runtime out of the end of the interpreter.

A daemon thread that comes back from a runtime while the interpreter ends is unwound where it asks for the interpreter's
lock, through frames of C++ that do not allow it: the whole process aborts (up to Python 3.13; from then on the thread
stops for ever). So once the process has begun to end, none of these calls is begun, and one that is under way is waited
for, before the SDK's last flush where its provider was there first. Calls of the application are its own.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

__all__ = ["NativeCalls", "native_calls"]

# Seconds that the end waits at most. It is for a call that hangs, and far longer than any of ours that comes back: that
# of one that would have come back later is an abort, while one that never does so harms nothing. And it leaves some of
# the half minute that most supervisors give.
_LONGEST_WAIT = 20.0


class NativeCalls:
    """Those of this project's calls of a runtime that are under way on its own threads."""

    def __init__(self) -> None:
        self._ending = False
        self.reset()

    def reset(self) -> None:
        """In a child after fork: the threads of the parent are not here."""
        self._under_way: list[threading.Event] = []

    @contextmanager
    def allowed(self) -> Generator[bool, None, None]:
        """Around calls of a runtime: whether they may be made, which is no longer so when the process ends."""
        over = threading.Event()
        under_way = self._under_way
        # Left first and then asked: the end asks the other way round, so one of the two sees the other. No lock, which
        # a fork would copy as it is held.
        under_way.append(over)
        try:
            yield not self._ending
        finally:
            under_way.remove(over)
            over.set()

    def end(self, seconds: float = _LONGEST_WAIT) -> bool:
        """Allow no more calls, and wait for those under way; False if that takes more than ``seconds``."""
        self._ending = True
        deadline = monotonic() + seconds
        return all(over.wait(max(0.0, deadline - monotonic())) for over in list(self._under_way))


native_calls = NativeCalls()

# Not `threading._register_atexit`: that comes before the threads of the application, which may serve for hours yet.
atexit.register(native_calls.end)
