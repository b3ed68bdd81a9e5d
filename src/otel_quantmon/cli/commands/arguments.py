"""Kinds of arguments, and those that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = [
    "add_inputs",
    "add_json",
    "add_map",
    "add_page",
    "add_threads",
    "file_name",
    "pair",
    "positive",
    "share",
]


def file_name(text: str) -> str:
    """A file's name, which shells complete (see ``completion``), to be handed on as text."""
    return text


def pair(text: str) -> tuple[str, str]:
    """An argument of the form ``NAME=OTHER``."""
    name, separator, other = text.partition("=")
    if not (name and separator and other):
        raise argparse.ArgumentTypeError("give NAME=OTHER")
    return name, other


def positive(text: str) -> int:
    """A whole number from 1."""
    value = int(text) if text.strip().isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError("give a whole number from 1")
    return value


def share(text: str) -> float:
    """A number from 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("give a number from 0, such as 0.1")
    return value


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the inputs that a model is run on."""
    parser.add_argument(
        "--inputs",
        type=Path,
        required=True,
        metavar="FILE",
        help=".npy of the only input, or .npz or .safetensors of arrays named as the inputs, "
        "or as CALL/INPUT (0/image, 1/image...) for several calls",
    )
    parser.add_argument(
        "--cases", type=positive, metavar="N", help="take N calls; divide a single batch into as many"
    )
    add_map(parser, "an input or output that is called otherwise in the float model; may be repeated")


def add_map(parser: argparse.ArgumentParser, text: str) -> None:
    """Add names that differ."""
    parser.add_argument("--map", action="append", default=[], type=pair, metavar="NAME=OTHER", help=text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice of JSON."""
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the threads of a model that the command runs itself."""
    parser.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="that one run may use (default: 1)"
    )


def add_page(parser: argparse.ArgumentParser, how_long: str) -> None:
    """Add the page of a run, live and as a file."""
    parser.add_argument(
        "--page", action="store_true", help=f"serve the page of the run on this host alone, {how_long}"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="write the page as one file that needs no server"
    )
