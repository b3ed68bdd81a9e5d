"""The one harness of providers: what an application's were given, also as text that a test can hold against a literal.

Values are written by ``repr``, so that 1, 1.0, True and a numpy scalar differ. What changes from run to run is
checked here and written as a placeholder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    Sum,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

# Shape of what differs from machine to machine, by attribute; each is checked to begin so.
_PLACEHOLDERS = {"quantmon.model.digest": "sha256:", "quantmon.runtime.version": "", "quantmon.cpu.isa": ""}
# What a keyword of `Exported.points` stands for.
_NAMES = {
    "model_name": "quantmon.model.name",
    "execution_provider": "quantmon.execution_provider",
    "operation": "quantmon.operation.name",
    "error_type": "error.type",
    "memory_type": "quantmon.memory.type",
    "statistic": "quantmon.statistic",
    "anomaly": "quantmon.anomaly.type",
    "phase": "quantmon.overhead.phase",
}
_MODEL = (
    "quantmon.model.name",
    "quantmon.runtime.name",
    "quantmon.quantization.scheme",
    "quantmon.execution_provider",
)
# Sizes that the operating system has a say in.
_RESIDENT = ("load_rss", "process_rss")


class Exported:
    """Providers of their own, and what they exported."""

    def __init__(self, **meter_options: Any) -> None:
        self._began = time.time_ns()
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracer_provider.get_tracer("application")
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False, **meter_options)

    @property
    def providers(self) -> dict[str, Any]:
        """The arguments of ``instrument`` that name them."""
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    def shut_down(self) -> None:
        """Release what the providers hold."""
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()

    def raw_spans(self) -> list[ReadableSpan]:
        """The ended spans of the instrumentation, in the order in which they ended."""
        scope = "otel_quantmon"
        return [span for span in self.exporter.get_finished_spans() if _scope(span) == scope]

    def raw_metrics(self) -> dict[str, Metric]:
        """The metrics of one collection, by name, made when the worker has done what there was to do."""
        # Not above: a program may use these providers before anything of the package is to be loaded.
        from otel_quantmon.process.worker import worker

        worker.flush(10)
        return self.collect()

    def collect(self) -> dict[str, Metric]:
        """The metrics of one collection, by name, made at once."""
        data = self.reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        assert len(found) == len({metric.name for metric in found}), "a metric was created twice"
        return {metric.name: metric for metric in found}

    def point(self, name: str, **attributes: str) -> Any:
        """The only point of metric ``name`` with these attributes, given without their prefix."""
        return _only(self.points(name, **attributes))

    def points(self, name: str, **attributes: str) -> list[Any]:
        """The points of metric ``name`` with these attributes; none if there is no such metric.

        Attributes are given as ``execution_provider`` or ``model_name``, without their common prefix.
        """
        metric = self.raw_metrics().get(name)
        wanted = {_NAMES[key]: value for key, value in attributes.items()}
        points: Iterable[Any] = () if metric is None else metric.data.data_points
        return [point for point in points if wanted.items() <= dict(point.attributes).items()]

    def points_by_name(self) -> dict[str, list[Any]]:
        """The points of each metric, of one collection made at once."""
        return {name: list(metric.data.data_points) for name, metric in self.collect().items()}

    def calls(self) -> int:
        """Inferences counted so far, of one collection made at once."""
        return sum(point.count for point in self.points_by_name().get("quantmon.inference.duration", ()))

    def active(self) -> int:
        """Inferences in flight, of one collection made at once."""
        return sum(point.value for point in self.points_by_name().get("quantmon.inference.active", ()))

    def count(self, **attributes: str) -> int:
        """Calls in the duration histogram with these attributes."""
        return sum(point.count for point in self.points("quantmon.inference.duration", **attributes))

    def spans(self) -> str:
        """Every span whole: name, kind, parent, status, attributes, events."""
        ended = self.exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in ended if span.context is not None}
        return "\n".join(line for span in self.raw_spans() for line in self._span(span, names))

    def metrics(self) -> str:
        """Every metric whole: name, kind, unit and, in a line each, its points."""
        names = {span.context.span_id: span.name for span in self.raw_spans() if span.context is not None}
        lines: list[str] = []
        for name, metric in sorted(self.raw_metrics().items()):
            lines.append(f"{name} ({_kind(metric)}, {metric.unit})")
            lines += sorted(_point(metric, point, names) for point in metric.data.data_points)
        return "\n".join(lines)

    def _span(self, span: ReadableSpan, names: Mapping[int, str]) -> Iterable[str]:
        assert span.start_time is not None
        assert span.end_time is not None
        assert self._began <= span.start_time <= span.end_time <= time.time_ns()
        parent = None if span.parent is None else names.get(span.parent.span_id, "unended")
        status = span.status.status_code.name
        described = "" if span.status.description is None else f" {span.status.description.splitlines()[0]!r}"
        yield f"{span.name} ({span.kind.name}, parent {parent}, {status}{described})"
        yield from (f"  {line}" for line in _attributes(span.attributes or {}))
        for event in span.events:
            attributes = dict(event.attributes or {})
            assert span.start_time <= event.timestamp <= span.end_time
            assert str(attributes.pop("exception.stacktrace")).startswith("Traceback")
            attributes["exception.message"] = str(attributes["exception.message"]).splitlines()[0]
            yield f"  event {event.name}"
            yield from (f"    {line}" for line in _attributes(attributes))
        assert not span.links


def _scope(span: ReadableSpan) -> str | None:
    return None if span.instrumentation_scope is None else span.instrumentation_scope.name


def _only(points: list[Any]) -> Any:
    assert len(points) == 1, points
    return points[0]


def _kind(metric: Metric) -> str:
    if isinstance(metric.data, Histogram):
        return "histogram"
    if isinstance(metric.data, Gauge):
        return "gauge"
    assert isinstance(metric.data, Sum)
    return "counter" if metric.data.is_monotonic else "updowncounter"


def _attributes(attributes: Mapping[str, Any]) -> list[str]:
    shown: list[str] = []
    for name, value in sorted(attributes.items()):
        if name in _PLACEHOLDERS:
            assert isinstance(value, str)
            assert value.startswith(_PLACEHOLDERS[name])
            assert value not in {"", "unknown"}
            shown.append(f"{name}=<{name.rpartition('.')[2]}>")
        else:
            shown.append(f"{name}={value!r}")
    return shown


def _point(metric: Metric, point: Any, spans: Mapping[int, str]) -> str:
    attributes = dict(point.attributes)
    shown: list[str] = []
    if attributes.keys() >= set(_MODEL):
        # The four that tell one model's series from another's, without their names.
        shown.append(f"[{' '.join(attributes.pop(name) for name in _MODEL)}]")
    return f"  {' '.join(shown + _attributes(attributes))}: {_value(metric, point, spans)}"


def _value(metric: Metric, point: Any, spans: Mapping[int, str]) -> str:
    if isinstance(point, HistogramDataPoint):
        assert sum(point.bucket_counts) == point.count
        assert point.min <= point.sum / point.count * (1 + 1e-9)
        shown = f"count {point.count}"
        if metric.unit != "s":
            shown += f" sum {point.sum!r} min {point.min!r} max {point.max!r}"
        linked = sorted(spans[exemplar.span_id] for exemplar in point.exemplars)
        return shown + (f" exemplars {linked}" if linked else "")
    value = point.value
    if metric.unit == "{node}":
        # The runtime's version decides how many nodes it makes of a graph.
        assert type(value) is int
        assert value > 0
        return f"<{metric.unit}>"
    memory = point.attributes.get("quantmon.memory.type")
    if metric.unit in {"s", "By/{inference}"} or metric.name == "quantmon.inference.duration.drift":
        assert isinstance(value, float)
        assert math.isfinite(value)
        return f"<{metric.unit}>"
    if memory in _RESIDENT:
        assert isinstance(value, int)
        assert value >= 0
        return f"<{metric.unit}>"
    return repr(value)
