"""Numbers of a run as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["DASH", "bytes_text", "command_text", "seconds_text", "share_text", "sparkline"]

_SPARKS = "▁▂▃▄▅▆▇█"
DASH = "–"
"""For what is not known."""


def command_text(facts: dict[str, Any]) -> str:
    """The command of a run, on one printable line."""
    command = " ".join(facts.get("command", ["?"]))
    shown = "".join(character if character.isprintable() else "�" for character in command)
    return shown if len(shown) <= 200 else shown[:199] + "…"


def sparkline(values: Sequence[float | None]) -> str:
    """A bar for each value, from nothing to the largest; a space for none."""
    most = max((value for value in values if value is not None), default=0.0)
    if not most:
        return " " * len(values)
    return "".join(" " if value is None else _SPARKS[min(7, int(value / most * 8))] for value in values)


def seconds_text(value: float | None) -> str:
    """A duration in three digits, in the unit that suits it."""
    if value is None:
        return DASH
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{_digits(value * factor)} {unit}"
    return f"{_digits(value * 1e9)} ns"


def bytes_text(value: int | None) -> str:
    """A size in three digits, in the unit that suits it."""
    if value is None:
        return DASH
    size = float(value)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{_digits(size)} {unit}"
        size /= 1024
    return f"{_digits(size)} GiB"


def share_text(value: float | None, *, sign: bool = False) -> str:
    """A share in percent."""
    if value is None:
        return DASH
    percent = value * 100
    return f"{percent:{'+' if sign else ''}.{1 if abs(percent) < 100 else 0}f} %"


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
