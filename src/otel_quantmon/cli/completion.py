"""``quantmon completion``: the parser's own arguments as a script for a shell, made by shtab."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from otel_quantmon.cli.commands.arguments import file_name
from otel_quantmon.cli.packages import need

__all__ = ["write_completion"]


def write_completion(parser: ArgumentParser, shell: str) -> int:
    """Write the script for ``shell`` to the standard output.

    Raises:
        CommandError: The package shtab is not installed.
    """
    need("quantmon completion", "cli", "shtab")
    import shtab

    for action in _actions(parser):
        if action.type in (Path, file_name):
            action.complete = shtab.FILE
    sys.stdout.write(shtab.complete(parser, shell) + "\n")
    return 0


def _actions(parser: ArgumentParser) -> Iterator[Any]:
    """All arguments, those of the commands in it too."""
    actions: list[Any] = parser._actions
    for action in actions:
        commands: Any = action.choices
        if isinstance(commands, dict):
            for command in cast("dict[str, ArgumentParser]", commands).values():
                yield from _actions(command)
        else:
            yield action
