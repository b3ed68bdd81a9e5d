"""One place where the project's own failures end: logged once, and never seen by the application.

In the hot path the guard is a bare ``except Exception`` that calls `internal_error`: a ``try`` that does not
raise costs nothing. Elsewhere `guarded` is the context manager of the same meaning; it keeps no state, so
one instance serves every thread and guarding allocates nothing.

Not all that is raised while code of this project runs is raised by it. A handler of a signal runs between any two
instructions of the main thread, and what it raises (a time limit, mostly) is meant for the application; so is what
another thread sets with ``PyThreadState_SetAsyncExc``, and what a debugger raises to end a program. `pass_on` knows
these by their traceback, which only exists once something was raised.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from inspect import CO_VARARGS, CO_VARKEYWORDS
from opcode import opname
from types import CodeType, FrameType, TracebackType
from typing import Any, cast

__all__ = ["guarded", "internal_error", "pass_on"]

_logger = logging.getLogger("otel_quantmon")

# A failure in the hot path would otherwise log at the rate of the inferences.
_MOST_PLACES = 100
_reported: set[tuple[str, int, type[BaseException]]] = set()


def internal_error(error: Exception) -> None:
    """Report ``error``, raised by code of this project, and swallow it.

    Logged with its traceback the first time that it comes from a place in the code. Raised again under
    pytest, so that a bug of ours fails the test that met it; ``QUANTMON_TEST_GUARD=swallow`` keeps even
    a test in production's behaviour.

    Raises:
        Exception: ``error``, if it is the application's (see `pass_on`).
    """
    pass_on(error)
    if "PYTEST_CURRENT_TEST" in os.environ and os.environ.get("QUANTMON_TEST_GUARD") != "swallow":
        raise error
    place = _place(error)
    if place in _reported or len(_reported) >= _MOST_PLACES:
        return
    _reported.add(place)
    try:
        _logger.error(
            "otel-quantmon failed in itself and steps aside; the application is not affected", exc_info=error
        )
    except Exception as problem:  # noqa: BLE001  a log handler that raises is the last thing that may stop a run
        pass_on(problem)


def pass_on(error: Exception) -> None:
    """Raise ``error`` again if the application has raised it, or what it came of, in the midst of this project's code.

    For every ``except`` of a class that a handler of a signal may raise too, `TimeoutError` (an `OSError`) above
    all. To be called while ``error`` is handled, so that its traceback begins where it was caught.
    """
    theirs = _of_the_application(error)
    if theirs is not None:
        raise theirs


def _way(error: BaseException) -> list[TracebackType]:
    """Return the way of ``error``, from where it was caught to where it was raised."""
    way: list[TracebackType] = []
    step = error.__traceback__
    while step is not None:
        way.append(step)
        step = step.tb_next
    return way


def _place(error: BaseException) -> tuple[str, int, type[BaseException]]:
    way = _way(error)
    return (
        (way[-1].tb_frame.f_code.co_filename, way[-1].tb_lineno, type(error)) if way else ("", 0, type(error))
    )


# Instructions at which the interpreter looks for what is to be done in between, and that raise nothing themselves.
_RAISE_NOTHING = ("RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")
_RAISE = ("RAISE_VARARGS", "RERAISE")
# Whose code is known to raise classes of its own or of the standard library only, also where it calls C.
_OURS = frozenset({"otel_quantmon", "opentelemetry", "wrapt"})
_KNOWN = _OURS | sys.stdlib_module_names
# Classes of Python's own that C code raises without saying why.
_BARE = (StopIteration, StopAsyncIteration, MemoryError, EOFError)
# Runtimes, and what else code of ours calls that raises classes of its own.
_CALLED = frozenset(
    {"ai_edge_litert", "numpy", "onnxruntime", "psutil", "tensorflow", "tflite_runtime", "zstandard"}
)


def _of_the_application(error: BaseException) -> BaseException | None:
    """Return what the application has raised: ``error``, or what that came of on its way through our code.

    What is raised in the midst of a wait for a condition, such as that in `threading.Thread.start`, may come out of it
    as a `RuntimeError`, for a lock that is not held. What the application handled before did not come through our code.
    """
    if _is_of_the_application(error):
        return error
    frames = {step.tb_frame for step in _way(error)}
    came_of = error.__context__
    while came_of is not None and came_of.__traceback__ is not None:
        if came_of.__traceback__.tb_frame not in frames:
            break
        if not isinstance(came_of, Exception) or _is_of_a_handler(came_of):
            return came_of
        came_of = came_of.__context__
    return None


def _is_of_a_handler(error: BaseException) -> bool:
    """Return True if a handler of a signal, or a debugger, has raised ``error``."""
    frames = [step.tb_frame for step in _way(error)]
    if any(map(_interrupts, frames[1:], frames)):
        return True
    return any(frame.f_code is handler for handler in _handlers() for frame in frames[1:])


def _is_of_the_application(error: BaseException) -> bool:
    way = _way(error)
    return bool(way) and (_is_of_a_handler(error) or _is_of_another_thread(error, way))


def _is_of_another_thread(error: BaseException, way: list[TracebackType]) -> bool:
    """Return True if another thread has set ``error``: the interpreter raises that, in whatever frame is running."""
    if _compiled(way[-1].tb_frame.f_code):
        return False
    instruction = _instruction(way[-1])
    if instruction in _RAISE:
        return False
    if instruction in _RAISE_NOTHING:
        return True
    package = _package(type(error).__module__)
    if not {_package(step.tb_frame.f_globals.get("__name__")) for step in way} <= _KNOWN:
        # A hook, an exporter or a runtime: what it calls in C may raise anything.
        return False
    if package not in _KNOWN:
        return package not in _CALLED
    # The interpreter gives it no arguments.
    return package not in _OURS and not error.args and not isinstance(error, _BARE)


def _package(module: object) -> str:
    name = str(module).partition(".")[0]
    # The constructor of a named tuple is in a module that it alone is in.
    return "collections" if name.startswith("namedtuple_") else name


def _interrupts(frame: FrameType, above: FrameType) -> bool:
    """Return True if the interpreter itself has called ``frame`` in the midst of ``above``.

    It gives a handler of a signal, or a debugger, the frame that was interrupted; code that calls a function does not.
    """
    code, values = frame.f_code, frame.f_locals
    rest = bool(code.co_flags & CO_VARARGS) + bool(code.co_flags & CO_VARKEYWORDS)
    for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + rest]:
        value = values.get(name)
        if value is above or (
            isinstance(value, tuple) and any(one is above for one in cast("tuple[Any]", value))
        ):
            return True
    return False


def _handlers() -> Iterator[CodeType]:
    """Yield the code of the handlers in force: one may have let go of its frame."""
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if handler is None or isinstance(handler, signal.Handlers):
            # Left to the system, or set by another than Python.
            continue
        while isinstance(handler, partial):
            handler = handler.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  whatever was given
        for one in (handler, _called_of(cast("object", handler).__class__)):
            code = getattr(one, "__code__", None)
            if isinstance(code, CodeType):
                yield code


def _called_of(kind: type[Any]) -> object:
    """Return what a call of an object of the class ``kind`` runs, None if it cannot be called.

    A class that has no such method still has the one of its own class, which makes its objects: that of an enumeration
    is written in Python, and many exceptions come through it.
    """
    for base in kind.__mro__:
        if "__call__" in vars(base):
            return vars(base)["__call__"]
    return None


def _compiled(code: CodeType) -> bool:
    """Return True if ``code`` only stands for compiled code in a traceback, as Cython has it: nothing runs in it."""
    # What `PyCode_NewEmpty` makes, and Cython itself up to Python 3.10.
    return not code.co_code or (
        not code.co_consts and [opname[each] for each in code.co_code[::2]][2:] == ["RAISE_VARARGS"]
    )


def _instruction(traceback: TracebackType) -> str:
    # Before the first one where a function begins, in Python 3.10.
    if traceback.tb_lasti < 0:
        return "RESUME"
    return opname[traceback.tb_frame.f_code.co_code[traceback.tb_lasti]]


class _Guarded:
    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # KeyboardInterrupt and SystemExit belong to the application, whatever code they happened to meet.
        if not isinstance(error, Exception) or _of_the_application(error) is error:
            return False
        internal_error(error)
        return True


guarded = _Guarded()
