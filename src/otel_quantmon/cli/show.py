"""``quantmon show``: what is in the file of an earlier run."""

from __future__ import annotations

import io
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from otel_quantmon.cli.output import finite
from otel_quantmon.cli.packages import need
from otel_quantmon.desk import queries
from otel_quantmon.desk.overview import overview
from otel_quantmon.desk.schema import open_reader

__all__ = ["show_command", "show_summary", "write_lines"]

# Columns of what is no terminal.
_WIDE = 1000


def show_command(arguments: Namespace) -> int:
    """Show a run; see ``quantmon show --help``."""
    if arguments.page or arguments.report:
        need("the page", "page", "starlette", "uvicorn", "plotly")
        _show_page(arguments)
    elif arguments.json:
        write_lines(arguments.file, sys.stdout)
    else:
        need("quantmon show", "cli", "rich")
        show_summary(arguments.file, sys.stdout, ())
    return 0


def _show_page(arguments: Namespace) -> None:
    from otel_quantmon.cli.page import open_page, stay, write_page

    if arguments.report:
        write_page(arguments.file, arguments.report)
    if arguments.page:
        page = open_page(arguments.file)
        page.start()
        try:
            stay(page)
        finally:
            page.stop()


def show_summary(path: Path, to: TextIO, notes: Iterable[str]) -> None:
    """Write the summary of the run in ``path``, in colours if ``to`` is a terminal."""
    from rich.console import Console

    from otel_quantmon.desk.terminal import summary

    database = open_reader(path)
    try:
        shown = summary(overview(database), queries.facts(database), notes)
    finally:
        database.close()
    console, text = Console(file=to), io.StringIO()
    if console.is_terminal:
        # Written as text, since rich itself would end the process where nobody reads it.
        Console(file=text, force_terminal=True, width=console.width, legacy_windows=False).print(shown)
        to.write(text.getvalue())
        return
    # In a file or a pipe no line is broken, so that a command in it can be copied, and none ends in spaces.
    Console(file=text, width=_WIDE, color_system=None).print(shown)
    to.writelines(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def write_lines(path: Path, to: TextIO) -> None:
    """Write the run in ``path`` as newline-delimited JSON: one object a line, ``type`` says of what.

    First ``run``, then each ``model``, ``process``, ``series``, ``event`` and ``span``.
    """
    database = open_reader(path)
    try:
        # Escaped where the encoding lacks a character: JSON says how.
        escaped = (to.encoding or "").lower().replace("-", "") != "utf8"
        lines = (json.dumps(finite(line), ensure_ascii=escaped, allow_nan=False) for line in _lines(database))
        to.writelines(f"{line}\n" for line in lines)
    finally:
        database.close()


def _lines(database: Any) -> Iterator[dict[str, Any]]:
    yield {"type": "run", **queries.facts(database)}
    for model in overview(database):
        yield {"type": "model", **model.as_json()}
    for process in queries.processes(database):
        yield {"type": "process", **asdict(process)}
    yield from ({"type": "series", **line} for line in queries.every_series(database))
    yield from ({"type": "event", **asdict(event)} for event in reversed(queries.events(database, limit=-1)))
    yield from ({"type": "span", **asdict(span)} for span in queries.every_span(database))
