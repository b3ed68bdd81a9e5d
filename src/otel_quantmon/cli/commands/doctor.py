"""``quantmon doctor``."""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser, Namespace

from otel_quantmon.cli.commands.arguments import add_json
from otel_quantmon.cli.commands.protocol import COULD_NOT

__all__ = ["DoctorCommand"]


class DoctorCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "find out why nothing shows up: what is installed, instrumented, set and reachable"
    description = (
        "Tell what is installed, what would be instrumented and what not and why, which settings hold and where each "
        "comes from, and whether the exporter's endpoint answers. With a command, run it as it is, and tell of each "
        "of its Python processes whether models were instrumented and whether a provider was set. With --json its "
        "standard output goes to the standard error."
    )
    examples = (
        "quantmon doctor",
        "quantmon doctor -- opentelemetry-instrument python app.py",
        "quantmon doctor --json",
    )
    statuses = ((0, "nothing is in the way"), (1, "something is, and what to do"), *COULD_NOT)

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.usage = "quantmon doctor [options] [-- COMMAND [ARGUMENT ...]]"
        parser.add_argument("line", nargs=REMAINDER, metavar="-- COMMAND", help="as you start it usually")
        add_json(parser)

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        from otel_quantmon.cli.doctor.report import doctor_command

        return doctor_command(arguments)
