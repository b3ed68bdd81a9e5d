"""``quantmon run``: any command under zero-code instrumentation, with what it sends received, shown and kept here."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otel_quantmon.cli.packages import need
from otel_quantmon.cli.page import open_page, stay, write_page
from otel_quantmon.cli.screen import Screen
from otel_quantmon.cli.supervision import Supervised
from otel_quantmon.errors import CommandError, DeskError
from otel_quantmon.settings.loading import read_settings
from otel_quantmon.settings.table import TABLE

__all__ = ["run_command"]

# Twice a second is as fast as numbers can be read.
_TICK_SECONDS = 0.5
_VARIABLES = ("reference", "timeout", "baseline", "config")


def run_command(arguments: Namespace) -> int:
    """Run a command; see ``quantmon run --help``.

    Returns:
        The command's own exit status, 128 + n if signal n ended it, 127 if there is no such command and 126 if it
        cannot be executed, as of a shell.

    Raises:
        CommandError: The command was not started; the message says why.
    """
    command: list[str] = arguments.line[1:] if arguments.line[:1] == ["--"] else arguments.line
    if not command:
        raise CommandError("give a command: quantmon run -- python app.py")
    if os.name != "posix":
        raise CommandError("`quantmon run` needs Linux or macOS: elsewhere use opentelemetry-instrument")
    need("quantmon run", "page", "starlette", "uvicorn", "opentelemetry.proto")
    need("quantmon run", "otlp", "opentelemetry.distro", "opentelemetry.exporter.otlp.proto.http")
    if arguments.page or arguments.report:
        need("the page", "page", "plotly")
    for path in (arguments.json, arguments.db, arguments.report):
        if path is not None and not path.parent.is_dir():
            raise CommandError(f"{path}: there is no folder {str(path.parent)!r}")
    for path in (arguments.json, arguments.report):
        if path is not None and path.is_dir():
            raise CommandError(f"{path}: it is a folder")
    _check_settings(arguments)
    viewed = arguments.view and Screen.possible()
    if viewed or arguments.summary:
        need("the view of quantmon run", "cli", "rich")
    supervised = Supervised()
    try:
        with tempfile.TemporaryDirectory(prefix="quantmon-", ignore_cleanup_errors=True) as folder:
            database = Path(folder, "run.db") if arguments.db is None else arguments.db
            return _run(arguments, command, supervised, database, viewed=viewed)
    finally:
        supervised.release()


def _check_settings(arguments: Namespace) -> None:
    """Refuse what would only be warned of, and left out, once the application runs."""
    for setting in TABLE:
        given: str | None = getattr(arguments, setting.name) if setting.name in _VARIABLES else None
        if given is None:
            continue
        try:
            setting.kind.from_text(given.strip())
        except ValueError:
            raise CommandError(
                f"--{setting.name}: {given!r} is not accepted; give {setting.kind.accepts}"
            ) from None
    if arguments.config is not None:
        try:
            read_settings(arguments.config)
        except ValueError as error:
            raise CommandError(f"--config: {error}") from error


def _run(
    arguments: Namespace, command: list[str], supervised: Supervised, path: Path, *, viewed: bool
) -> int:
    from otel_quantmon.desk.environment import child_environment, destinations
    from otel_quantmon.desk.forward import Forwarder
    from otel_quantmon.desk.receiver import Receiver
    from otel_quantmon.desk.store import Store

    given = {f"QUANTMON_{name.upper()}": getattr(arguments, name) for name in _VARIABLES}
    own = destinations(os.environ)
    # Nothing begins a thread before the command is started: see `Supervised.start`.
    forwarder = Forwarder(own)
    store = Store(path, facts={"command": json.dumps(command)})
    receiver = Receiver(store, forwarder.put if own else None)
    page = open_page(path) if arguments.page else None
    settings = {name: str(value) for name, value in given.items() if value is not None}
    try:
        environment = child_environment(os.environ, receiver.address, settings, forwarded="metrics" in own)
        supervised.start(command, environment)
    except (OSError, CommandError) as error:
        receiver.stop()
        if page is not None:
            page.stop()
        store.close()
        path.unlink()
        if isinstance(error, CommandError):
            raise
        missing = isinstance(error, FileNotFoundError)
        said = "no such command" if missing else f"cannot be executed: {error.strerror}"
        sys.stderr.write(f"quantmon: error: {command[0]}: {said}\n")
        return 127 if missing else 126
    for part in (store, forwarder, receiver):
        part.start()
    if page is not None:
        page.start()
        sys.stderr.write(f"quantmon: the page is at {page.address}\n")
    tick, end = _view(path) if viewed else (_nothing, _nothing)
    try:
        status = supervised.wait(tick, _TICK_SECONDS)
    finally:
        end()
        receiver.stop()
        forwarder.close()
    store.note(ended=time.time_ns(), exit_status=status, **_forwarded(forwarder.counts))
    store.close()
    _finish(arguments, path, store.failure, forwarder, shown=viewed or arguments.summary)
    if page is not None:
        # Whoever looks at a terminal may look at the page, too; a script goes on.
        if sys.stdin.isatty() and sys.stderr.isatty():
            supervised.release()
            stay(page)
        page.stop()
    return status


def _nothing() -> None:
    """No view."""


def _forwarded(counts: dict[str, int]) -> dict[str, int]:
    return {f"forwarded_requests_{name}": count for name, count in counts.items()}


def _view(path: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """What draws the live view, and what ends it."""
    from otel_quantmon.desk import queries
    from otel_quantmon.desk.overview import overview
    from otel_quantmon.desk.pace import Pace
    from otel_quantmon.desk.recent import Recent
    from otel_quantmon.desk.schema import open_reader
    from otel_quantmon.desk.terminal import live_view, title

    screen, database, recent, pace = Screen(), open_reader(path), Recent(), Pace()

    def draw() -> None:
        if pace.rest():
            return
        with pace.view():
            now = time.time_ns()
            head = title(queries.facts(database), now)
            screen.draw(live_view(overview(database, now, recent), head, screen.width))

    def end() -> None:
        screen.close()
        database.close()

    return _guarded(draw), end


def _guarded(draw: Callable[[], object]) -> Callable[[], object]:
    """``draw``, whose failure ends the view and nothing else."""
    failed: list[Exception] = []

    def guarded() -> None:
        if failed:
            return
        try:
            draw()
        except Exception as error:
            failed.append(error)
            logging.getLogger("otel_quantmon").exception("the view ended")

    return guarded


def _finish(arguments: Namespace, path: Path, failure: str | None, forwarder: Any, *, shown: bool) -> None:
    """Write what was asked for, of a run that has ended."""
    from otel_quantmon.cli.show import show_summary, write_lines

    if failure:
        sys.stderr.write(f"quantmon: warning: {failure}\n")
    notes: list[str] = []
    if forwarder.counts["failed"] or forwarder.counts["dropped"]:
        notes.append(
            f"{forwarder.counts['failed']} requests were not taken by the application's own endpoint, "
            f"{forwarder.counts['dropped']} dropped: {forwarder.failure}"
        )
    # The application has ended, and its status is passed on whatever becomes of the files.
    try:
        if arguments.json is not None:
            with arguments.json.open("w", encoding="utf-8") as file:
                write_lines(path, file)
    except OSError as error:
        sys.stderr.write(f"quantmon: warning: {arguments.json} cannot be written: {error.strerror}\n")
    try:
        if arguments.report is not None:
            write_page(path, arguments.report)
    except DeskError as error:
        sys.stderr.write(f"quantmon: warning: {error}\n")
    if arguments.db is not None:
        notes.append(f"kept in {path}: quantmon show {path}")
    if shown:
        show_summary(path, sys.stderr, notes)
