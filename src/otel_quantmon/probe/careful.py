"""The slow way around an inference: with a timeout, a request hook or a sample, or to weigh the short way."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from otel_quantmon.errors import InferenceTimeoutError
from otel_quantmon.guard import guarded
from otel_quantmon.probe.ambient import suppressed
from otel_quantmon.probe.ending import finish
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.sampling import Sample
from otel_quantmon.probe.spans import start_span

__all__ = ["call_with_care"]


def call_with_care(
    call: Callable[..., Any],
    original: Callable[..., Any],
    lane: Lane,
    context: Context,
    instance: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a call of which more is wanted than its times.

    Args:
        call: the observed method itself, which takes the short way for a call that is to be weighed.
        original: the runtime's method.
        lane: of the call.
        context: that it is made in.
        instance, args, kwargs: what it is made on, and with.
    """
    entered = perf_counter_ns()
    if suppressed(context):
        return original(instance, *args, **kwargs)
    if lane.starts_weighing():
        return _weigh(call, lane, instance, args, kwargs)
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
    in_flight = lane.in_flight
    in_flight.append(None)
    start = perf_counter_ns()
    result = None
    failure: BaseException | None = None
    try:
        result = original(instance, *args, **kwargs)
    except BaseException as error:  # noqa: BLE001  raised again below
        failure = error
    end = perf_counter_ns()
    in_flight.pop()
    if ticket is not None and lane.timeouts is not None:
        with guarded:
            lane.timeouts.disarm(ticket)
    timed_out = ticket is not None and ticket.expired and isinstance(failure, Exception)
    described = (instance, *arguments, result)
    shown: SpanContext | None = None
    with guarded:
        shown = finish(
            lane,
            start,
            end,
            context,
            described,
            failure,
            span,
            before=start - entered,
            timed_out=timed_out,
        )
    if sample is not None and sampler is not None:
        with guarded:
            sampler.end(sample, described, shown, failed=failure is not None)
    try:
        if failure is None:
            return result
        if timed_out:
            raise InferenceTimeoutError(lane.model.name, lane.timeout or 0.0) from failure
        raise failure
    finally:
        # The frame is in the error's traceback: without this the two would keep each other alive.
        del failure


def _weigh(
    call: Callable[..., Any], lane: Lane, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Learn from one call what the observation of the like costs, which it would cost too much to ask each."""
    waiting = len(lane.durations)
    began = perf_counter_ns()
    result = call(instance, *args, **kwargs)
    took = perf_counter_ns() - began
    with guarded:
        # Unless another thread's call ended meanwhile, and there is no telling whose record is the last.
        if len(lane.durations) == waiting + 1:
            lane.learn_overhead(took - lane.durations[-1])
    return result
