"""What a command is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Protocol

__all__ = ["COULD_NOT", "Command"]

COULD_NOT = ((2, "it could not be carried out, and why"),)
"""The exit status of every command for a mistake in its arguments, a file or package that is missing, and the like."""


class Command(Protocol):
    """One command of ``quantmon``: two methods, and what its help says."""

    @property
    def summary(self) -> str:
        """One line for the list of commands."""
        ...

    @property
    def description(self) -> str:
        """What it does, for its own help."""
        ...

    @property
    def examples(self) -> tuple[str, ...]:
        """Whole command lines, which a test parses."""
        ...

    @property
    def statuses(self) -> tuple[tuple[int | str, str], ...]:
        """Its exit statuses and what they mean."""
        ...

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """Add the arguments."""
        ...

    def run(self, arguments: Namespace) -> int:
        """Run it.

        Returns:
            The exit status.

        Raises:
            CommandError: The command could not be carried out.
            OSError: A file cannot be read or written.
        """
        ...
