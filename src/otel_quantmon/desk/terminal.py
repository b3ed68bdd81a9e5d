"""A run on a terminal: a table with a row for each model, and a summary of the whole, drawn by rich.

Colours say nothing that the text does not. Names come from files and are shown as text, never as markup.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from otel_quantmon.desk.overview import Overview
from otel_quantmon.desk.text import DASH, bytes_text, command_text, seconds_text, share_text, sparkline

__all__ = ["live_view", "summary", "title"]

_LONGEST_NAME, _SHORTEST_NAME = 40, 8
_NO_MODEL = (
    "No model was seen. The application has to run in a Python that has otel-quantmon, and to call ONNX Runtime, "
    "TensorFlow Lite or LiteRT; python -I and -E leave PYTHONPATH aside, which leads to it. "
    "quantmon doctor -- COMMAND says more."
)
# Not the application's doing, as far as can be known.
_NOT_ENDED = "No model is in the file. The run has not ended, or it could not be recorded to its end."


def _anomalies(row: Overview) -> Text:
    """One that is on, else the most frequent kind, and how many others there are."""
    past = sorted(
        ((count, kind) for kind, count in row.anomalies.items() if count and kind not in row.active),
        reverse=True,
    )
    kinds = [f"{kind} now" for kind in row.active] + [f"{kind} x{count}" for count, kind in past]
    if not kinds:
        return Text("none")
    more = len(kinds) - 1
    return Text(kinds[0] + (f" +{more}" if more else ""), style="bold yellow" if row.active else "yellow")


# Name, what stands in it, and how soon it is left out for want of room: 0 never, the next three only when the model's
# name is as short as can be.
_LAST = 3
_COLUMNS: tuple[tuple[str, Callable[[Overview], Text], int], ...] = (
    ("model", lambda row: Text(row.model.name), 0),
    ("calls", lambda row: Text(_number(row.calls)), 1),
    ("/s", lambda row: Text(_rate(row.rate)), 6),
    ("p50", lambda row: Text(seconds_text(row.p50)), 2),
    ("p95", lambda row: Text(seconds_text(row.p95)), 8),
    ("p99", lambda row: Text(seconds_text(row.p99)), 3),
    ("drift", lambda row: Text(share_text(row.drift, sign=True)), 7),
    ("errors", lambda row: _marked(sum(row.errors.values())), 4),
    ("rel. error", lambda row: Text(_plain(row.relative_error)), 9),
    ("clipped", lambda row: Text(share_text(row.clipping)), 11),
    ("memory", lambda row: Text(bytes_text(row.memory)), 10),
    ("anomalies", _anomalies, 5),
    ("latency, 40 s", lambda row: Text(sparkline(row.recent)), 12),
)


def live_view(found: Sequence[Overview], title: str, width: int) -> RenderableType:
    """What is shown while a run lasts, in ``width`` columns: the least important are left out until the rest fit."""
    cells = [[cell(row) for row in found] for _, cell, _ in _COLUMNS]
    widths = [
        max([cell_len(name), *(text.cell_len for text in column)]) + 2
        for (name, _, _), column in zip(_COLUMNS, cells, strict=True)
    ]
    # The name is cut before the most important numbers are left out.
    widths[0] = min(widths[0], _LONGEST_NAME + 2)
    shown = list(range(len(_COLUMNS)))
    for place in sorted(shown[1:], key=lambda place: _COLUMNS[place][2], reverse=True):
        first = widths[0] if _COLUMNS[place][2] > _LAST else min(widths[0], _SHORTEST_NAME + 2)
        if first + sum(widths[kept] for kept in shown[1:]) > width:
            shown.remove(place)
    room = max(_SHORTEST_NAME, width - sum(widths[kept] for kept in shown[1:]) - 2)
    table = Table(box=None, padding=(0, 1), expand=False)
    for place in shown:
        name = _COLUMNS[place][0]
        if place:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="ellipsis", no_wrap=True, max_width=room)
    for number in range(len(found)):
        table.add_row(*(cells[place][number] for place in shown))
    # One line, however long the command is: the rows are the models'.
    head = Text(title, style="bold", no_wrap=True, overflow="ellipsis")
    nothing = () if found else (Text(" no inference yet", style="dim"),)
    return Group(head, table, *nothing)


def summary(found: Sequence[Overview], facts: dict[str, Any], notes: Iterable[str] = ()) -> RenderableType:
    """What is shown when a run has ended: for each model its numbers and what they mean, as ``perf stat`` does.

    Args:
        found: The models.
        facts: Facts of the run, as `queries.facts` gives them.
        notes: Lines to end with.
    """
    parts: list[RenderableType] = [Text(f"\nquantmon: {command_text(facts)}\n")]
    for row in found:
        table = Table(box=None, padding=(0, 1), show_header=False, expand=False)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(style="dim")
        for value, name, more in _lines(row):
            table.add_row(value, name, Text(more))
        about = (row.model.runtime, row.model.scheme, row.model.provider)
        parts += [Text(f" {row.model.name} ({', '.join(filter(None, about))})"), table, Text("")]
    if not found:
        parts.append(Text(f"{_NO_MODEL if facts.get('ended') else _NOT_ENDED}\n"))
    parts += [Text(f" {line}") for line in _run_lines(facts)]
    parts += [Text(f" {note}") for note in notes]
    return Group(*parts)


def _lines(row: Overview) -> list[tuple[Text, str, str]]:
    values = row.durations
    rate = "" if row.rate is None else f"{row.rate:,.1f} per second"
    lines = [(Text(_number(row.calls)), "call" if row.calls == 1 else "calls", rate)]
    if row.errors:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(row.errors.items()))
        lines.append((Text(_number(sum(row.errors.values())), style="red"), "failed", kinds))
    if row.calls:
        ends = "" if values.max is None else f"{seconds_text(values.min)} to {seconds_text(values.max)}"
        lines.append((Text(seconds_text(values.mean)), "mean duration", ends))
        quantiles = f"p95 {seconds_text(row.p95)}, p99 {seconds_text(row.p99)}"
        lines.append((Text(seconds_text(row.p50)), "median", quantiles))
    if row.drift is not None:
        lines.append((Text(share_text(row.drift, sign=True)), "drift", "from its own baseline, at the end"))
    if row.relative_error is not None:
        lines.append(
            (Text(_plain(row.relative_error)), "relative error", "from float, mean of the worst output")
        )
    if row.clipping is not None:
        lines.append(
            (Text(share_text(row.clipping)), "clipped", "input values out of the range of the graph")
        )
    if row.memory is not None:
        lines.append((Text(bytes_text(row.memory)), "memory", f"of {row.loads} load{'s' * (row.loads != 1)}"))
    for kind in sorted({*row.anomalies, *row.active}):
        more = f"{kind}, on at the end" if kind in row.active else kind
        count = row.anomalies.get(kind, 0)
        lines.append((Text(_number(count), style="yellow"), "anomaly" if count == 1 else "anomalies", more))
    return lines


def _run_lines(facts: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    if facts.get("started") and facts.get("ended"):
        lines.append(f"{(facts['ended'] - facts['started']) / 1e9:.3f} seconds elapsed")
    if facts.get("exit_status"):
        lines.append(f"exit status {facts['exit_status']}")
    rejected = sum(facts.get(f"rejected_{items}", 0) for items in ("spans", "points", "log_records"))
    if rejected:
        because = facts.get("rejected_because", "they meant nothing")
        lines.append(f"{rejected:,} spans, points or log records were rejected: {because}")
    return lines


def title(facts: dict[str, Any], now: int) -> str:
    """The head of the live view: for how long what has been running."""
    seconds = max(0, now - facts.get("started", now)) // 10**9
    return f"quantmon {time.strftime('%H:%M:%S', time.gmtime(seconds))}  {command_text(facts)}"


def _number(value: int) -> str:
    return f"{value:,}"


def _rate(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plain(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g}"


def _marked(count: int) -> Text:
    return Text(_number(count), style="red" if count else "")
