"""The lower rows of a terminal, kept for a view, while the application goes on writing above them.

By a scrolling region, as a VT100 has it and every terminal since: what is written scrolls above the view, untouched.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

__all__ = ["Screen"]

_LEAST_ROWS = 15


class Screen:
    """The view on the terminal that the standard error is: rows are taken by the first `draw`, and freed by `close`."""

    def __init__(self) -> None:
        self._rows = 0
        self._size = os.terminal_size((0, 0))

    @staticmethod
    def possible() -> bool:
        """True if the standard error is a terminal that can show a view."""
        if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in {"", "dumb"}:
            return False
        return os.get_terminal_size(sys.stderr.fileno()).lines >= _LEAST_ROWS

    @property
    def width(self) -> int:
        """Columns of the terminal as it is now."""
        return os.get_terminal_size(sys.stderr.fileno()).columns

    def draw(self, renderable: Any) -> None:
        """Show ``renderable`` of rich, cut at half of the screen."""
        from rich.console import Console

        size = os.get_terminal_size(sys.stderr.fileno())
        if size.lines < _LEAST_ROWS:
            self._write(self._resized(size))
            return
        text = io.StringIO()
        Console(file=text, force_terminal=True, width=size.columns, legacy_windows=False).print(renderable)
        lines = text.getvalue().splitlines()[: size.lines // 2]
        resized, region = self._resized(size), self._region(len(lines) + 1)
        self._write(resized + region + self._paint(["", *lines]))

    def close(self) -> None:
        """Wipe the view and give its rows back."""
        if not self._rows:
            return
        top = self._size.lines - self._rows + 1
        self._write(f"\x1b7\x1b[r\x1b[{top};1H\x1b[J\x1b8")
        self._rows = 0

    def _resized(self, size: os.terminal_size) -> str:
        """What wipes the view of a terminal of another size, so that it begins anew."""
        if size == self._size:
            return ""
        drawn, self._rows, self._size = self._rows, 0, size
        # Terminals differ in which rows they have moved where; the view is below the application's cursor in all.
        return "\x1b7\x1b[r\x1b8\x1b[J" if drawn else ""

    def _region(self, rows: int) -> str:
        """What keeps ``rows`` free, if that has changed. They never become fewer: a view that jumps is hard to read."""
        if rows <= self._rows:
            return ""
        more, self._rows = rows - self._rows, rows
        # Scroll what is there out of the way: new lines at the end, and as many rows up again.
        made = "\n" * more + f"\x1b[{more}A"
        return f"{made}\x1b7\x1b[1;{self._size.lines - rows}r\x1b8"

    def _paint(self, lines: list[str]) -> str:
        top = self._size.lines - self._rows + 1
        lines = (lines + [""] * self._rows)[: self._rows]
        painted = "".join(f"\x1b[{top + place};1H\x1b[2K{line}" for place, line in enumerate(lines))
        return f"\x1b7{painted}\x1b8"

    def _write(self, text: str) -> None:
        # In one piece, so that what the application writes comes before or after it.
        sys.stderr.flush()
        os.write(sys.stderr.fileno(), text.encode())
