"""What becomes of a call that is over: its span if it gets one, and its record."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from otel_quantmon.guard import internal_error
from otel_quantmon.models.description import IO, Call, CallKind
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.probe.span_content import end_span, make_span, may_be_sampled, template_of
from otel_quantmon.recording.outcome import TIMEOUT, Outcome, error_type_of
from otel_quantmon.telemetry.api import Context, Span, SpanContext
from otel_quantmon.telemetry.context import parent_in
from otel_quantmon.telemetry.spans import unix_time

__all__ = ["complete", "complete_plain", "measured"]


def complete(
    state: CallState,
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
    """Complete a call that is over: make its span if it gets one, and leave its record.

    Returns the context of the span if that was sampled.

    Args:
        state: State of the call.
        start: Time at which the runtime began, by `time.perf_counter_ns` as the next.
        end: Time at which the runtime was done.
        context: Context in which the call was made.
        call: Object, arguments and result of the call.
        error: Exception that the call raised.
        span: Span that was started before the call, if any.
        before: Nanoseconds of observation before the call.
        timed_out: True if the call was ended at its timeout; one that overran it is found here.
    """
    duration = end - start
    error_type = None
    if timed_out or (error is None and state.timeout is not None and duration > state.timeout * 1e9):
        error_type = TIMEOUT
    elif error is not None:
        error_type = error_type_of(error)
    outcome = None
    if error_type is not None or state.to_warm_up > 0 or state.anomaly is not None:
        outcome = Outcome(error, error_type, state.to_warm_up > 0, state.anomaly)
        state.to_warm_up -= outcome.warmup
        state.anomaly = None
    io = measured(state, *call[1:]) if state.measure is not None and error is None else None
    shown: SpanContext | None = None
    withheld = False
    try:
        if span is not None:
            shown = end_span(state, span, call, end, outcome)
        elif state.span_mode != "none":
            shown, withheld = _span_of(state, context, call, start, end, outcome)
    except Exception as problem:  # noqa: BLE001  a tracer that raises costs the span, not the record
        internal_error(problem)
    finally:
        # Also when the application raises in between: the call is over all the same.
        _keep(
            state,
            end,
            duration,
            io,
            shown,
            error_type=error_type,
            warmup=outcome is not None and outcome.warmup,
            withheld=withheld,
            failed=error is not None,
            overhead=before + perf_counter_ns() - end,
        )
    return shown


def _keep(
    state: CallState,
    end: int,
    duration: int,
    io: IO | None,
    span: SpanContext | None,
    *,
    error_type: str | None = None,
    warmup: bool = False,
    withheld: bool = False,
    failed: bool = False,
    overhead: int,
) -> None:
    """Leave a call with its outcome for the recorder. The error is not kept: it holds frames."""
    fields = (None, error_type, warmup, None, span, withheld, failed, overhead)
    # Outcome(...) itself takes four times as long.
    state.records.append((end, duration, io, tuple.__new__(Outcome, fields)))  # pyright: ignore[reportUnknownMemberType]  of tuple
    if len(state.records) >= state.limit:
        state.recorder.flush(state)


def complete_plain(
    state: CallState, context: Context, end: int, duration: int, kind: CallKind | None
) -> bool:
    """Do what `complete` does for a success under a parent that records, whose ``kind`` says all of it.

    False if it is not such a call. The short way takes a third of what `complete` takes for such a span.
    """
    template = template_of(state, kind)
    if template is None or state.to_warm_up > 0 or (kind is None and state.measure is not None):
        return False
    parent = parent_in(context)
    if parent is None or not parent.is_recording():
        return False
    ended = unix_time(end)
    shown: SpanContext | None = None
    try:
        shown = state.providers.spans.make(template, context, parent, ended - duration, ended)
    except Exception as problem:  # noqa: BLE001  a tracer that raises costs the span, not the record
        internal_error(problem)
    finally:
        # As above.
        io = None if kind is None else kind.io
        _keep(state, end, duration, io, shown, overhead=perf_counter_ns() - end)
    return True


def _span_of(
    state: CallState, context: Context, call: Call, start: int, end: int, outcome: Outcome | None
) -> tuple[SpanContext | None, bool]:
    """Make the span of a call if it gets one; its context if that was sampled, and whether the budget withheld it."""
    parent = parent_in(context) if context else None
    mode = state.span_mode
    if (
        (parent is not None and parent.is_recording())
        or mode == "all"
        or (mode == "auto" and outcome is not None and outcome.notable)
    ):
        return make_span(state, context, call, start, end, outcome), False
    if mode != "auto" or not (parent is None or may_be_sampled(parent)):
        return None, False
    state.credit += end - start
    if state.credit < state.span_due:
        return None, True
    # Also where traces are off: with its credit kept, every later call would come this way.
    state.pay_span()
    if not state.providers.spans.recording():
        return None, False
    began = perf_counter_ns()
    shown = make_span(state, context, call, start, end, outcome)
    state.providers.spans.spent(perf_counter_ns() - began)
    return shown, False


def measured(state: CallState, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> IO | None:
    """Return what a call moved, None where that is fixed or unknown."""
    measure = state.measure
    try:
        return None if measure is None else measure(state.model.loaded, args, kwargs, result)
    except Exception as problem:  # noqa: BLE001  an unusual tensor costs its size, not the record
        internal_error(problem)
        return None
