"""Requests of OTLP as the tests send them, and how they are sent."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

PROTOBUF = "application/x-protobuf"
SECOND = 10**9
BEGAN = 1_700_000_000 * SECOND
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
MODEL = {
    "quantmon.model.name": "net",
    "quantmon.runtime.name": "onnxruntime",
    "quantmon.quantization.scheme": "qdq",
}


def put(attributes: Any, told: Mapping[str, Any]) -> None:
    """Add ``told`` to a message's attributes."""
    for key, value in told.items():
        pair = attributes.add()
        pair.key = key
        kind = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}[type(value)]
        setattr(pair.value, kind, value)


def traces(
    count: int, *, first: int = 1, process: str = "one", attributes: Mapping[str, Any] | None = None
) -> ExportTraceServiceRequest:
    """``count`` spans of inferences, of 1 ms each, with ids from ``first`` on."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    put(resource.resource.attributes, {"service.instance.id": process, "service.name": "app"})
    scope = resource.scope_spans.add()
    scope.scope.name = "otel_quantmon"
    for number in range(first, first + count):
        span = scope.spans.add()
        span.trace_id, span.span_id = number.to_bytes(16, "big"), number.to_bytes(8, "big")
        span.name = "inference net"
        span.start_time_unix_nano = BEGAN + number * SECOND
        span.end_time_unix_nano = span.start_time_unix_nano + 10**6
        put(span.attributes, {**MODEL, "quantmon.operation.name": "run", **(attributes or {})})
    return request


def metrics(process: str = "one") -> tuple[ExportMetricsServiceRequest, Any]:
    """A request without metrics, and where they are added."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    put(resource.resource.attributes, {"service.instance.id": process, "service.name": "app"})
    scope = resource.scope_metrics.add()
    scope.scope.name = "otel_quantmon"
    return request, scope.metrics


def durations(
    counts: Sequence[int],
    time: float,
    *,
    bounds: Sequence[float] = (0.001, 0.002),
    temporality: Any = DELTA,
    start: float = 0.0,
    process: str = "one",
    total: float | None = None,
    ends: tuple[float, float] | None = None,
    **attributes: str,
) -> ExportMetricsServiceRequest:
    """One point of the duration histogram, ``time`` seconds after `BEGAN`."""
    request, added = metrics(process)
    metric = added.add()
    metric.name, metric.unit = "quantmon.inference.duration", "s"
    metric.histogram.aggregation_temporality = temporality
    point = metric.histogram.data_points.add()
    point.start_time_unix_nano = BEGAN + int(start * SECOND)
    point.time_unix_nano = BEGAN + int(time * SECOND)
    point.explicit_bounds.extend(bounds)
    point.bucket_counts.extend(counts)
    point.count = sum(counts)
    point.sum = point.count * 0.001 if total is None else total
    if ends:
        point.min, point.max = ends
    put(point.attributes, {**MODEL, "quantmon.operation.name": "run", **attributes})
    return request


def number(
    name: str,
    value: float,
    time: float,
    *,
    kind: str = "gauge",
    temporality: Any = CUMULATIVE,
    monotonic: bool = True,
    start: float = 0.0,
    process: str = "one",
    **attributes: str,
) -> ExportMetricsServiceRequest:
    """One point of a gauge or of a sum."""
    request, added = metrics(process)
    metric = added.add()
    metric.name = name
    data = getattr(metric, kind)
    if kind == "sum":
        data.aggregation_temporality, data.is_monotonic = temporality, monotonic
    point = data.data_points.add()
    point.start_time_unix_nano = BEGAN + int(start * SECOND)
    point.time_unix_nano = BEGAN + int(time * SECOND)
    point.as_double = value
    put(
        point.attributes,
        {**MODEL, **{f"quantmon.{key.replace('_', '.')}": told for key, told in attributes.items()}},
    )
    return request


def anomaly(time: float, kind: str, *, name: str = "quantmon.anomaly.entered") -> ExportLogsServiceRequest:
    """One event."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    put(resource.resource.attributes, {"service.instance.id": "one", "service.name": "app"})
    record = resource.scope_logs.add().log_records.add()
    record.event_name = name
    record.time_unix_nano = BEGAN + int(time * SECOND)
    record.severity_number = 13
    record.body.string_value = "net is slower"
    put(record.attributes, {**MODEL, "quantmon.anomaly.type": kind})
    return request


def post(
    address: str, path: str, body: bytes, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """Send one request; status, body and headers of the answer."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": PROTOBUF, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}
    finally:
        connection.close()
