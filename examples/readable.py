"""Make what OpenTelemetry's console exporters print readable.

    opentelemetry-instrument --traces_exporter console --metrics_exporter console python app.py | python readable.py

Spans become a line each, the metrics of the last export a table; all other lines pass through as they come.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

# These four tell one model from another; the table has a heading for each model instead of repeating them.
_MODEL = ("model.name", "runtime.name", "quantization.scheme", "execution_provider")
_SHOWN_SPANS = 5


def documents(text: str) -> Iterator[str | dict[str, Any]]:
    """The JSON objects and the lines between them, in their order."""
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        line_end = text.find("\n", position) + 1 or len(text)
        line = text[position:line_end]
        if line.startswith("{"):
            try:
                document, position = decoder.raw_decode(text, position)
            except json.JSONDecodeError:
                yield line.rstrip()
                position = line_end
            else:
                yield document
        else:
            if line.strip():
                yield line.rstrip()
            position = line_end


def main() -> None:
    spans: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    for document in documents(sys.stdin.read()):
        if isinstance(document, str):
            print(document)
        elif "resource_metrics" in document:
            scopes = [
                scope for resource in document["resource_metrics"] for scope in resource["scope_metrics"]
            ]
            metrics = [metric for scope in scopes for metric in scope["metrics"]]
        else:
            spans.append(document)
    _print_spans(spans)
    _print_metrics(metrics)


def _print_spans(spans: list[dict[str, Any]]) -> None:
    print(f"\n{len(spans)} spans" + (f", the last {_SHOWN_SPANS}:" if len(spans) > _SHOWN_SPANS else ""))
    for span in spans[-_SHOWN_SPANS:]:
        start, end = (
            datetime.fromisoformat(span[key].replace("Z", "+00:00")) for key in ("start_time", "end_time")
        )
        milliseconds = (end - start).total_seconds() * 1e3
        print(f"  {span['name']:32} {milliseconds:9.3f} ms  {_text(_short(span['attributes'], _FEW))}")


_FEW = ("operation.name", "input.shapes", "output.shapes", "batch.size", "error.type", "warmup")


def _print_metrics(metrics: list[dict[str, Any]]) -> None:
    heading = None
    rows = [
        (_text(_short(point["attributes"], _MODEL)), metric["name"], point, metric["unit"])
        for metric in metrics
        for point in metric["data"]["data_points"]
    ]
    for model, name, point, unit in sorted(rows, key=lambda row: (not row[0], row[0], row[1])):
        if model != heading:
            heading = model
            print(f"\n{model or 'the process'}")
        attributes = {key: value for key, value in _short(point["attributes"]).items() if key not in _MODEL}
        print(f"  {name:36} {_value(point, unit):>26}  {_text(attributes)}".rstrip())


def _value(point: dict[str, Any], unit: str) -> str:
    if "count" in point:
        return f"{point['count']} x {_number(point['sum'] / max(1, point['count']), unit)}"
    return _number(point["value"], unit)


def _number(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1e3:,.3f} ms"
    if unit == "By":
        return f"{value / 1024:,.0f} KiB" if value >= 10_240 else f"{value} B"
    return f"{value:,.4g} {unit.strip('{}') if unit != '1' else ''}".rstrip()


def _short(attributes: dict[str, Any], wanted: tuple[str, ...] | None = None) -> dict[str, Any]:
    short = {key.removeprefix("quantmon."): value for key, value in attributes.items()}
    return short if wanted is None else {key: short[key] for key in wanted if key in short}


def _text(attributes: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}={' '.join(value) if isinstance(value, list) else value}" for key, value in attributes.items()
    )


if __name__ == "__main__":
    main()
