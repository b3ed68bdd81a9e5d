"""The program ``quantmon``: its parser, exit codes, and errors as a person wants them, without a traceback."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
import traceback
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from otel_quantmon._version import __version__
from otel_quantmon.cli.commands import COMMANDS, GROUPS, Command
from otel_quantmon.cli.output import note
from otel_quantmon.cli.streams import prepare_streams, settle
from otel_quantmon.errors import CommandError

__all__ = ["STATUSES", "main", "make_parser"]

STATUSES: Mapping[int, str] = MappingProxyType(
    {
        0: "all is well",
        1: "it was carried out, and found what it looks for: a threshold crossed, a run that is worse, a problem",
        2: "it could not be carried out: a mistake in the arguments, a file or a package that is missing",
        126: "of `run`: the command cannot be executed",
        127: "of `run`: there is no such command",
        130: "interrupted by Ctrl-C; `evaluate` and `show --page` end by it with 0",
        141: "whoever read the output has gone, as `head` does",
    }
)
"""Exit statuses of all commands. ``run`` passes the application's own on; docs/cli.md has this table."""

_WIDTH = 79


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        See `STATUSES`.
    """
    prepare_streams()
    try:
        status = _carry_out(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    except CommandError as error:
        note(f"quantmon: error: {error}")
        status = 2
    except OSError as error:
        named = ": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error)
        note(f"quantmon: error: {named}")
        status = 2
    except Exception as error:  # noqa: BLE001  a script would take Python's own status, 1, for a finding
        note(traceback.format_exc().rstrip())
        note(f"quantmon: error: {type(error).__name__}, a mistake of ours: please report it")
        status = 2
    for stream in (sys.stdout, sys.stderr):
        settle(stream)
    return status


def _carry_out(given: Sequence[str]) -> int:
    parser = make_parser()
    if not given:
        # Whoever gives nothing asks what there is to give.
        parser.print_help(sys.stderr)
        return 2
    try:
        arguments = parser.parse_args(given)
    except SystemExit as ended:
        # After --help and --version, and after a mistake in the arguments, which has been told.
        return ended.code if isinstance(ended.code, int) else 0
    logging.basicConfig(format="quantmon: %(message)s", level=logging.WARNING)
    command: Command = arguments.command
    return command.run(arguments)


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse takes a help that could not be written for one that was.
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands. What it parses has the `Command` as ``command`` and the parser as ``root``."""
    parser = _Parser(
        prog="quantmon",
        description=_paragraphs(
            "Watch quantized models run; measure how far they are from their float originals, and what has changed."
        ),
        epilog=_statuses(STATUSES.items()) + "\n\n`quantmon COMMAND --help` has examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"otel-quantmon {__version__}")
    parser.set_defaults(root=parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    places: dict[str, Any] = {"": commands}
    for name, command in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in places:
            made = commands.add_parser(group, help=GROUPS[group], description=GROUPS[group])
            places[group] = made.add_subparsers(required=True, metavar="COMMAND")
        own = places[group].add_parser(
            last,
            help=command.summary,
            description=_paragraphs(command.description),
            epilog="\n  ".join(["examples:", *command.examples]) + "\n\n" + _statuses(command.statuses),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.prepare_parser(own)
        own.set_defaults(command=command)
    return parser


def _paragraphs(text: str) -> str:
    return "\n\n".join(textwrap.fill(paragraph, _WIDTH) for paragraph in text.split("\n\n"))


def _statuses(statuses: Iterable[tuple[int | str, str]]) -> str:
    lines = [
        textwrap.fill(meaning, _WIDTH, initial_indent=f"  {status:<5}", subsequent_indent=" " * 7)
        for status, meaning in statuses
    ]
    return "\n".join(["exit status:", *lines])
