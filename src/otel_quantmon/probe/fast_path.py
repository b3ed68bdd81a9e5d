"""What runs around every inference. Each line here is paid for by every call of a 5 µs model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import perf_counter_ns
from typing import Any, TypeAlias, TypeVar

from otel_quantmon.guard import guarded, internal_error, pass_on
from otel_quantmon.models.description import Method
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.probe.completion import complete, complete_plain, measured
from otel_quantmon.probe.slow_path import take_slow_path
from otel_quantmon.telemetry.context import current_context, suppressed

__all__ = ["PROBE", "Idle", "StateOf", "observed"]

PROBE = "_quantmon_probe"
"""Attribute of a runtime's object that holds its probe, or None if it is not to be observed."""

F = TypeVar("F", bound=Callable[..., Any])
StateOf: TypeAlias = Callable[[Any, Method], CallState | None]
Idle: TypeAlias = Callable[[], bool]


def observed(  # noqa: PLR0915  one body, for its cost
    original: F, method: Method, state_of: StateOf, idle: Idle | None = None
) -> F:
    """Wrap ``original``, a method that runs an inference and returns when it is over.

    Args:
        original: The method as found on its class.
        method: Description of the method, the key of its call state.
        state_of: Finds the call state of an object at the first call of this method on it. It must not raise.
        idle: Tells whether there is nowhere to report to. Once it has said no, it is not asked again.
    """
    asleep = idle

    @wraps(original)
    def call(  # noqa: PLR0911, PLR0915  as above
        instance: Any = _MISSING, first: Any = _MISSING, second: Any = _MISSING, /, *rest: Any, **named: Any
    ) -> Any:
        nonlocal asleep
        if asleep is not None:
            # A call state says the same; asked here, that need not be looked for.
            if asleep():
                # Passing arguments on as they come costs 0.4 µs more than naming them, here and below.
                if rest or named:
                    return original(*_given(instance, first, second), *rest, **named)
                if second is not _MISSING:
                    return original(instance, first, second)
                if first is not _MISSING:
                    return original(instance, first)
                return original() if instance is _MISSING else original(instance)
            asleep = None
        try:
            state = instance._quantmon_probe.states[method]
        except (AttributeError, KeyError):
            state = state_of(instance, method)
        except Exception as error:  # noqa: BLE001  a subclass's `__getattr__` may raise anything
            pass_on(error)
            state = state_of(instance, method)
        if state is None or state.slow:
            if state is None or (state.asleep and not state.wake()):
                return original(*_given(instance, first, second, *rest), **named)
            return take_slow_path(call, original, state, instance, _given(first, second, *rest), named)
        context = current_context()
        if context and suppressed(context):
            return take_slow_path(call, original, state, instance, _given(first, second, *rest), named)
        in_flight = state.in_flight
        start = 0
        try:
            # A handler of a signal may raise wherever a call has returned, and where a loop or a function begins. So
            # this is the first in the `try`, and `pop` comes first after it: the two always go together.
            in_flight.append(None)
            start = perf_counter_ns()
            if rest or named:
                result = original(instance, *_given(first, second, *rest), **named)
            elif second is not _MISSING:
                result = original(instance, first, second)
            elif first is _MISSING:
                result = original(instance)
            else:
                result = original(instance, first)
            end = perf_counter_ns()
        except BaseException as error:
            # A debugger may have ended the program before the first line of all.
            if in_flight:
                in_flight.pop()
            end = perf_counter_ns()
            with guarded:
                # Else it was cut short before the call was made.
                if start:
                    described = instance, _given(first, second, *rest), named, None
                    complete(state, start, end, context, described, error)
            raise
        in_flight.pop()
        try:
            duration = end - start
            credit = state.credit + duration
            measure = state.measure
            kind = None
            if measure is not None and state.kind_of is not None and not (rest or named):
                if state.fed is not None and not first:
                    # What `kind_of` does, without its call.
                    try:
                        fed = second[state.fed]
                        if fed.__class__ is state.array:
                            kind = state.kinds_by_size.get(state.size_of(fed))
                    except (AttributeError, LookupError, TypeError) as error:
                        # An application's own kind of mapping.
                        pass_on(error)
                if kind is None:
                    kind = state.kind_of(first, second, result)
            # In a context there may be a parent, unless its spans are not wanted.
            in_context = context and state.spans_in_context
            if in_context or (credit >= state.look_at and state.look(credit, duration)):
                if not (in_context and complete_plain(state, context, end, duration, kind)):
                    described = instance, _given(first, second, *rest), named, result
                    complete(state, start, end, context, described, None)
            else:
                state.credit = credit
                moved = None
                if kind is not None:
                    moved = kind.io
                elif measure is not None:
                    moved = measured(state, _given(first, second, *rest), named, result)
                # Whatever is raised in between, the columns stay of one length.
                try:
                    if measure is not None:
                        state.moved.append(moved)
                finally:
                    try:
                        state.ends.append(end)
                    finally:
                        state.durations.append(duration)
        except Exception as error:  # noqa: BLE001  the guard of the project
            internal_error(error)
        return result

    return call  # type: ignore[return-value]  # wraps() keeps the signature for the reader, not for the checker


# In place of an argument that was not given. The methods that matter take none or two by position, and those
# cost least when they have names.
_MISSING: Any = object()


def _given(*arguments: Any) -> tuple[Any, ...]:
    return tuple([argument for argument in arguments if argument is not _MISSING])
