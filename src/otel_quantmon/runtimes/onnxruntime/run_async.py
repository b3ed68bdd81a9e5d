"""`InferenceSession.run_async`: the call is over when its callback runs, on a thread of the runtime.

The session must not die on that thread, as it would if what is kept for the callback were the last to refer to it: ONNX
Runtime then has the main thread destroy it, which holds the interpreter's lock and waits for that very thread, and what
is yet to run there in Python, such as the callback of a weak reference, waits for the lock. So only a weak reference is
kept, and whoever makes a strong one there of it has it let go elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import perf_counter_ns
from typing import Any, TypeAlias, TypeVar
from weakref import ref

from otel_quantmon.guard import guarded, internal_error, pass_on
from otel_quantmon.models.description import Call, Method
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.probe.completion import complete, complete_plain, measured
from otel_quantmon.probe.fast_path import Idle, StateOf
from otel_quantmon.process.watchdog import Ticket
from otel_quantmon.process.worker import worker
from otel_quantmon.telemetry.api import Context
from otel_quantmon.telemetry.context import current_context, suppressed

__all__ = ["observed_async"]

F = TypeVar("F", bound=Callable[..., Any])

# Position of the callback after the session, in every release, and arguments that are always given.
_CALLBACK = 2
_REQUIRED = 4

# What of a call is needed when it is over: its state, its context, when it began, and the arguments.
_Carried: TypeAlias = tuple[
    CallState, Context, list[int], "ref[Any]", Any, Any, Callable[[Any, Any, str], Any], Any, tuple[Any, ...]
]

# In place of an argument that was not given.
_MISSING: Any = object()


def observed_async(original: F, method: Method, state_of: StateOf, idle: Idle) -> F:
    """Wrap ``original``, whose third argument or ``callback`` is called as ``(results, user_data, error)``.

    A request hook is given the span after the call, as for a call that gets its span late.
    """
    asleep: Idle | None = idle

    @wraps(original)
    def call(
        session: Any = _MISSING,
        names: Any = _MISSING,
        feeds: Any = _MISSING,
        callback: Any = _MISSING,
        user_data: Any = _MISSING,
        /,
        *rest: Any,
        **named: Any,
    ) -> Any:
        nonlocal asleep
        if asleep is not None:
            # As in `observed`.
            if asleep():
                given = (session, names, feeds, callback, user_data, *rest)
                return original(*[value for value in given if value is not _MISSING], **named)
            asleep = None
        try:
            state = session._quantmon_probe.states[method]
        except (AttributeError, KeyError):
            state = state_of(session, method)
        except Exception as error:  # noqa: BLE001  a subclass's `__getattr__` may raise anything
            pass_on(error)
            state = state_of(session, method)
        context = current_context()
        if state is None or state.slow or user_data is _MISSING or named or (context and suppressed(context)):
            given = (session, names, feeds, callback, user_data, *rest)
            args = tuple(value for value in given if value is not _MISSING)
            if state is None or suppressed(context) or (state.asleep and not state.wake()):
                return original(*args, **named)
            return _take_slow_path(call, original, state, context, args, named)
        in_flight = state.in_flight
        # When it began. Of the callback and an exception that follows it, as a handler of a signal may raise, the one
        # that takes this out accounts for the call.
        under_way = [0]
        # In place of the application's own: a function made for the call, or a `partial`, would cost a fifth more.
        carried: _Carried = state, context, under_way, ref(session), names, feeds, callback, user_data, rest
        try:
            # First in the `try`, see `observed`.
            in_flight.append(None)
            under_way[0] = perf_counter_ns()
            if rest:
                return original(session, names, feeds, _over, carried, *rest)
            return original(session, names, feeds, _over, carried)
        except BaseException as error:
            start = _taken_from(under_way)
            if start is not None:
                in_flight.pop()
                end = perf_counter_ns()
                with guarded:
                    # Else it was cut short before the call was made.
                    if start:
                        described: Call = session, (names, feeds, callback, user_data, *rest), {}, None
                        complete(state, start, end, context, described, error)
            raise

    return call  # type: ignore[return-value]  # as in `observed`


def _taken_from(under_way: list[int]) -> int | None:
    # Asked first and then taken, the callback could come in between.
    try:
        return under_way.pop()
    except IndexError:
        return None


def _over(results: Any, carried: _Carried, error: str) -> Any:
    """Take note of a call that is over, and call the application's callback."""
    end = perf_counter_ns()
    state, context, under_way, reference, names, feeds, callback, user_data, rest = carried
    try:
        start = under_way.pop()
    except IndexError:
        return callback(results, user_data, error)
    state.in_flight.pop()
    try:
        duration = end - start
        credit = state.credit + duration
        measure = state.measure
        kind = None
        if measure is not None and state.kind_of is not None and not error:
            kind = state.kind_of(names, feeds, results)
        # With what became known while the call ran.
        notable = error or state.slow
        in_context = context and state.spans_in_context
        if notable or in_context or (credit >= state.look_at and state.look(credit, duration)):
            if notable or not (in_context and complete_plain(state, context, end, duration, kind)):
                given = names, feeds, callback, user_data, *rest
                # The runtime gives a callback the text of its status alone, neither its code nor its class.
                failure = RuntimeError(error) if error else None
                moved = None if error else results
                _complete(state, (start, end), context, (reference, given, {}, moved), failure)
        else:
            state.credit = credit
            if measure is not None:
                io = kind.io if kind is not None else measured(state, (names, feeds), {}, results)
                state.moved.append(io)
            state.ends.append(end)
            state.durations.append(duration)
    except Exception as problem:  # noqa: BLE001  the guard of the project
        internal_error(problem)
    finally:
        # Also after what is passed on: the application may wait for it.
        answer = callback(results, user_data, error)
    return answer


