"""The OpenTelemetry pipeline that all variants share: all the work of an export but the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult


class DroppingSpanExporter(SpanExporter):
    """Encodes spans to OTLP protobuf and drops the bytes.

    Attributes:
        spans: exported so far.
    """

    def __init__(self) -> None:
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        self.spans += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


class DroppingMetricExporter(MetricExporter):
    """Encodes metrics to OTLP protobuf and drops the bytes."""

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any
    ) -> MetricExportResult:
        del timeout_millis
        encode_metrics(metrics_data).SerializeToString()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        pass


class Pipeline:
    """Both providers with the SDK's default limits and intervals.

    Attributes:
        tracer_provider, meter_provider: to be used, or set as global ones.
        exporter: of the spans.
    """

    def __init__(self) -> None:
        self.exporter = DroppingSpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(BatchSpanProcessor(self.exporter))
        reader = PeriodicExportingMetricReader(DroppingMetricExporter())
        self.meter_provider = MeterProvider(metric_readers=[reader])

    def flush(self) -> None:
        """Export what waits, and collect and export the metrics once."""
        self.tracer_provider.force_flush()
        self.meter_provider.force_flush()
