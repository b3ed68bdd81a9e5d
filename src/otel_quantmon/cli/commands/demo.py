"""``quantmon demo``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from otel_quantmon.cli.commands.protocol import COULD_NOT

__all__ = ["DemoCommand"]


class DemoCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "see it in two minutes: a real int8 model, and three faults that are caught"
    description = (
        "Quantize a real model, run it on real files with its float original beside it, switch on three faults one "
        "after another, and show how each is caught. Takes under two minutes on two cores, and downloads nothing."
    )
    examples = ("quantmon demo", "quantmon demo --page")
    statuses = ((0, "all three faults were caught"), (1, "one was not"), *COULD_NOT)

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument(
            "--folder",
            type=Path,
            metavar="FOLDER",
            help="keep models, run and report here (default: a new folder for temporary files)",
        )
        parser.add_argument("--no-view", dest="view", action="store_false", help="show nothing while it runs")
        parser.add_argument(
            "--page", action="store_true", help="serve the page of the run on this host alone, while it lasts"
        )

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        from otel_quantmon.cli.demo.director import demo_command

        return demo_command(arguments)
