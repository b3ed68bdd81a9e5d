"""What a fork does in the process that forks."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from otel_quantmon.process import fork

_SECONDS = 60


class _Lock:
    """A lock after whose release another thread has its turn, where the interpreter may always switch threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.released, self.go_on = threading.Event(), threading.Event()

    def acquire(self, timeout: float) -> bool:
        return self.lock.acquire(timeout=timeout)

    def release(self) -> None:
        self.lock.release()
        self.released.set()
        assert self.go_on.wait(_SECONDS)


class _Registered:
    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def fork_lock(self) -> Any:
        return self._lock

    def before_fork(self) -> None:
        pass


def test_two_threads_that_fork_at_once_let_go_of_their_own_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One takes the lock that the other has just released: each releases it once, and then it is free. Else the first
    would have raised for the lock of the second, which is then held for ever.
    """
    lock = _Lock()
    monkeypatch.setattr(fork, "registered", lambda: [_Registered(lock)])
    failures: list[BaseException] = []

    def first() -> None:
        fork._before_fork()
        try:
            fork._after_fork_in_parent()
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert lock.released.wait(_SECONDS)
    fork._before_fork()
    lock.go_on.set()
    thread.join(_SECONDS)
    assert failures == []
    fork._after_fork_in_parent()
    free: list[bool] = []
    thread = threading.Thread(target=lambda: free.append(lock.lock.acquire(blocking=False)))
    thread.start()
    thread.join(_SECONDS)
    assert free == [True]
