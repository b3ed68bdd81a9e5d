"""Which calls are sampled, and copies of their inputs and outputs."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, cast

from otel_quantmon import semconv
from otel_quantmon.fidelity.autocorrelation import PAIRS
from otel_quantmon.fidelity.sample import CaptureBudget, Sample, SampledCalls
from otel_quantmon.models.description import Call, Method
from otel_quantmon.models.identity import Model
from otel_quantmon.process.worker import worker
from otel_quantmon.telemetry.api import SpanContext

if TYPE_CHECKING:
    import numpy as np  # an application without it has no tensors to copy

__all__ = ["LeastChecks", "Sampler"]

# Checks that a call state makes before its next records are counted: a few deeply, not a burst. They are spread over as
# long as it took the last time, since calls in a row are much alike in sound and film.
_MOST_CHECKS = 8
_LONGEST_SPREAD = 1.0

# Pairs of calls in a row that are checked, some more than decide, since some are lost, as where a call fails; and after
# so many that come as soon as they can, as many more with so many seconds in between.
_PAIRS = PAIRS + PAIRS // 4
_BETWEEN_PAIRS = 10.0

# What a check costs until one was made, in nanoseconds.
_CHECK_COST = 200_000.0

# A small model pays for a check in some thousands of calls. One call in so many is checked all the same, at one to two
# microseconds a call, and over all models no more of those than so many a second: less than half a percent of a core.
_CALLS_A_CHECK = 100
_LEAST_A_SECOND = 20.0


class LeastChecks:
    """Checks beyond the budget, for the models of one process whose calls are too short to pay for any."""

    def __init__(self) -> None:
        self._left = _LEAST_A_SECOND
        self._at = monotonic()

    def take(self, wanted: float) -> float:
        """Return as many of the ``wanted`` checks as there may be now. Threads may take the same ones, seldom."""
        now = monotonic()
        left = min(_LEAST_A_SECOND, self._left + (now - self._at) * _LEAST_A_SECOND)
        taken = min(max(wanted, 0.0), left)
        self._at, self._left = now, left - taken
        return taken


class Sampler:
    """Takes samples of one call state when asked to. Without a demand it costs a call nothing.

    Args:
        calls: Call state of the calls.
        model: Model that is called.
        method: Method of the calls.
        budget: Bytes that samples may hold.
        tokens: One for each comparison that is due; shared by the call states of a model.
        take: Receives each finished sample.
        miss: Takes note of a comparison that was due and cannot be made of this call; why, if it was dropped.
        least: Checks beyond the budget, shared by all models.
    """

    def __init__(
        self,
        calls: SampledCalls,
        model: Model,
        method: Method,
        budget: CaptureBudget,
        tokens: deque[object],
        take: Callable[[Sample], None],
        miss: Callable[[semconv.ReferenceOutcome | None], None],
        least: LeastChecks,
    ) -> None:
        # The call state has the sampler: the other way round it would take the garbage collector to let go of both.
        self._calls = weakref.ref(calls)
        self._method = method
        self._model = model
        self._budget = budget
        self._tokens = tokens
        self._take = take
        self._miss = miss
        self._least = least
        self._checks = 0
        self._pairs = 2 * _PAIRS
        self._pair: object = None
        self._pair_after = 0.0
        self._left = 0  # that come later, one every so many seconds
        self._every = 0.0
        self._turn = 0  # of those that come later: what was asked for anew takes the place of what was left
        self._closely = 0
        self._at = monotonic()
        self._credit = 0.0
        self._check_cost = _CHECK_COST

    @property
    def due(self) -> bool:
        """True if the next call is to be sampled."""
        return self._checks > 0 or bool(self._tokens)

    def add_budget(self, nanoseconds: float, calls: int) -> None:
        """Ask for as many checks as may be made after so many calls, in so much more time to check in."""
        if not nanoseconds:
            return
        now = monotonic()
        passed, self._at = now - self._at, now
        cost = self._check_cost
        least = self._least.take(calls / _CALLS_A_CHECK - nanoseconds / cost)
        self._credit = min(self._credit + nanoseconds + least * cost, _MOST_CHECKS * cost)
        count = int(self._credit / cost)
        if count:
            self._credit -= count * cost
            self._left, self._every = count, min(passed, _LONGEST_SPREAD) / count
            self._turn += 1
            self._next(self._turn)

    def check_closely(self, count: int) -> None:
        """Ask for so many checks, each as soon as the one before is over."""
        self._closely = count
        self.check()

    def check(self) -> None:
        """Ask for one check; at first also of the call after it, to see how much calls in a row are alike."""
        if self._pairs > 0 and self._pair is None and (now := monotonic()) >= self._pair_after:
            self._pairs -= 1
            self._pair = object()
            self._checks = 2
            if self._pairs < _PAIRS:
                self._pair_after = now + _BETWEEN_PAIRS
        self._checks = max(self._checks, 1)
        self._ask()

    def forget(self) -> None:
        """In a child after fork: what was to come later would come from a worker that is not here."""
        self._checks = self._left = self._closely = 0
        self._pair = None

    def spent(self, nanoseconds: int) -> None:
        """Learn what a check has cost, now that it is over."""
        self._check_cost += 0.2 * (max(nanoseconds, 1000) - self._check_cost)
        if self._closely > 0:
            self._closely -= 1
            self.check()

    def _next(self, turn: int) -> None:
        if self._left > 0 and turn == self._turn:
            self._left -= 1
            self.check()
            # Mostly on the worker's thread: for a caller to wake that at each check would cost as much as the check.
            if self._left > 0:
                # Not to keep alive a model that goes meanwhile.
                later = weakref.WeakMethod(self._next)
                worker.submit(lambda: (following := later()) and following(turn), self._every)

    def begin(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sample | None:
        """Copy the inputs of a call that is about to be made, if it is to be sampled."""
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
        sample = Sample(check=check, compare=compare, urgent=self._closely > 0)
        if check:
            sample.pair = self._pair
            if not self._checks:
                self._pair = None
        read = self._method.read_inputs
        loaded = self._model.loaded
        if read is not None and self._copy(
            sample, sample.inputs, lambda: read(loaded, instance, args, kwargs)
        ):
            return sample
        return None

    def end(
        self, sample: Sample, call: Call, times: tuple[int, int], span: SpanContext | None, *, failed: bool
    ) -> None:
        """Copy the outputs of the call, and pass the sample on, unless the call has failed."""
        if failed:
            self.cancel(sample)
            return
        read = self._method.read_outputs
        sample.span = span
        sample.end, sample.duration = times[1], times[1] - times[0]
        if read is not None and self._copy(sample, sample.outputs, lambda: read(self._model.loaded, call)):
            self._take(sample)

    def _ask(self) -> None:
        calls = self._calls()
        if calls is not None:
            calls.ask_for_sample()

    def cancel(self, sample: Sample, outcome: semconv.ReferenceOutcome | None = None) -> None:
        """Let go of a sample that cannot be used: its call has failed, or it was dropped for ``outcome``."""
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
        except BaseException:
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
