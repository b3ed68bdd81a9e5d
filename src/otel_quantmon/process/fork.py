"""What happens to the observation when the process forks."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from functools import cache
from typing import Any

from otel_quantmon.guard import guarded
from otel_quantmon.process.leaving import deliver_at_end
from otel_quantmon.process.native import native_calls
from otel_quantmon.process.registry import registered
from otel_quantmon.process.watchdog import Timeouts, watchdog
from otel_quantmon.process.worker import reference_worker, worker

__all__ = ["follow_forks", "reset_in_children"]

# How long a fork waits for a thread that is moving records into the SDK, which takes milliseconds.
_FORK_SECONDS = 1.0


@cache
def follow_forks() -> None:
    """Keep the observation right in children of this process; once for all."""
    # Not on Windows, where nothing forks.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
        )
    with guarded:
        _follow_multiprocessing()
        if _is_child(sys.modules.get("multiprocessing.process")):
            deliver_at_end(sys.modules["multiprocessing.util"])


_timeouts: weakref.WeakSet[Timeouts] = weakref.WeakSet()


def reset_in_children(timeouts: Timeouts) -> None:
    """Have ``timeouts`` reset in children for as long as it lives."""
    _timeouts.add(timeouts)


class _Held(threading.local):
    """What this thread holds while it forks: two may fork at once, and neither can let go of the other's."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


# A thread that is moving records when another one forks would leave the SDK's locks held for ever in the child, so
# the fork waits for it. The child gets new locks of ours.
_held = _Held()


def _before_fork() -> None:
    with guarded:
        _follow_multiprocessing()
        for one in registered():
            one.before_fork()
        locks = [one.fork_lock() for one in registered()]
        _held.locks.extend(lock for lock in locks if lock.acquire(timeout=_FORK_SECONDS))


def _after_fork_in_parent() -> None:
    while _held.locks:
        _held.locks.pop().release()


def _after_fork_in_child() -> None:
    with guarded:
        _held.locks.clear()
        worker.reset()
        reference_worker.reset()
        watchdog.reset()
        native_calls.reset()
        for timeouts in _timeouts:
            timeouts.reset()
        for one in registered():
            one.after_fork()


# A child of `multiprocessing` clears the finalizers of that package at its start, before it runs the hooks of its
# parent. So a child that is there already when it imports a runtime prepares for its end at once, any other one
# through a hook.


def _is_child(process: Any) -> bool:
    if process is None:
        return False
    # A spawned one imports the application's module before it knows of its parent, and runs no hooks later.
    return process.parent_process() is not None or getattr(process.current_process(), "_inheriting", False)


def _follow_multiprocessing() -> None:
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        _prepare_children_of(util)


@cache
def _prepare_children_of(util: Any) -> None:
    def prepare(_worker: object) -> None:
        with guarded:
            deliver_at_end(util)

    util.register_after_fork(worker, prepare)
