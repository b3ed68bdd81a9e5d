"""What happens to the observation when the process forks."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from functools import cache
from typing import Any

from otel_quantmon.guard import guarded
from otel_quantmon.probe.observer import observers
from otel_quantmon.probe.watchdog import Timeouts, watchdog
from otel_quantmon.probe.worker import reference_worker, worker

__all__ = ["follow_forks", "reset_in_children"]

# How long a child of `multiprocessing` may take at its exit to export what it has counted.
_FLUSH_MILLIS = 5_000

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
        _flush_children()
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            _flush_at_exit(sys.modules["multiprocessing.util"])


_timeouts: weakref.WeakSet[Timeouts] = weakref.WeakSet()


def reset_in_children(timeouts: Timeouts) -> None:
    """Have ``timeouts`` reset in children for as long as it lives."""
    _timeouts.add(timeouts)


# A thread that is moving records when another one forks would leave the SDK's locks held for ever in the child, so
# the fork waits for it. The child gets new locks of ours.
_held: list[threading.Lock] = []


def _before_fork() -> None:
    with guarded:
        _flush_children()
        locks = [observer.recorder.lock for observer in observers()]
        _held.extend(lock for lock in locks if lock.acquire(timeout=_FORK_SECONDS))


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    with guarded:
        _held.clear()
        worker.reset()
        reference_worker.reset()
        watchdog.reset()
        for timeouts in _timeouts:
            timeouts.reset()
        for observer in observers():
            observer.after_fork()


# A child of `multiprocessing` leaves through os._exit, past every atexit handler, the SDK's among them. What it does
# run are the finalizers of its own module, which it clears at its start, before it runs the hooks of its parent. So a
# child that is there already when it imports a runtime needs one at once, any other one through a hook.


def _flush_children() -> None:
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        _flush_children_of(util)


@cache
def _flush_children_of(util: Any) -> None:
    util.register_after_fork(worker, lambda _worker: _flush_at_exit(util))  # pyright: ignore[reportUnknownLambdaType]  the module is passed untyped


def _flush_at_exit(util: Any) -> None:
    util.Finalize(None, _flush, exitpriority=0)


def _flush() -> None:
    from opentelemetry import metrics, trace

    with guarded:
        for observer in observers():
            for given, found in zip(
                observer.providers, (trace.get_tracer_provider(), metrics.get_meter_provider()), strict=True
            ):
                flush = getattr(given or found, "force_flush", None)
                if flush is not None:
                    flush(_FLUSH_MILLIS)
