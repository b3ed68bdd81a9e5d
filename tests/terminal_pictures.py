"""What a command draws on a terminal, kept as pictures that a person has looked at.

``NEW_PICTURES=1 pytest tests/desk/test_views.py tests/cli/test_pictures.py`` makes all of them anew: look at
what has changed before it is committed.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

__all__ = ["Terminal", "check_picture"]


class Terminal(io.StringIO):
    """A standard output that says that it is a terminal; what it is given has colours and a width."""

    @classmethod
    def put(cls, monkeypatch: pytest.MonkeyPatch, width: int) -> Terminal:
        """Be the standard output, ``width`` columns wide."""
        for name in ("NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING"):
            monkeypatch.delenv(name, raising=False)
        given = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(width), "LINES": "50"}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        terminal = cls()
        monkeypatch.setattr("sys.stdout", terminal)
        return terminal

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def drawn(self) -> Text:
        """What was written, with its colours."""
        return Text.from_ansi(self.getvalue())


def check_picture(path: Path, shown: Any, width: int) -> None:
    """Compare ``shown``, something that rich can draw, with the picture in ``path``; or make that anew."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(shown)
    picture = console.export_svg(title="quantmon", unique_id="quantmon")
    if "NEW_PICTURES" in os.environ:
        path.write_text(picture, encoding="utf-8")
    if "QUANTMON_TEST_OLDEST" in os.environ:
        pytest.skip("older releases of rich cut the same picture into other pieces of text")
    assert _texts(picture) == _texts(path.read_text(encoding="utf-8"))


def _texts(picture: str) -> list[str]:
    """What is drawn, and where and in which style; the frame around it changes with rich's releases."""
    return [
        line.strip()
        for line in picture.splitlines()
        if line.strip().startswith(("<text class=", "<rect fill="))
    ]
