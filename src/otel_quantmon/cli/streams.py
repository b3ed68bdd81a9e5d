"""The standard streams as the commands need them: open, and able to take every character."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

__all__ = ["prepare_streams", "settle"]

_NAME = "quantmon-plain"
# What the commands write beyond ASCII, for terminals and files of another encoding.
_PLAIN = {"µ": "u", "–": "-", "…": "...", **dict.fromkeys("▁▂▃▄▅▆▇█", "#")}


def prepare_streams() -> None:
    """Open what was closed, as by ``>&-``, on the null device, and let no character be one too many."""
    _fill()
    codecs.register_error(_NAME, _plain)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def settle(stream: TextIO) -> None:
    """Leave nothing in ``stream`` that cannot be written: Python would try at its end, and make the status 120."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fill() -> None:
    """Else the next file or socket would stand in for a standard stream, here and in the command of ``run``."""
    for descriptor in range(3):
        if not _is_open(descriptor):
            # It gets the lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(
        _PLAIN.get(character, "?") for character in error.object[error.start : error.end]
    ), error.end
