"""``quantmon compare``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from otel_quantmon.cli.commands.arguments import add_inputs, add_json, add_threads, file_name
from otel_quantmon.cli.packages import need_numpy

__all__ = ["CompareCommand"]


class CompareCommand:
    """See `otel_quantmon.cli.commands.Command`."""

    summary = "compare a quantized model with its float original"
    description = (
        "Run a quantized model and its float original on the same inputs: how far apart their outputs are, and which "
        "is faster."
    )
    examples = (
        "quantmon compare float.onnx int8.onnx --inputs images.npz",
        "quantmon compare float.tflite int8.tflite --inputs images.npy --cases 32 --layers",
    )
    statuses = ((0, "they are compared"), (2, "they could not be, or had no output to compare"))

    def prepare_parser(self, parser: ArgumentParser) -> None:
        """See `otel_quantmon.cli.commands.Command.prepare_parser`."""
        parser.add_argument(
            "float", type=file_name, metavar="FLOAT", help="the float original, ONNX or TFLite"
        )
        parser.add_argument(
            "quantized", type=file_name, metavar="QUANTIZED", help="the model made from it, ONNX or TFLite"
        )
        add_inputs(parser)
        parser.add_argument("--layers", action="store_true", help="name the layers where the error enters")
        add_threads(parser)
        add_json(parser)

    def run(self, arguments: Namespace) -> int:
        """See `otel_quantmon.cli.commands.Command.run`."""
        need_numpy("quantmon compare")
        from otel_quantmon.cli.comparison import compare_command

        return compare_command(arguments)
