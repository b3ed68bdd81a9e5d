"""What runs around every inference. Each line here is paid for by every call of a 5 µs model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import get_ident
from time import perf_counter_ns
from typing import Any, TypeAlias, TypeVar

from opentelemetry.context import (
    _SUPPRESS_INSTRUMENTATION_KEY,  # pyright: ignore[reportPrivateUsage]  what the API's own instrumentations read
    Context,
    get_current,
)
from opentelemetry.trace import Span, SpanContext, get_current_span

from otel_quantmon.errors import InferenceTimeoutError
from otel_quantmon.guard import guarded, internal_error
from otel_quantmon.probe.lane import Lane, Note
from otel_quantmon.probe.loaded import IO, Call, Method
from otel_quantmon.probe.sampling import Sample
from otel_quantmon.probe.spans import Told, end_span, make_span, may_be_sampled, start_span

__all__ = ["PROBE", "TIMEOUT", "error_type_of", "finish", "observed", "suppressed"]

PROBE = "_quantmon_probe"
"""Attribute of a runtime's object that holds its probe, or None if it is not to be observed."""

TIMEOUT = "timeout"
"""Value of ``error.type`` for a call that ran past its timeout."""

F = TypeVar("F", bound=Callable[..., Any])
LaneOf: TypeAlias = Callable[[Any, Method], Lane | None]


def suppressed(context: Context) -> bool:
    """True if the application has switched instrumentation off in ``context``."""
    # The second key is what `suppress_instrumentation` sets for those who cannot import the first.
    return bool(context.get(_SUPPRESS_INSTRUMENTATION_KEY) or context.get("suppress_instrumentation"))


