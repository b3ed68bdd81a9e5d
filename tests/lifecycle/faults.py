"""Real providers with one method that fails, and what an application raises itself."""

from __future__ import annotations

from typing import Any


class Fault(Exception):  # noqa: N818  what it is to the observation, an error is what the application has
    """The failure that a test has injected."""


def fail(*_: Any, **__: Any) -> Any:
    """Stands for anything that is broken."""
    raise Fault


class TimeLimit(Exception):  # noqa: N818  as applications name theirs
    """What an application gives up a slow request with."""


class Faulty:
    """Passes everything on to ``real``; what its calls return is wrapped too. Calls of ``broken`` fail."""

    def __init__(self, real: Any, broken: str) -> None:
        self._real, self._broken = real, broken

    def __getattr__(self, name: str) -> Any:
        if name == self._broken:
            return fail
        found = getattr(self._real, name)
        if not name.startswith(("get_", "create_", "start_")) or name == "get_span_context":
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            return Faulty(found(*args, **kwargs), self._broken)

        return call
