"""What the commands show: tables for people, JSON for programs, progress on a terminal alone."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any

__all__ = ["finite", "note", "number", "progress", "table", "write_json"]

_NUMBER = re.compile(r"-|[-+]?[\d,]+(\.\d+)?(e[-+]?\d+)?( ?[%µmn]?s?)")


def note(line: str) -> None:
    """Write ``line`` to the standard error. That nobody reads it, or that it is full, is no error."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def number(value: float | None, digits: int = 4) -> str:
    """Return a number for a table; a dash for none."""
    return "-" if value is None else f"{value:.{digits}g}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to the standard output: by rich on a terminal, if it is installed, else in plain columns.

    Columns of numbers alone stand on the right, as numbers do.
    """
    right = [all(_NUMBER.fullmatch(row[place]) for row in rows) for place in range(len(columns))]
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            shown = Table(title=Text(title), title_justify="left")
            for place, column in enumerate(columns):
                shown.add_column(Text(column), justify="right" if right[place] else "left", overflow="fold")
            for row in rows:
                # As text: names of tensors may hold brackets, which rich takes for markup.
                shown.add_row(*map(Text, row))
            Console().print(shown)
            return
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    sys.stdout.write(f"{title}\n")
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if on_right else cell.ljust(width)
            for cell, width, on_right in zip(row, widths, right, strict=True)
        ]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.write("\n")


def write_json(value: Any) -> None:
    """Write ``value`` to the standard output; a number that JSON has no way to write becomes null."""
    sys.stdout.write(json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def progress(title: str, total: int) -> Generator[Callable[[int], object], None, None]:
    """Show a bar on the standard error while it is a terminal. Yields what takes the number done."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console
            from rich.progress import Progress
        except ImportError:
            pass
        else:
            with Progress(console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(title, total=total)
                yield lambda done: bar.update(task, completed=done)
            return
    yield lambda _: None


def finite(value: Any) -> Any:
    """``value`` with None for each number that JSON has no way to write."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]  JSON
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]  # pyright: ignore[reportUnknownVariableType]  JSON
    return None if isinstance(value, float) and not math.isfinite(value) else value