def _complete(
    state: CallState,
    times: tuple[int, int],
    context: Context,
    call: tuple[ref[Any], tuple[Any, ...], dict[str, Any], Any],
    error: BaseException | None,
    *,
    timed_out: bool = False,
) -> None:
    """Complete a call on the runtime's thread; only hooks are given its session, None if that has gone."""
    session = None if state.hookless else call[0]()
    try:
        complete(state, *times, context, (session, *call[1:]), error, timed_out=timed_out)
    finally:
        if session is not None:
            # By now the application may have let go of it.
            let_go = [session]
            del session
            worker.submit(let_go.clear)


def _take_slow_path(
    call: Callable[..., Any],
    original: Callable[..., Any],
    state: CallState,
    context: Context,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a call of which more is wanted than its times, or whose callback is not where it is documented.

    Args:
        call: The observed method itself, which takes the short way for a call that is to be calibrated.
        original: The runtime's method.
        state: State of the calls.
        context: Context that the call is made in.
        args: The session, and the positional arguments.
        kwargs: The other arguments.
    """
    session, args = args[0], args[1:]
    if len(args) <= _CALLBACK and "callback" not in kwargs:
        return original(session, *args, **kwargs)
    if len(args) >= _REQUIRED and not kwargs and state.starts_calibrating():
        return _calibrate(call, state, session, args)
    state.settle()
    callback = args[_CALLBACK] if len(args) > _CALLBACK else kwargs["callback"]
    ticket: Ticket | None = None
    in_flight, under_way = state.in_flight, [True]
    start = 0
    reference = ref(session)

    def over(result: Any, error: BaseException | None) -> None:
        # As above.
        try:
            under_way.pop()
        except IndexError:
            return
        in_flight.pop()
        end = perf_counter_ns()
        with guarded:
            if ticket is not None and state.timeouts is not None:
                state.timeouts.disarm(ticket)
            # Else it was cut short before the call was made.
            if start:
                timed_out = ticket is not None and ticket.expired and error is not None
                made = reference, args, kwargs, result
                # The observation's own time until here is another thread's, and long past.
                _complete(state, (start, end), context, made, error, timed_out=timed_out)

    def observed_callback(results: Any, user_data: Any, error: str) -> Any:
        try:
            over(None if error else results, RuntimeError(error) if error else None)
        finally:
            # As above.
            answer = callback(results, user_data, error)
        return answer

    own_args, own_kwargs = args, kwargs
    try:
        in_flight.append(None)
        if state.timeouts is not None and state.timeout is not None:
            with guarded:
                ticket, own_args, own_kwargs = state.timeouts.arm(
                    state.method.name, args, kwargs, state.timeout
                )
        if len(own_args) > _CALLBACK:
            own_args = (*own_args[:_CALLBACK], observed_callback, *own_args[_CALLBACK + 1 :])
        else:
            own_kwargs = {**own_kwargs, "callback": observed_callback}
        start = perf_counter_ns()
        return original(session, *own_args, **own_kwargs)
    except BaseException as error:
        over(None, error)
        raise


def _calibrate(call: Callable[..., Any], state: CallState, session: Any, args: tuple[Any, ...]) -> Any:
    """Learn from one call what the observation of the like costs, on both threads."""
    waiting = len(state.durations)
    callback = args[_CALLBACK]

    def calibrated(results: Any, user_data: Any, error: str) -> Any:
        took = perf_counter_ns() - began
        with guarded:
            state.learn_overhead(took, waiting)
        return callback(results, user_data, error)

    began = perf_counter_ns()
    return call(session, *args[:_CALLBACK], calibrated, *args[_CALLBACK + 1 :])
