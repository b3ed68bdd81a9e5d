"""``quantmon inspect``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from otel_quantmon.cli.commands.arguments import add_json, file_name
from otel_quantmon.cli.commands.protocol import COULD_NOT
from otel_quantmon.cli.packages import need_numpy

__all__ = ["InspectCommand"]


class InspectCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "show what a model is, how it runs on this host, and what observing it costs"
    description = (
        "Tell what a model's file says of its quantization, what its runtime makes of it on this host, what observing "
        "it here costs, and what to do about what is found. Reads ONNX, ORT format and TFLite."
    )
    examples = (
        "quantmon inspect int8.onnx",
        "quantmon inspect int8.tflite --json",
        "quantmon inspect int8.ort --no-load",
    )
    statuses = ((0, "it was inspected"), *COULD_NOT)

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument("model", type=file_name, metavar="MODEL", help="ONNX, ORT format or TFLite")
        parser.add_argument(
            "--no-load", dest="load", action="store_false", help="read the file alone, and run nothing"
        )
        add_json(parser)

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        need_numpy("quantmon inspect")
        from otel_quantmon.cli.inspection import inspect_command

        return inspect_command(arguments)
