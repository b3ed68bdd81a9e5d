"""`InferenceSession.run_async`: the call is over when its callback runs, on a thread of the runtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import perf_counter_ns
from typing import Any, TypeVar

from otel_quantmon.guard import guarded
from otel_quantmon.probe.ambient import current_context, suppressed
from otel_quantmon.probe.ending import finish
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.loaded import Method
from otel_quantmon.probe.watchdog import Ticket

__all__ = ["observed_async"]

F = TypeVar("F", bound=Callable[..., Any])

# Position of the callback after the session, in every release.
_CALLBACK = 2


def observed_async(original: F, method: Method, lane_of: Callable[[Any, Method], Lane | None]) -> F:
    """Wrap ``original``, whose third argument or ``callback`` is called as ``(results, user_data, error)``.

    A request hook is given the span after the call, as for a call that gets its span late.
    """

    @wraps(original)
    def call(session: Any, /, *args: Any, **kwargs: Any) -> Any:
        lane = lane_of(session, method)
        context = current_context()
        if lane is None or suppressed(context) or (len(args) <= _CALLBACK and "callback" not in kwargs):
            return original(session, *args, **kwargs)
        if lane.idle and not lane.wake():
            return original(session, *args, **kwargs)
        callback = args[_CALLBACK] if len(args) > _CALLBACK else kwargs["callback"]
        ticket: Ticket | None = None

        def over(result: Any, error: BaseException | None) -> None:
            end = perf_counter_ns()
            in_flight.pop()
            with guarded:
                if ticket is not None and lane.timeouts is not None:
                    lane.timeouts.disarm(ticket)
                timed_out = ticket is not None and ticket.expired and error is not None
                described = session, args, kwargs, result
                # The observation's own time until here is another thread's, and long past.
                finish(lane, start, end, context, described, error, timed_out=timed_out)

        def observed_callback(results: Any, user_data: Any, error: str) -> Any:
            # The runtime tells a callback the text of its status alone, neither its code nor its class.
            over(None if error else results, RuntimeError(error) if error else None)
            return callback(results, user_data, error)

        own_args, own_kwargs = args, kwargs
        if lane.timeouts is not None and lane.timeout is not None:
            with guarded:
                ticket, own_args, own_kwargs = lane.timeouts.arm(method.name, args, kwargs, lane.timeout)
        if len(own_args) > _CALLBACK:
            own_args = (*own_args[:_CALLBACK], observed_callback, *own_args[_CALLBACK + 1 :])
        else:
            own_kwargs = {**own_kwargs, "callback": observed_callback}
        in_flight = lane.in_flight
        in_flight.append(None)
        start = perf_counter_ns()
        try:
            return original(session, *own_args, **own_kwargs)
        except BaseException as error:
            over(None, error)
            raise

    return call  # type: ignore[return-value]  # as in `observed`
