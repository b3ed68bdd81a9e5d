"""Arguments, exit codes, and errors as a person wants them: what is wrong and what to do, without a traceback."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from otel_quantmon._version import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        0 if all is well, 1 if a check found a threshold crossed, 2 if the command could not be carried out.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="quantmon: %(message)s", level=logging.WARNING)
    # Models are loaded by what follows, which takes seconds to import: not for --help.
    from otel_quantmon.baseline import BaselineError, InputFileError
    from otel_quantmon.cli.baseline import check_command, record_command
    from otel_quantmon.cli.comparison import compare_command
    from otel_quantmon.cli.layers import LayersError
    from otel_quantmon.engines import EngineError
    from otel_quantmon.errors import ModelFormatError

    commands = {"record": record_command, "check": check_command, "compare": compare_command}
    try:
        return commands[arguments.run](arguments)
    except (BaselineError, InputFileError, EngineError, LayersError, ModelFormatError, OSError) as error:
        sys.stderr.write(f"quantmon: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quantmon", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"otel-quantmon {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    baseline = commands.add_parser("baseline", help="record or check a golden baseline")
    actions = baseline.add_subparsers(required=True, metavar="ACTION")
    record = actions.add_parser("record", help="record what a model gives on inputs")
    record.add_argument("model", metavar="MODEL", help="the quantized model, ONNX or TFLite")
    record.add_argument("--reference", metavar="FLOAT", help="its float original")
    _add_inputs(record)
    _add_threads(record)
    record.add_argument(
        "-o", "--output", type=Path, required=True, metavar="BASELINE", help=".safetensors to write"
    )
    record.add_argument(
        "--cases", type=_positive, metavar="N", help="take N calls; divide a single batch into as many"
    )
    record.add_argument(
        "--name", help="the model's name, if it has another one in telemetry than by its file"
    )
    record.set_defaults(run="record")

    check = actions.add_parser(
        "check", help="replay a baseline on a model and report; exit code 1 if it got worse"
    )
    check.add_argument("baseline", type=Path, metavar="BASELINE")
    check.add_argument("model", metavar="MODEL")
    _add_threads(check)
    _add_output(check)
    check.set_defaults(run="check")

    compare = commands.add_parser("compare", help="compare a quantized model with its float original")
    compare.add_argument("float", metavar="FLOAT")
    compare.add_argument("quantized", metavar="QUANTIZED")
    _add_inputs(compare)
    compare.add_argument("--limit", type=_positive, metavar="N", help="compare the first N calls only")
    compare.add_argument("--layers", action="store_true", help="name the layers where the error enters")
    _add_threads(compare)
    _add_output(compare)
    compare.set_defaults(run="compare")
    return parser


_DESCRIPTION = "Tell how far a quantized model is from its float original, and whether that has changed."


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inputs",
        type=Path,
        required=True,
        metavar="FILE",
        help=".npy of the only input, or .npz or .safetensors of arrays named as the inputs, "
        "or as CALL/INPUT (0/image, 1/image...) for several calls",
    )
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=REFERENCE",
        help="an input or output that is called otherwise in the float model; may be repeated",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="that one run may use (default: 1)"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("give a whole number from 1")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, separator, reference = text.partition("=")
    if not (name and separator and reference):
        raise argparse.ArgumentTypeError("give NAME=REFERENCE")
    return name, reference
