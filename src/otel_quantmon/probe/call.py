"""What runs around every inference. Each line here is paid for by every call of a 5 µs model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import perf_counter_ns
from typing import Any, TypeAlias, TypeVar

from otel_quantmon.guard import guarded, internal_error
from otel_quantmon.probe.ambient import current_context, suppressed
from otel_quantmon.probe.careful import call_with_care
from otel_quantmon.probe.ending import finish, finish_plain, measured
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.loaded import Method

__all__ = ["PROBE", "observed"]

PROBE = "_quantmon_probe"
"""Attribute of a runtime's object that holds its probe, or None if it is not to be observed."""

F = TypeVar("F", bound=Callable[..., Any])
LaneOf: TypeAlias = Callable[[Any, Method], Lane | None]


def observed(original: F, method: Method, lane_of: LaneOf) -> F:
    """Wrap ``original``, a method that runs an inference and returns when it is over.

    Args:
        original: the method as found on its class.
        method: what it is, the key of its lane.
        lane_of: finds the lane of an object at the first call of this method on it. It must not raise.
    """

    @wraps(original)
    def call(
        instance: Any, first: Any = _MISSING, second: Any = _MISSING, /, *rest: Any, **named: Any
    ) -> Any:
        try:
            lane = instance._quantmon_probe.lanes[method]
        except (AttributeError, KeyError):
            lane = lane_of(instance, method)
        if lane is None or (lane.idle and not lane.wake()):
            # Passing arguments on as they come costs 0.4 µs more than naming them, here and below.
            if rest or named:
                return original(instance, *_given(first, second), *rest, **named)
            if second is not _MISSING:
                return original(instance, first, second)
            return original(instance) if first is _MISSING else original(instance, first)
        context = current_context()
        if lane.careful or (context and suppressed(context)):
            return call_with_care(
                call, original, lane, context, instance, (*_given(first, second), *rest), named
            )
        in_flight = lane.in_flight
        in_flight.append(None)
        start = perf_counter_ns()
        try:
            if rest or named:
                result = original(instance, *_given(first, second), *rest, **named)
            elif second is not _MISSING:
                result = original(instance, first, second)
            elif first is _MISSING:
                result = original(instance)
            else:
                result = original(instance, first)
        except BaseException as error:
            end = perf_counter_ns()
            with guarded:
                in_flight.pop()
                described = instance, (*_given(first, second), *rest), named, None
                finish(lane, start, end, context, described, error)
            raise
        end = perf_counter_ns()
        try:
            in_flight.pop()
            duration = end - start
            credit = lane.credit + duration
            # In a context there may be a parent, unless its spans are not wanted.
            in_context = context and lane.spans_in_context
            if in_context or credit >= lane.span_due or lane.to_warm_up > 0:
                if not (in_context and finish_plain(lane, context, end, duration)):
                    described = instance, (*_given(first, second), *rest), named, result
                    finish(lane, start, end, context, described, None)
            else:
                lane.credit = credit
                if lane.measure is not None:
                    lane.moved.append(measured(lane, (*_given(first, second), *rest), named, result))
                lane.ends.append(end)
                lane.durations.append(duration)
                if len(lane.durations) >= lane.limit:
                    lane.observer.recorder.relieve(lane)
        except Exception as error:  # noqa: BLE001  the guard of the project
            internal_error(error)
        return result

    return call  # type: ignore[return-value]  # wraps() keeps the signature for the reader, not for the checker


# In place of an argument that was not given. The methods that matter take none or two by position, and those
# cost least when they have names.
_MISSING: Any = object()


def _given(first: Any, second: Any) -> tuple[Any, ...]:
    if second is not _MISSING:
        return first, second
    return () if first is _MISSING else (first,)
