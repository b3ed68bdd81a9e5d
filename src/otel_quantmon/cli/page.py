"""The page of a run, as the commands ``run`` and ``show`` open it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from otel_quantmon.cli.output import note

__all__ = ["open_page", "stay", "write_page"]


def open_page(path: Path) -> Any:
    """The page of the run in ``path``, which is not served before its ``start``.

    Raises:
        DeskError: See `Page`.
    """
    from otel_quantmon.desk.page import Page

    return Page(path)


def stay(page: Any) -> None:
    """Leave the page open until somebody presses Ctrl-C."""
    try:
        note(f"quantmon: the page stays at {page.address} until you press Ctrl-C")
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        note("")


def write_page(path: Path, file: Path) -> None:
    """Write the run in ``path`` as one file.

    Raises:
        DeskError: See `write_report`.
    """
    from otel_quantmon.desk.page import write_report

    write_report(path, file)
    note(f"quantmon: the report is in {file}")
