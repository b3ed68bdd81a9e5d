"""``quantmon baseline record`` and ``quantmon baseline check``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from otel_quantmon.cli.commands.arguments import add_inputs, add_json, add_threads, file_name
from otel_quantmon.cli.commands.protocol import COULD_NOT
from otel_quantmon.cli.packages import need_numpy

__all__ = ["CheckCommand", "RecordCommand"]


class RecordCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "record what a model gives on inputs"
    description = "Run a model on inputs, and write both with what it gave to a file that can be replayed."
    examples = (
        "quantmon baseline record int8.onnx --inputs images.npz -o golden.safetensors",
        "quantmon baseline record int8.onnx --reference float.onnx --inputs images.npy -o golden.safetensors",
    )
    statuses = ((0, "it is recorded"), *COULD_NOT)

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument(
            "model", type=file_name, metavar="MODEL", help="the quantized model, ONNX or TFLite"
        )
        parser.add_argument("--reference", type=file_name, metavar="FLOAT", help="its float original")
        add_inputs(parser)
        add_threads(parser)
        parser.add_argument(
            "-o", "--output", type=Path, required=True, metavar="BASELINE", help=".safetensors to write"
        )
        parser.add_argument(
            "--name", help="the model's name, if it has another one in telemetry than by its file"
        )

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        need_numpy("quantmon baseline record")
        from otel_quantmon.cli.baseline import record_command

        return record_command(arguments)


class CheckCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "replay a baseline on a model and report; exit status 1 if it got worse"
    description = "Run a model as it is now on the inputs of a baseline, and report what it gives otherwise."
    examples = (
        "quantmon baseline check golden.safetensors int8.onnx",
        "quantmon baseline check golden.safetensors int8.onnx --json",
    )
    statuses = ((0, "no threshold is crossed"), (1, "one is"), *COULD_NOT)

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument(
            "baseline", type=Path, metavar="BASELINE", help="the .safetensors file that was recorded"
        )
        parser.add_argument(
            "model",
            type=file_name,
            metavar="MODEL",
            help="the quantized model as it is now, ONNX or TFLite",
        )
        add_threads(parser)
        add_json(parser)

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        need_numpy("quantmon baseline check")
        from otel_quantmon.cli.baseline import check_command

        return check_command(arguments)
