"""Providers of the SDK that keep what they are given in this process: for a look at what an observation tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

__all__ = ["InMemoryProviders"]


class InMemoryProviders:
    """Two providers as an application has them. Metrics are collected when asked for, and spans are dropped.

    Attributes:
        arguments: What to give to an instrumentor.
    """

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider(metric_readers=[self._reader])
        self._tracers = TracerProvider()
        self._tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))
        self.arguments: dict[str, Any] = {
            "tracer_provider": self._tracers,
            "meter_provider": self._meters,
        }

    def collect(self) -> list[tuple[str, dict[str, Any], float]]:
        """Name, attributes and value of each metric now that is a number."""
        data = self._reader.get_metrics_data()
        return [
            (metric.name, dict(point.attributes or {}), point.value)
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        ]

    def shut_down(self) -> None:
        """End the threads of both."""
        self._tracers.shutdown()
        self._meters.shutdown()


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS
