"""Draws the dashboards with real data, for ``docs/pictures/``.

Run by hand:

    pip install ".[onnxruntime,litert,otlp]" --group test --group stack magika matplotlib pymicro-wakeword
    PYTHONPATH=tests python -m stack.pictures record answers.json    # four minutes
    PYTHONPATH=tests python -m stack.pictures draw answers.json docs/pictures

``record`` runs the shipped stack with two unchanged example applications under load, with half a minute of overload in
the middle, then asks Prometheus each panel's queries as Grafana would and keeps the answers. ``draw`` draws them in
the dashboard's own layout, with its titles, units, legends and limits. What Grafana adds of its own is not there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, MinuteLocator, date2num
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stack.backends import SHIPPED, Collector, collector, jaeger, prometheus
from stack.load import requests
from stack.running import Process
from stack.test_stack_service import EXAMPLES, Classifier, classifier

BOARDS: Final = sorted((SHIPPED / "grafana" / "dashboards").glob("*.json"))
STEP: Final = 5.0
CALM_SECONDS: Final = (110.0, 60.0)
"""Before and after the overload."""
OVERLOAD_SECONDS: Final = 30.0
VARIABLES: Final = {"$__rate_interval": "60s", "$job": ".+", "$model": "magika_int8"}
"""Four scrape intervals, as Grafana takes; every service; for the page of one model, that one."""
SCALES: Final = {
    "s": [(1e-6, "µs", 1e6), (1e-3, "ms", 1e3), (1, "s", 1)],
    "bytes": [(1, "B", 1), (1024, "KiB", 1 / 1024), (1024**2, "MiB", 1 / 1024**2)],
    "Bps": [(1, "B/s", 1), (1e3, "kB/s", 1e-3), (1e6, "MB/s", 1e-6)],
    "percentunit": [(0, "%", 100)],
    "reqps": [(0, "req/s", 1)],
    "dB": [(0, "dB", 1)],
}
INK, PAPER, GRID = "#24292e", "#ffffff", "#e4e7eb"


def record(file: Path) -> None:
    """Run everything, and write the answers to all queries of all panels."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        directory = Path(scratch)
        server = stack.enter_context(prometheus(directory / "prometheus"))
        environment = {
            "PROMETHEUS_URL": server.url,
            "JAEGER_OTLP": stack.enter_context(jaeger(directory / "jaeger")).otlp,
            "TEMPO_OTLP": stack.enter_context(jaeger(directory / "second-jaeger")).otlp,
        }
        collecting = stack.enter_context(
            collector(directory / "otelcol", "otelcol.yaml", environment=environment)
        )
        # Prometheus reads it again by itself; neither of the two can know the other's port before.
        (directory / "prometheus" / "configuration" / "targets" / "otelcol.yml").write_text(
            f'- targets: ["{collecting.metrics}"]\n'
        )
        start = time.time()
        asked = stack.enter_context(_classifier(directory / "service", collecting))
        for room in ("kitchen", "hall", "cellar"):
            stack.enter_context(_listener(directory / room, collecting, room))
        _load(asked)
        time.sleep(20)  # Until the last export has been scraped and the rules have seen it.
        end = time.time()
        answers: dict[str, Any] = {"start": start, "end": end, "boards": {}}
        for board in BOARDS:
            answers["boards"][board.stem] = [
                {
                    **panel,
                    "answers": [
                        {
                            "instant": server.query(expression),
                            "series": server.query_range(expression, start, end, STEP),
                            "exemplars": server.exemplars(expression, start, end)
                            if target.get("exemplar")
                            else [],
                        }
                        for target in panel.get("targets", [])
                        for expression in [_filled(target["expr"])]
                    ],
                }
                for panel in json.loads(board.read_text())["panels"]
            ]
        file.write_text(json.dumps(answers))


def _filled(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def _classifier(directory: Path, server: Collector) -> contextlib.AbstractContextManager[Classifier]:
    import magika

    reference = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
    settings = {
        "OTEL_SERVICE_NAME": "classifier",
        "QUANTMON_REFERENCE": f"magika_int8={reference}",
        "QUANTMON_REFERENCE_BUDGET": "0.05",
        "QUANTMON_TIMEOUT": "100ms",
    }
    return classifier(directory, server.otlp_grpc, settings)


@contextlib.contextmanager
def _listener(directory: Path, server: Collector, room: str) -> Iterator[Process]:
    """The wake-word example over and over on real time's own pace, a step of 30 ms each, as the instance of a room."""
    directory.mkdir()
    program = (
        "import time, tflite_app\n"
        "while True:\n"
        "    for step in tflite_app.steps(tflite_app.audio([])):\n"
        "        tflite_app.probability(step)\n"
        "        time.sleep(0.03)\n"
    )
    environment = {
        "OTEL_SERVICE_NAME": "wake-word",
        "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={room}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{server.otlp_grpc}",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "PYTHONPATH": str(EXAMPLES),
    }
    command = [Path(sys.executable).with_name("opentelemetry-instrument"), sys.executable, "-c", program]
    process = Process(command, directory, environment, directory / "output.log")
    try:
        yield process
    finally:
        process.stop()


def _load(asked: Classifier) -> None:
    """Some eight requests a second; in the middle for a while as many as 40 clients can bring."""
    sources = [path.read_bytes() for path in sorted(Path(contextlib.__file__).parent.glob("*.py"))[:60]]
    contents = [source for source in sources if source]
    with requests(asked, contents=contents):
        time.sleep(CALM_SECONDS[0])
        with requests(asked, clients=40, pause=0, contents=contents):
            time.sleep(OVERLOAD_SECONDS)
        time.sleep(CALM_SECONDS[1])


def draw(file: Path, directory: Path) -> None:
    """One picture for each dashboard."""
    answers = json.loads(file.read_text())
    directory.mkdir(parents=True, exist_ok=True)
    span = (answers["start"], answers["end"])
    for name, panels in answers["boards"].items():
        title = json.loads((SHIPPED / "grafana" / "dashboards" / f"{name}.json").read_text())["title"]
        _board(title, panels, span).savefig(directory / f"{name}.png", dpi=70)
        plt.close("all")


def _board(title: str, panels: list[dict[str, Any]], span: tuple[float, float]) -> plt.Figure:
    plt.rcParams.update({"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GRID})
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) + 2
    figure = plt.figure(figsize=(18, rows * 0.44), facecolor=PAPER)
    figure.text(0.01, 1 - 1 / rows, title, fontsize=15, va="center")
    for panel in panels:
        grid = panel["gridPos"]
        left, top = grid["x"] / 24, 1 - (grid["y"] + 2) / rows
        if panel["type"] == "row":
            figure.text(0.01, top - 0.5 / rows, panel["title"], fontsize=12, weight="bold", va="center")
            continue
        # Room for the title above, the ticks on the left and the legend below.
        axes = figure.add_axes(
            (
                left + 0.035,
                top - (grid["h"] - 2.3) / rows,
                grid["w"] / 24 - 0.05,
                (grid["h"] - 3.4) / rows,
            )
        )
        figure.text(left + 0.01, top - 0.55 / rows, panel["title"], weight="bold", va="center")
        DRAWN[panel["type"]](axes, panel, span)
    return figure


def _number(axes: Axes, panel: dict[str, Any], _: tuple[float, float]) -> None:
    axes.axis("off")
    samples = panel["answers"][0]["instant"]
    value = float(samples[0]["value"][1]) if samples else math.nan
    limit = _limit(panel)
    colour = "#c4162a" if limit is not None and value >= limit else "#37872d"
    text = _formatted(value, panel) if samples else "No data"
    axes.text(0.5, 0.3, text, fontsize=22, color=colour, ha="center", va="center")


def _lines(axes: Axes, panel: dict[str, Any], span: tuple[float, float]) -> None:
    lines = {}
    for target, answer in zip(panel["targets"], panel["answers"], strict=True):
        for series in answer["series"]:
            # As Grafana does: where there is no number there is no line.
            points = [(moment, float(text)) for moment, text in series["values"] if text != "NaN"]
            if points:
                lines[_legend(target["legendFormat"], series["metric"])] = points
    _frame(axes, span)
    if not lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", color="#8e9297")
        return
    values = [value for points in lines.values() for _, value in points]
    name, factor = _scale(max(map(abs, values)), panel)
    for legend, points in lines.items():
        times = [_day(moment) for moment, _ in points]
        axes.plot(times, [value * factor for _, value in points], linewidth=1.3, label=legend)
    top = max(values) * factor * 1.3
    for item in panel["answers"][-1]["exemplars"]:
        dot = min(float(item["value"]) * factor, top)  # at the edge: one slow call would flatten all lines
        axes.plot(_day(item["timestamp"]), dot, "D", markersize=2.5, color="#5794f2", alpha=0.4)
    limit = _limit(panel)
    if limit is not None:
        axes.axhline(limit * factor, color="#c4162a", linestyle="--", linewidth=1)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}{name}"))
    if min(values) >= 0 and panel["title"] not in {"Signal to quantization noise", "Cosine similarity"}:
        highest = axes.get_ylim()[1] if max(values) or limit is not None else 1.0
        axes.set_ylim(bottom=-0.02 * highest, top=highest)  # a line at 0 stays visible
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.13),
        ncols=4 if panel["gridPos"]["w"] > 8 else 2,
        frameon=False,
        fontsize=8,
    )


def _heatmap(axes: Axes, panel: dict[str, Any], span: tuple[float, float]) -> None:
    # Buckets are cumulative: each takes the one below it off, at the same moment.
    series = sorted(panel["answers"][0]["series"], key=lambda one: float(one["metric"]["le"]))
    finite = [one for one in series if math.isfinite(float(one["metric"]["le"]))]
    moments = sorted({moment for one in finite for moment, _ in one["values"]})
    below = dict.fromkeys(moments, 0.0)
    cells = []
    for one in finite:
        counts = {moment: float(text) for moment, text in one["values"]}
        cells.append([max(0.0, counts.get(moment, below[moment]) - below[moment]) for moment in moments])
        below = {moment: counts.get(moment, below[moment]) for moment in moments}
    bounds = [float(one["metric"]["le"]) for one in finite]
    used = [index for index, row in enumerate(cells) if max(row) > 0]
    first, last = used[0], used[-1]
    edges = [bounds[first - 1] if first else bounds[0] / 2, *bounds[first : last + 1]]
    shown = [[count or math.nan for count in row[:-1]] for row in cells[first : last + 1]]
    times = [_day(moment) for moment in moments]
    axes.pcolormesh(times, edges, shown, cmap="Blues", shading="flat", vmin=-0.2 * max(map(max, cells)))
    _frame(axes, span)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _formatted(value, panel)))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def _states(axes: Axes, panel: dict[str, Any], span: tuple[float, float]) -> None:
    limit = _limit(panel)
    assert limit is not None
    rows = {}
    for target, answer in zip(panel["targets"], panel["answers"], strict=True):
        for series in answer["series"]:
            rows[_legend(target["legendFormat"], series["metric"])] = series["values"]
    names = sorted(rows, reverse=True)
    place = axes.get_position()
    axes.set_position((place.x0 + 0.07, place.y0, place.width - 0.07, place.height))  # room for the names
    width = STEP / 86400  # a day is 1 on matplotlib's axis of time
    for row, name in enumerate(names):
        for on, colour in ((False, "#37872d"), (True, "#c4162a")):
            pieces = [(_day(at), width) for at, value in rows[name] if (float(value) >= limit) == on]
            axes.broken_barh(pieces, (row - 0.4, 0.8), facecolors=colour)
    _frame(axes, span)
    axes.grid(visible=False)
    axes.set_yticks(range(len(names)), names)


def _table(axes: Axes, panel: dict[str, Any], _: tuple[float, float]) -> None:
    axes.axis("off")
    rows = [sample["metric"] for sample in panel["answers"][0]["instant"]]
    if not rows:
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", color="#8e9297")
        return
    columns = sorted({name for row in rows for name in row if not name.startswith(("__", "otel_"))})
    heads = [name.removeprefix("quantmon_").replace("_", " ") for name in columns]
    cells = [[_short(row.get(name, "")) for name in columns] for row in rows]
    drawn = axes.table(cells, colLabels=heads, loc="upper left", cellLoc="left", edges="horizontal")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7.5)
    drawn.auto_set_column_width(list(range(len(columns))))
    drawn.scale(1, 1.5)


def _short(text: str) -> str:
    return text if len(text) <= 22 else f"{text[:19]}…"


def _frame(axes: Axes, span: tuple[float, float]) -> None:
    axes.set_xlim(*(_day(moment) for moment in span))
    axes.xaxis.set_major_locator(MinuteLocator())
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.grid(color=GRID, linewidth=0.7)
    axes.tick_params(length=0, labelsize=8)


def _limit(panel: dict[str, Any]) -> float | None:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return next((step["value"] for step in steps if step.get("value") is not None), None)


def _legend(template: str, labels: dict[str, str]) -> str:
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template).strip()
    return text or "Value"


def _scale(size: float, panel: dict[str, Any]) -> tuple[str, float]:
    """The multiple of the panel's unit that suits a size: what is written behind a number, and its factor."""
    scales = SCALES.get(panel["fieldConfig"]["defaults"]["unit"], [(0, "", 1)])
    _, name, factor = next((one for one in reversed(scales) if size >= one[0]), scales[0])
    return name if name in {"", "%"} else f" {name}", factor


def _formatted(value: float, panel: dict[str, Any]) -> str:
    name, factor = _scale(abs(value), panel)
    return f"{value * factor:.4g}{name}"


def _day(moment: float) -> float:
    return float(date2num(dt.datetime.fromtimestamp(moment, tz=dt.timezone.utc)))


DRAWN: Final = {
    "stat": _number,
    "timeseries": _lines,
    "state-timeline": _states,
    "heatmap": _heatmap,
    "table": _table,
}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", answers]:
            record(Path(answers))
        case ["draw", answers, pictures]:
            draw(Path(answers), Path(pictures))
        case _:
            sys.exit(__doc__)
