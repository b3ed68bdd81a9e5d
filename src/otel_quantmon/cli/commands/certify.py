"""``quantmon certify``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from otel_quantmon.cli.commands.arguments import add_json, add_threads, file_name
from otel_quantmon.cli.commands.protocol import COULD_NOT
from otel_quantmon.cli.packages import need_numpy

__all__ = ["CertifyCommand"]


class CertifyCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "check whether a model may serve on this host; exit status 1 if not"
    description = (
        "Replay a model's baseline on this host, for a pipeline or the start of a pod: whether it may serve here, "
        "which instructions the host lacks, and what to do."
    )
    examples = ("quantmon certify int8.onnx --baseline golden.safetensors",)
    statuses = ((0, "it may serve"), (1, "it may not: a threshold is crossed"), *COULD_NOT)

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument(
            "model", type=file_name, metavar="MODEL", help="the quantized model, ONNX or TFLite"
        )
        parser.add_argument(
            "--baseline",
            type=Path,
            required=True,
            metavar="FILE",
            help="its baseline (quantmon baseline record)",
        )
        add_threads(parser)
        add_json(parser)

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        need_numpy("quantmon certify")
        from otel_quantmon.cli.certify import certify_command

        return certify_command(arguments)
