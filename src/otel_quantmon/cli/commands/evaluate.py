"""``quantmon evaluate``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from otel_quantmon.cli.commands.arguments import add_json, add_threads, file_name
from otel_quantmon.cli.commands.protocol import COULD_NOT
from otel_quantmon.cli.packages import need_numpy

__all__ = ["EvaluateCommand"]


class EvaluateCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "run float models on samples that left other processes"
    description = (
        "Evaluate samples of services whose reference is remote: a worker, of which there may be several. It reports "
        "by OpenTelemetry where an OTEL_* variable names an exporter, and shows what it found when it ends."
    )
    examples = (
        "quantmon evaluate --models models.toml --source dir:/var/spool/quantmon",
        "quantmon evaluate --models models.toml --source dir:samples --until-empty --json",
        "quantmon evaluate --models models.toml --source otlp://127.0.0.1:4318/samples",
        "quantmon evaluate --models models.toml --source kafka://broker:9092/samples --state counted.sqlite",
        "quantmon evaluate --models models.toml --source dir:/var/spool/quantmon --fleet fleet.sqlite",
    )
    statuses = ((0, "it has evaluated what there was, or was asked to end"), *COULD_NOT)

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument(
            "--models",
            type=file_name,
            required=True,
            metavar="FILE",
            help="a settings file (TOML) whose `reference` keys name the float models",
        )
        parser.add_argument(
            "--source",
            required=True,
            metavar="SOURCE",
            help="where samples are: dir:PATH; otlp://HOST:PORT/PATH, which takes OTLP over HTTP and keeps samples in "
            "PATH; kserve://HOST:PORT/PATH, which takes the events of KServe's logger likewise; or "
            "kafka://HOST:PORT,.../TOPIC",
        )
        parser.add_argument(
            "--state",
            type=Path,
            metavar="FILE",
            help="SQLite file of what has been counted, shared by the workers of a source "
            "(default: state.sqlite in the directory; required for Kafka)",
        )
        parser.add_argument(
            "--name",
            metavar="NAME",
            help="of this worker; one that is started again under its name goes on with its totals "
            "(default: host and process id)",
        )
        parser.add_argument(
            "--group",
            choices=("auto", "share", "ordinary"),
            default="auto",
            help="of Kafka: a share group, where more workers than partitions share the work, or an ordinary one "
            "(default: a share group where client and broker have them)",
        )
        parser.add_argument(
            "--kafka-properties",
            type=file_name,
            metavar="FILE",
            help="properties of Kafka's client, such as those of TLS and SASL: key=value lines",
        )
        parser.add_argument(
            "--store", metavar="URL", help="the QUANTMON_REMOTE_STORE of the services, if they have one"
        )
        parser.add_argument(
            "--fleet",
            type=Path,
            metavar="FILE",
            help="judge all hosts together: SQLite file of what is known of them, shared by all workers",
        )
        parser.add_argument("--until-empty", action="store_true", help="end when there is no sample left")
        add_threads(parser)
        add_json(parser)

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        need_numpy("quantmon evaluate")
        from otel_quantmon.cli.evaluate import evaluate_command

        return evaluate_command(arguments)
