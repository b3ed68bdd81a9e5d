"""``quantmon run``."""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser, Namespace
from pathlib import Path

from otel_quantmon.cli.commands.arguments import add_page, file_name

__all__ = ["RunCommand"]


class RunCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "run a command and watch its models"
    description = (
        "Run a command, unchanged, under OpenTelemetry's zero-code instrumentation, and receive, show and keep here "
        "what it sends. Its input, its output and its signals stay its own. View and summary are written to the "
        "standard error, if that is a terminal."
    )
    examples = (
        "quantmon run -- python app.py",
        'quantmon run --db run.db --reference "classifier=float.onnx" -- python -m app --port 80',
        "quantmon run --page --report run.html -- python app.py",
        "quantmon run --no-view --json run.jsonl -- gunicorn --workers 4 app:app",
    )
    statuses = (
        ("n", "the command's own; 128 + n if signal n ended it"),
        (2, "it was not started, and why"),
        (126, "the command cannot be executed"),
        (127, "there is no such command"),
    )

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.usage = "quantmon run [options] -- COMMAND [ARGUMENT ...]"
        parser.add_argument("line", nargs=REMAINDER, metavar="-- COMMAND", help="such as python app.py")
        parser.add_argument("--no-view", dest="view", action="store_false", help="show nothing while it runs")
        parser.add_argument(
            "--summary",
            action="store_true",
            help="write the summary to the standard error even if that is no terminal",
        )
        parser.add_argument(
            "--db", type=Path, metavar="FILE", help="keep the run in this SQLite file, a new one"
        )
        parser.add_argument(
            "--json",
            type=Path,
            metavar="FILE",
            help="write the run as newline-delimited JSON when it has ended",
        )
        add_page(parser, "while it lasts")
        parser.add_argument(
            "--reference",
            metavar="NAME=PATH",
            help="float originals, as QUANTMON_REFERENCE: name=path,other=path",
        )
        parser.add_argument(
            "--timeout", metavar="DURATION", help="longest time of one inference, such as 200ms"
        )
        parser.add_argument("--baseline", type=file_name, metavar="FILE", help="golden baseline to replay")
        parser.add_argument("--config", type=file_name, metavar="FILE", help="TOML file with settings")

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        from otel_quantmon.cli.run import run_command

        return run_command(arguments)
