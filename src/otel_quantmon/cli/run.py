"""``quantmon run``: any command under zero-code instrumentation, with what it sends received, shown and kept here."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from otel_quantmon.cli.output import note
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
    settings = {name: str(value) for name, value in given.items() if value is not None}
    own = destinations(os.environ)
    # JSON has no way to write an argument that is no UTF-8.
    shown = [os.fsencode(word).decode("utf-8", "replace") for word in command]
    with ExitStack() as undone:
        # Nothing begins a thread before the command is started: see `Supervised.start`.
        forwarder = Forwarder(own)
        store = Store(path, facts={"command": json.dumps(shown)})
        undone.callback(path.unlink)
        undone.callback(store.close)
        receiver = Receiver(store, forwarder.put if own else None)
        undone.callback(receiver.stop)
        page = open_page(path) if arguments.page else None
        if page is not None:
            undone.callback(page.stop)
        environment = child_environment(os.environ, receiver.address, settings, forwarded="metrics" in own)
        try:
            supervised.start(command, environment)
        except OSError as error:
            return _not_started(command[0], error)
        undone.pop_all()
    with _harmless("what the application sends cannot be kept"):
        for part in (store, forwarder, receiver):
            part.start()
    if page is not None:
        with _harmless("there is no page"):
            page.start()
            note(f"quantmon: the page is at {page.address}")
    tick: Callable[[], object] = _nothing
    end: Callable[[], object] = _nothing
    if viewed:
        with _harmless("there is no view"):
            tick, end = _view(path)
    status = supervised.wait(tick, _TICK_SECONDS)
    for what, stop in (("view", end), ("receiver", receiver.stop), ("forwarder", forwarder.close)):
        with _harmless(f"the {what} cannot be ended"):
            stop()
    with _harmless(f"{path} cannot be completed"):
        store.note(ended=time.time_ns(), exit_status=status, **_forwarded(forwarder.counts))
        store.close()
    _finish(arguments, path, store.failure, forwarder, shown=viewed or arguments.summary)
    if page is not None:
        with _harmless("the page cannot be ended"):
            # Whoever looks at a terminal may look at the page, too; a script goes on.
            if os.isatty(0) and os.isatty(2):
                supervised.release()
                stay(page)
                supervised.hold()
            page.stop()
    return status


def _not_started(name: str, error: OSError) -> int:
    """Say so, as a shell does.

    Returns:
        The exit status.
    """
    missing = isinstance(error, FileNotFoundError)
    said = "no such command" if missing else f"cannot be executed: {error.strerror}"
    sys.stderr.write(f"quantmon: error: {name}: {said}\n")
    return 127 if missing else 126


@contextmanager
def _harmless(what: str) -> Generator[None, None, None]:
    """Let a failure inside be told as ``what``, and no more: the application runs or has ended, and has a status."""
    try:
        yield
    except DeskError as error:
        note(f"quantmon: warning: {error}")
    except OSError as error:
        note(f"quantmon: warning: {what}: {error.strerror or error}")
    except Exception:
        logging.getLogger("otel_quantmon").exception(what)


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
    from otel_quantmon.cli.show import show_summary

    if failure:
        note(f"quantmon: warning: {failure}")
    notes: list[str] = []
    if forwarder.counts["failed"] or forwarder.counts["dropped"]:
        notes.append(
            f"{forwarder.counts['failed']} requests were not taken by the application's own endpoint, "
            f"{forwarder.counts['dropped']} dropped: {forwarder.failure}"
        )
    if arguments.json is not None:
        with _harmless(f"{arguments.json} cannot be written"):
            _write_json(path, arguments.json)
    if arguments.report is not None:
        with _harmless(f"{arguments.report} cannot be written"):
            write_page(path, arguments.report)
    if arguments.db is not None:
        notes.append(f"kept in {path}: quantmon show {shlex.quote(str(path))}")
    if shown:
        with _harmless("the summary cannot be written"):
            show_summary(path, sys.stderr, notes)


def _write_json(database: Path, path: Path) -> None:
    from otel_quantmon.cli.show import write_lines

    with ExitStack() as undone:
        with path.open("w", encoding="utf-8") as file:
            if path.is_file() and not path.is_symlink():
                # A part of the run might be taken for the whole.
                undone.callback(path.unlink)
            write_lines(database, file)
        undone.pop_all()
