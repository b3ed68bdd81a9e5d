"""What becomes of a call that is over: its span if it gets one, and its record."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from otel_quantmon.guard import internal_error
from otel_quantmon.probe.ambient import parent_in
from otel_quantmon.probe.lane import Lane, Note
from otel_quantmon.probe.loaded import IO, Call
from otel_quantmon.probe.spans import Told, end_span, make_span, may_be_sampled
from otel_quantmon.telemetry.spans import unix_time

__all__ = ["TIMEOUT", "error_type_of", "finish", "finish_plain", "measured"]

TIMEOUT = "timeout"
"""Value of ``error.type`` for a call that ran past its timeout."""


def finish(
    lane: Lane,
    start: int,
    end: int,
    context: Context,
    call: Call,
    error: BaseException | None,
    span: Span | None = None,
    *,
    before: int = 0,
    timed_out: bool = False,
) -> SpanContext | None:
    """Account for a call that is over: its span if it gets one, and its record.

    Returns the context of the span if that was sampled.

    Args:
        lane: of the call.
        start: when the runtime began, by `time.perf_counter_ns` as the next.
        end: when the runtime was done.
        context: that the call was made in.
        call: what was called, with what, and the result.
        error: what the call raised.
        span: that was started before the call, if any.
        before: nanoseconds of observation before the call.
        timed_out: True if the call was ended at its timeout; one that overran it is found here.
    """
    duration = end - start
    error_type = None
    if timed_out or (error is None and lane.timeout is not None and duration > lane.timeout * 1e9):
        error_type = TIMEOUT
    elif error is not None:
        error_type = error_type_of(error)
    told = None
    if error_type is not None or lane.to_warm_up > 0 or lane.anomaly is not None:
        told = Told(error, error_type, lane.to_warm_up > 0, lane.anomaly)
        lane.to_warm_up -= told.warmup
        lane.anomaly = None
    io = measured(lane, *call[1:]) if lane.measure is not None and error is None else None
    shown: SpanContext | None = None
    withheld = False
    try:
        if span is not None:
            shown = end_span(lane, span, call, end, told)
        elif lane.spans != "none":
            shown, withheld = _span_of(lane, context, call, start, end, told)
    except Exception as problem:  # noqa: BLE001  a tracer that raises costs the span, not the record
        internal_error(problem)
    warmup = told is not None and told.warmup
    _append(
        lane,
        end,
        duration,
        io,
        (error_type, shown, warmup, withheld, error is not None, before + perf_counter_ns() - end),
    )
    return shown


def _append(lane: Lane, end: int, duration: int, io: IO | None, note: tuple[Any, ...]) -> None:
    # Note(...) itself takes four times as long.
    lane.noted.append((end, duration, io, tuple.__new__(Note, note)))  # pyright: ignore[reportUnknownMemberType]  of tuple
    if len(lane.noted) >= lane.limit:
        lane.observer.recorder.relieve(lane)


def finish_plain(lane: Lane, context: Context, end: int, duration: int) -> bool:
    """Do what `finish` does for a success under a parent that records, of which there is nothing else to tell.

    False if it is not such a call. The short way saves some 4 µs of the 65 that such a span takes.
    """
    attributes = lane.span_attributes
    if attributes is None or not lane.plain_spans or lane.to_warm_up > 0:
        return False
    parent = parent_in(context)
    if parent is None or not parent.is_recording():
        return False
    ended = unix_time(end)
    shown: SpanContext | None = None
    try:
        shown = lane.observer.spans.make(lane.span_name, context, attributes, ended - duration, ended)
    except Exception as problem:  # noqa: BLE001  a tracer that raises costs the span, not the record
        internal_error(problem)
    _append(lane, end, duration, None, (None, shown, False, False, False, perf_counter_ns() - end))
    return True


def _span_of(
    lane: Lane, context: Context, call: Call, start: int, end: int, told: Told | None
) -> tuple[SpanContext | None, bool]:
    """Make the span of a call if it gets one; its context if that was sampled, and whether the budget withheld it."""
    parent = parent_in(context) if context else None
    mode = lane.spans
    if (
        (parent is not None and parent.is_recording())
        or mode == "all"
        or (mode == "auto" and told is not None and told.notable)
    ):
        return make_span(lane, context, call, start, end, told), False
    if mode != "auto" or not (parent is None or may_be_sampled(parent)):
        return None, False
    lane.credit += end - start
    if lane.credit < lane.span_due:
        return None, True
    # Also where traces are off: with its credit kept, every later call would come this way.
    lane.pay_span()
    if not lane.observer.spans.recording():
        return None, False
    began = perf_counter_ns()
    shown = make_span(lane, context, call, start, end, told)
    lane.observer.spans.spent(perf_counter_ns() - began)
    return shown, False


def measured(lane: Lane, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> IO | None:
    """What a call moved, None where that is fixed or unknown."""
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
