"""What happens to the observation when the process forks."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

from otel_quantmon.guard import guarded
from otel_quantmon.probe.observer import observers
from otel_quantmon.probe.watchdog import Timeouts, watchdog
from otel_quantmon.probe.worker import worker

__all__ = ["follow_forks"]

# How long a child of `multiprocessing` may take at its exit to export what it has counted.
_FLUSH_MILLIS = 5_000


@cache
def follow_forks() -> None:
    """Keep the observation right in children of this process; once for all."""
    # Not on Windows, where nothing forks.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


_timeouts: list[Timeouts] = []


def remember(timeouts: Timeouts) -> None:
    """Have ``timeouts`` reset in children too."""
    _timeouts.append(timeouts)


def _after_fork_in_child() -> None:
    with guarded:
        worker.reset()
        watchdog.reset()
        for timeouts in _timeouts:
            timeouts.reset()
        for observer in observers():
            observer.after_fork()


# A child of `multiprocessing` leaves through os._exit, past every atexit handler, the SDK's among them. What it does
# run are the finalizers of its own module, which it clears at its start, before it runs these hooks.


def _before_fork() -> None:
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        with guarded:
            _flush_children_of(util)


@cache
def _flush_children_of(util: Any) -> None:
    util.register_after_fork(worker, lambda _worker: util.Finalize(None, _flush, exitpriority=0))  # pyright: ignore[reportUnknownLambdaType]  the module is passed untyped


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
