"""Methods replaced on classes, and put back exactly as they were."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from inspect import signature
from types import FunctionType
from typing import Any, NamedTuple

from otel_quantmon.guard import guarded

__all__ = ["Patches"]

_logger = logging.getLogger("otel_quantmon")


class _Patch(NamedTuple):
    owner: type
    name: str
    original: Any
    replacement: Any


class Patches:
    """The patches of one instrumentor."""

    def __init__(self) -> None:
        self._applied: list[_Patch] = []

    def apply(self, cls: type, name: str, wrap: Callable[[Any], Any]) -> None:
        """Replace ``cls.name``, where in its bases it is defined, by ``wrap(original)``.

        ``wrap`` gets a function of the instance (of the class, for a classmethod) and the arguments, whatever
        another tracer has put in the method's place. A class that has no such method is left alone: a runtime's
        next release may drop one, and the rest goes on.
        """
        owner = next((base for base in cls.__mro__ if name in vars(base)), object)
        if owner is object:
            _logger.debug("%s.%s does not exist in this release; it is not observed", cls.__qualname__, name)
            return
        # One that cannot be replaced costs no other: an attachment is made whole, and can be undone.
        with guarded:
            original = vars(owner)[name]
            replacement = wrap(_function(original))
            # `inspect.getfullargspec` does not look below a wrapper.
            with suppress(TypeError, ValueError, NameError, AttributeError):
                replacement.__signature__ = signature(_function(original))
            setattr(owner, name, replacement)
            self._applied.append(_Patch(owner, name, original, replacement))

    def undo(self) -> None:
        """Put back every original that nobody has wrapped since.

        One that somebody has wrapped stays below their wrapper, where it finds no call state and only passes through.
        """
        while self._applied:
            patch = self._applied.pop()
            if vars(patch.owner).get(patch.name) is patch.replacement:
                setattr(patch.owner, patch.name, patch.original)


def _function(member: Any) -> Callable[..., Any]:
    # By type: a wrapt.FunctionWrapper passes for the function that it wraps, but called as one it would take the
    # instance for the first argument.
    if type(member) is FunctionType:
        return member

    @wraps(member)
    def call(holder: Any, /, *args: Any, **kwargs: Any) -> Any:
        bind = getattr(member, "__get__", None)
        if bind is None:
            return member(*args, **kwargs)
        instance, owner = (None, holder) if isinstance(holder, type) else (holder, type(holder))
        return bind(instance, owner)(*args, **kwargs)

    return call
