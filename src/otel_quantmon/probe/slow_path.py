"""The slow way around an inference: with a timeout, a request hook or a sample, or to calibrate the fast path."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from otel_quantmon.errors import InferenceTimeoutError
from otel_quantmon.fidelity.sample import Sample
from otel_quantmon.guard import guarded
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.probe.completion import complete
from otel_quantmon.probe.span_content import start_span
from otel_quantmon.process.watchdog import Ticket
from otel_quantmon.telemetry.api import Context, Span, SpanContext
from otel_quantmon.telemetry.context import current_context, suppressed

__all__ = ["take_slow_path"]


def take_slow_path(
    call: Callable[..., Any],
    original: Callable[..., Any],
    state: CallState,
    instance: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a call of which more is wanted than its times.

    Args:
        call: The observed method itself, which takes the fast path for a call that is to be calibrated.
        original: The runtime's method.
        state: State of the call.
        instance, args, kwargs: Object and arguments of the call.
    """
    entered = perf_counter_ns()
    context = current_context()
    if suppressed(context):
        return original(instance, *args, **kwargs)
    if state.starts_calibrating():
        return _calibrate(call, state, instance, args, kwargs)
    around = _Around(state, context, instance, args, kwargs)
    in_flight = state.in_flight
    start = 0
    try:
        args, kwargs = around.begin()
        try:
            # First and last, see `observed`.
            in_flight.append(None)
            start = perf_counter_ns()
            result = original(instance, *args, **kwargs)
            end = perf_counter_ns()
        except BaseException as error:
            # As in the fast path.
            if in_flight:
                in_flight.pop()
            end = perf_counter_ns()
            # Else it was cut short before the call was made.
            if start and around.end(start, end, None, error, start - entered):
                raise InferenceTimeoutError(state.model.name, state.timeout or 0.0) from error
            raise
        in_flight.pop()
        around.end(start, end, result, None, start - entered)
        return result
    finally:
        around.let_go()


class _Around:
    """The sample, span and timeout of one call. Each is let go of once, also when the application raises in between."""

    __slots__ = ("_call", "_context", "_sample", "_span", "_state", "_ticket")

    def __init__(
        self, state: CallState, context: Context, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._state = state
        self._context = context
        self._call = instance, args, kwargs
        self._sample: Sample | None = None
        self._span: Span | None = None
        self._ticket: Ticket | None = None

    def begin(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Take the sample, start the span and arm the timeout that are due; the arguments to call with."""
        state = self._state
        instance, args, kwargs = self._call
        if state.sampler is not None and state.sampler.due:
            with guarded:
                self._sample = state.sampler.begin(instance, args, kwargs)
        state.settle()
        if state.hooks.request is not None:
            with guarded:
                self._span = start_span(state, self._context, (*self._call, None))
        if state.timeouts is not None and state.timeout is not None:
            with guarded:
                self._ticket, args, kwargs = state.timeouts.arm(
                    state.method.name, args, kwargs, state.timeout
                )
        return args, kwargs

    def end(self, start: int, end: int, result: Any, error: BaseException | None, before: int) -> bool:
        """Complete the call; True if it was ended at its timeout."""
        state, ticket = self._state, self._ticket
        self._disarm()
        # A call that is to end may reach its result all the same; what is no Exception is not the runtime's answer.
        overran = ticket is not None and ticket.expired and (error is None or isinstance(error, Exception))
        call = *self._call, result
        span, self._span = self._span, None
        shown: SpanContext | None = None
        with guarded:
            shown = complete(
                state, start, end, self._context, call, error, span, before=before, timed_out=overran
            )
        sample, self._sample = self._sample, None
        if sample is not None and state.sampler is not None:
            with guarded:
                state.sampler.end(sample, call, (start, end), shown, failed=error is not None)
        return overran and error is not None

    def let_go(self) -> None:
        """Let go of what is still open."""
        self._disarm()
        if self._span is not None:
            self._span.end()
        if self._sample is not None and self._state.sampler is not None:
            self._state.sampler.cancel(self._sample)

    def _disarm(self) -> None:
        # A ticket that is left would end a later call with the same options.
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._state.timeouts is not None:
            with guarded:
                self._state.timeouts.disarm(ticket)


def _calibrate(
    call: Callable[..., Any], state: CallState, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Learn from one call what the observation of the like costs, which it would cost too much to ask each."""
    waiting = len(state.durations)
    began = perf_counter_ns()
    result = call(instance, *args, **kwargs)
    took = perf_counter_ns() - began
    with guarded:
        state.learn_overhead(took, waiting)
    return result
