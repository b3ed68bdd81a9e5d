"""Which calls are looked at, and copies of what they were given and gave."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.trace import SpanContext

from otel_quantmon import semconv

if TYPE_CHECKING:
    import numpy as np

    from otel_quantmon.probe.lane import Lane
    from otel_quantmon.probe.loaded import Call

__all__ = ["CaptureBudget", "Sample", "Sampler"]

# Checks that a lane makes in a row before its next records are counted: a few deeply, not a burst.
_MOST_CHECKS = 8

# What a check costs until one was made, in nanoseconds.
_CHECK_COST = 200_000.0


class CaptureBudget:
    """Bytes that all captured tensors may hold at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.held = 0

    def take(self, size: int) -> bool:
        """Hold ``size`` bytes more; False if that is too much."""
        with self._lock:
            if self.held + size > self._limit:
                return False
            self.held += size
            return True

    def give_back(self, size: int) -> None:
        """Hold ``size`` bytes less."""
        with self._lock:
            self.held -= size

    def reset(self) -> None:
        """In a child after fork: nothing is held by a thread that is not here."""
        self._lock = threading.Lock()
        self.held = 0


class Sample:
    """One call that is looked at.

    Attributes:
        check: to be checked without a reference.
        compare: to be compared with the reference.
        inputs, outputs: copies, by name.
        size: bytes that they hold.
        span: context of the call's sampled span.
        copying: nanoseconds that the copies took.
    """

    __slots__ = ("check", "compare", "copying", "inputs", "outputs", "size", "span")

    def __init__(self, *, check: bool, compare: bool) -> None:
        self.check = check
        self.compare = compare
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.size = 0
        self.span: SpanContext | None = None
        self.copying = 0

    def clear(self) -> None:
        """Let go of the tensors; their bytes are to be given back before."""
        self.size = 0
        self.inputs, self.outputs = {}, {}


class Sampler:
    """Takes samples of one lane when asked to. Without a demand it costs a call nothing.

    Args:
        lane: of the calls.
        budget: of the bytes.
        tokens: one for each comparison that is due; shared by the lanes of a model.
        take: receives each finished sample.
        miss: is told of a comparison that was due and cannot be made of this call; why, if it was dropped.
    """

    def __init__(
        self,
        lane: Lane,
        budget: CaptureBudget,
        tokens: deque[object],
        take: Callable[[Sample], None],
        miss: Callable[[semconv.ReferenceOutcome | None], None],
    ) -> None:
        # The lane has the sampler: the other way round it would take the garbage collector to let go of both.
        self._lane = weakref.ref(lane)
        self._method = lane.method
        self._model = lane.model
        self._budget = budget
        self._tokens = tokens
        self._take = take
        self._miss = miss
        self._checks = 0
        self._credit = 0.0
        self._check_cost = _CHECK_COST

    @property
    def due(self) -> bool:
        """True if the next call is to be looked at."""
        return self._checks > 0 or bool(self._tokens)

    def earn(self, nanoseconds: float) -> None:
        """Ask for as many checks as may be made for so much more time to check in."""
        self._credit = min(self._credit + nanoseconds, _MOST_CHECKS * self._check_cost)
        count = int(self._credit / self._check_cost)
        if count:
            self._credit -= count * self._check_cost
            self._checks = count
            self._be_careful()

    def check(self) -> None:
        """Ask for one check."""
        self._checks = max(self._checks, 1)
        self._be_careful()

    def spent(self, nanoseconds: int) -> None:
        """Learn what a check has cost."""
        self._check_cost += 0.2 * (max(nanoseconds, 1000) - self._check_cost)

    def begin(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sample | None:
        """Copy the inputs of a call that is about to be made, if it is to be looked at."""
        compare = False
        try:
            self._tokens.pop()
            compare = True
        except IndexError:
            pass
        check = self._checks > 0
        if check:
            self._checks -= 1
        if not (compare or check):
            return None
        sample = Sample(check=check, compare=compare)
        read = self._method.read_inputs
        loaded = self._model.loaded
        if read is not None and self._copy(
            sample, sample.inputs, lambda: read(loaded, instance, args, kwargs)
        ):
            return sample
        return None

    def end(self, sample: Sample, call: Call, span: SpanContext | None, *, failed: bool) -> None:
        """Copy the outputs of the call, and pass the sample on, unless the call has failed."""
        if failed:
            self.cancel(sample)
            return
        read = self._method.read_outputs
        sample.span = span
        if read is not None and self._copy(sample, sample.outputs, lambda: read(self._model.loaded, call)):
            self._take(sample)

    def _be_careful(self) -> None:
        lane = self._lane()
        if lane is not None:
            lane.careful = True

    def cancel(self, sample: Sample, outcome: semconv.ReferenceOutcome | None = None) -> None:
        """Let go of a sample that cannot be looked at: its call has failed, or it was dropped for ``outcome``."""
        self._budget.give_back(sample.size)
        sample.clear()
        if sample.compare:
            self._miss(outcome)

    def _copy(self, sample: Sample, to: dict[str, Any], read: Callable[[], Mapping[str, Any]]) -> bool:
        began = perf_counter_ns()
        try:
            values = read()
            size = sum(map(_size, values.values()))
            if not self._budget.take(size):
                self.cancel(sample, "dropped_bytes")
                return False
            sample.size += size
            to.update((name, _copied(value)) for name, value in values.items())
        except Exception:
            self.cancel(sample)
            raise
        sample.copying += perf_counter_ns() - began
        return True


def _size(value: Any) -> int:
    size = getattr(value, "nbytes", None)
    if size is not None:
        return int(size)
    if isinstance(value, (list, tuple)):
        return sum(_size(item) for item in cast("list[Any]", value))
    if isinstance(value, dict):
        return sum(_size(item) for item in cast("Mapping[Any, Any]", value).values())
    return 8


def _copied(value: Any) -> Any:
    if hasattr(value, "nbytes") and hasattr(value, "copy"):
        return cast("np.ndarray[Any, Any]", value).copy()
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    return value
