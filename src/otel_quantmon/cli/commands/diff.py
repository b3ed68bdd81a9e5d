"""``quantmon diff``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from otel_quantmon.cli.commands.arguments import add_json, add_map, share

__all__ = ["DiffCommand"]


class DiffCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "compare two runs"
    description = (
        "Compare two runs model by model: latency, with a test whether the difference is more than chance, failures, "
        "distance from float and memory."
    )
    examples = (
        "quantmon diff before.db after.db",
        "quantmon diff before.db after.db --map classifier=classifier_int8 --worse-by 0.2",
    )
    statuses = (
        (0, "nothing is worse"),
        (1, "something is"),
        (2, "the runs could not be compared, or have no model in common"),
    )

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument("before", type=Path, metavar="BEFORE", help="file of the earlier run")
        parser.add_argument("after", type=Path, metavar="AFTER", help="file of the later run")
        add_map(parser, "a model of BEFORE that is called otherwise in AFTER; may be repeated")
        parser.add_argument(
            "--worse-by",
            type=share,
            default=0.1,
            metavar="SHARE",
            help="by how much something has to grow to be worse (default: 0.1, a tenth)",
        )
        add_json(parser)

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        from otel_quantmon.cli.diff import diff_command

        return diff_command(arguments)
