"""``quantmon show``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from otel_quantmon.cli.commands.arguments import add_page
from otel_quantmon.cli.commands.protocol import COULD_NOT

__all__ = ["ShowCommand"]


class ShowCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "show an earlier run"
    description = "Show what `quantmon run --db FILE` has kept. The run may still last, or have been killed."
    examples = (
        "quantmon show run.db",
        "quantmon show run.db --page",
        "quantmon show run.db --json | head -3",
    )
    statuses = ((0, "it was shown"), *COULD_NOT)

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument("file", type=Path, metavar="FILE", help="of `quantmon run --db FILE`")
        parser.add_argument(
            "--json", action="store_true", help="write newline-delimited JSON instead of a summary"
        )
        add_page(parser, "until Ctrl-C")

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        from otel_quantmon.cli.show import show_command

        return show_command(arguments)
