"""Packages that a command needs beside the library."""

from __future__ import annotations

from importlib.util import find_spec

from otel_quantmon.errors import CommandError

__all__ = ["need"]


def need(what: str, extra: str, *modules: str) -> None:
    """See that ``modules`` are installed.

    Raises:
        CommandError: One is missing; says which extra brings it to ``what``.
    """
    for module in modules:
        try:
            found = find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise CommandError(f"{what} needs the package of {module}: pip install 'otel-quantmon[{extra}]'")