def observed(original: F, method: Method, lane_of: LaneOf) -> F:
    """Wrap ``original``, a method that runs an inference and returns when it is over.

    Args:
        original: the method as found on its class.
        method: what it is, the key of its lane.
        lane_of: finds the lane of an object at the first call of this method on it. It must not raise.
    """

    @wraps(original)
    def call(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        entered = perf_counter_ns()
        try:
            lane = instance._quantmon_probe.lanes[method]
        except (AttributeError, KeyError):
            lane = lane_of(instance, method)
        if lane is None:
            return original(instance, *args, **kwargs)
        if lane.idle and not lane.wake():
            # Nobody listens. Naming the arguments is what this costs least with, see below.
            if len(args) == 2 and not kwargs:
                return original(instance, args[0], args[1])
            return original(instance, *args, **kwargs)
        context = get_current()
        if lane.careful:
            return _call_with_care(original, lane, entered, context, instance, args, kwargs)
        if context and suppressed(context):
            return original(instance, *args, **kwargs)
        in_flight = lane.in_flight
        thread = get_ident()
        start = in_flight[thread] = perf_counter_ns()
        try:
            # Passing the arguments on as they came costs 0.4 µs more than naming them.
            if kwargs or len(args) > 2:
                result = original(instance, *args, **kwargs)
            elif len(args) == 2:
                result = original(instance, args[0], args[1])
            elif args:
                result = original(instance, args[0])
            else:
                result = original(instance)
        except BaseException as error:
            end = perf_counter_ns()
            in_flight.pop(thread, None)
            with guarded:
                finish(lane, entered, start, end, context, (instance, args, kwargs, None), error)
            raise
        end = perf_counter_ns()
        try:
            in_flight.pop(thread, None)
            credit = lane.credit + (end - start) * lane.budget
            # In a context there may be a parent, unless its spans are not wanted.
            if (context and lane.spans_in_context) or lane.to_warm_up > 0 or credit >= lane.span_cost:
                finish(lane, entered, start, end, context, (instance, args, kwargs, result), None)
            else:
                lane.credit = credit
                io = None
                if lane.measure is not None:
                    io = _measured(lane, args, kwargs, result)
                lane.append((start, end, start - entered + perf_counter_ns() - end, io, None))
                if len(lane.pending) >= lane.limit:
                    lane.observer.recorder.relieve(lane)
        except Exception as error:  # noqa: BLE001  the guard of the project
            internal_error(error)
        return result

    return call  # type: ignore[return-value]  # wraps() keeps the signature for the reader, not for the checker


def _call_with_care(
    original: Callable[..., Any],
    lane: Lane,
    entered: int,
    context: Context,
    instance: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a call that has a timeout or a request hook, or that is to be looked at."""
    if suppressed(context):
        return original(instance, *args, **kwargs)
    span: Span | None = None
    sample: Sample | None = None
    ticket = None
    arguments = args, kwargs
    sampler = lane.sampler
    if sampler is not None and sampler.due:
        with guarded:
            sample = sampler.begin(instance, args, kwargs)
    lane.settle()
    if lane.hooks.request is not None:
        with guarded:
            span = start_span(lane, context, (instance, args, kwargs, None))
    if lane.timeouts is not None and lane.timeout is not None:
        with guarded:
            ticket, args, kwargs = lane.timeouts.arm(lane.method.name, args, kwargs, lane.timeout)
    thread = get_ident()
    start = lane.in_flight[thread] = perf_counter_ns()
    result = None
    failure: BaseException | None = None
    try:
        result = original(instance, *args, **kwargs)
    except BaseException as error:  # noqa: BLE001  raised again below
        failure = error
    end = perf_counter_ns()
    lane.in_flight.pop(thread, None)
    if ticket is not None and lane.timeouts is not None:
        with guarded:
            lane.timeouts.disarm(ticket)
    timed_out = ticket is not None and ticket.expired and isinstance(failure, Exception)
    call = (instance, *arguments, result)
    shown: SpanContext | None = None
    with guarded:
        shown = finish(lane, entered, start, end, context, call, failure, span, timed_out=timed_out)
    if sample is not None and sampler is not None:
        with guarded:
            if failure is None:
                sampler.complete(sample, call, shown)
            else:
                sampler.cancel(sample)
    try:
        if failure is None:
            return result
        if timed_out:
            raise InferenceTimeoutError(lane.model.name, lane.timeout or 0.0) from failure
        raise failure
    finally:
        # The frame is in the error's traceback: without this the two would keep each other alive.
        del failure


def finish(
    lane: Lane,
    entered: int,
    start: int,
    end: int,
    context: Context,
    call: Call,
    error: BaseException | None,
    span: Span | None = None,
    *,
    timed_out: bool = False,
) -> SpanContext | None:
    """Account for a call that is over: its span if it gets one, and its record.

    Returns the context of the span if that was sampled.

    Args:
        lane: of the call.
        entered: when the observation began, by `time.perf_counter_ns` as the next two.
        start: when the runtime began.
        end: when the runtime was done.
        context: that the call was made in.
        call: what was called, with what, and the result.
        error: what the call raised.
        span: that was started before the call, if any.
        timed_out: True if the call was ended at its timeout; one that overran it is found here.
    """
    duration = end - start
    warmup = False
    if lane.to_warm_up > 0:
        lane.to_warm_up -= 1
        warmup = True
    error_type = None
    if timed_out or (error is None and lane.timeout is not None and duration > lane.timeout * 1e9):
        error_type = TIMEOUT
    elif error is not None:
        error_type = error_type_of(error)
    io = _measured(lane, *call[1:]) if lane.measure is not None and error is None else None
    anomaly = lane.anomaly
    if anomaly is not None:
        lane.anomaly = None
    told = Told(error, error_type, warmup, anomaly)
    shown: SpanContext | None = None
    withheld = False
    try:
        if span is not None:
            shown = end_span(lane, span, call, end, told)
        elif lane.spans != "none":
            shown, withheld = _span_of(lane, context, call, start, end, told)
    except Exception as problem:  # noqa: BLE001  a tracer that raises costs the span, not the record
        internal_error(problem)
    note = Note(error_type, shown, warmup, withheld)
    lane.append((start, end, start - entered + perf_counter_ns() - end, io, note))
    if len(lane.pending) >= lane.limit:
        lane.observer.recorder.relieve(lane)
    return shown


def _span_of(
    lane: Lane, context: Context, call: Call, start: int, end: int, told: Told
) -> tuple[SpanContext | None, bool]:
    """Make the span of a call if it gets one; its context if that was sampled, and whether the budget withheld it."""
    parent = get_current_span(context) if context else None
    wanted = lane.spans == "all" or (lane.spans == "auto" and told.notable)
    if wanted or (parent is not None and parent.is_recording()):
        return make_span(lane, context, call, start, end, told), False
    if lane.spans != "auto" or not (parent is None or may_be_sampled(parent)):
        return None, False
    lane.credit += (end - start) * lane.budget
    if lane.credit < lane.span_cost:
        return None, True
    # Also where traces are off: with its credit kept, every later call would come this way.
    lane.credit = 0.0
    if not lane.observer.spans.recording():
        return None, False
    began = perf_counter_ns()
    shown = make_span(lane, context, call, start, end, told)
    lane.span_cost = lane.observer.spans.spent(perf_counter_ns() - began)
    return shown, False


def _measured(lane: Lane, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> IO | None:
    measure = lane.measure
    try:
        return None if measure is None else measure(lane.model.loaded, args, kwargs, result)
    except Exception as problem:  # noqa: BLE001  an unusual tensor costs its size, not the record
        internal_error(problem)
        return None


def error_type_of(error: BaseException) -> str:
    """The name of the error's class, with its module unless that is built in."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
