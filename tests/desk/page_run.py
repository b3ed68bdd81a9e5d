"""A run as the tests of the page want it: two models, one of a hostile name, and all that is shown of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from desk.otlp import BEGAN, DELTA, PROTOBUF, SECOND, anomaly, metrics, number, put
from otel_quantmon.desk.messages import Signal
from otel_quantmon.desk.store import Store

HOSTILE = "<script>window.harmed=1</script><b onmouseover=alert(1)>&amp;"
GOOD = "detector"
BOUNDS = [m * 10.0**e for e in range(-4, 0) for m in (1, 2, 5)]
SLOWER_FROM = 60
SECONDS = 90
SERVER_SPAN = 0xAAAA
SIGNALS: dict[type, Signal] = {
    ExportTraceServiceRequest: "traces",
    ExportMetricsServiceRequest: "metrics",
    ExportLogsServiceRequest: "logs",
}


def attributes(model: str) -> dict[str, Any]:
    return {
        "quantmon.model.name": model,
        "quantmon.runtime.name": "onnxruntime",
        "quantmon.quantization.scheme": "qdq",
        "quantmon.execution_provider": "CPUExecutionProvider",
    }


def write(path: Path) -> None:
    """Make the file of the run, as if it still lasted."""
    store = Store(path, facts={"command": '["python", "app.py"]'})
    store.start()
    done = [store.submit(SIGNALS[type(request)], PROTOBUF, request.SerializeToString()) for request in run()]
    for each in done:
        each.result(60)
    store.close()


def run() -> Iterator[Any]:
    """The requests of `SECONDS` seconds, one collection a second."""
    chance = random.Random(5)
    for second in range(1, SECONDS + 1):
        slower = 2.5 if second >= SLOWER_FROM else 1.0
        request, added = metrics()
        _durations(
            added, GOOD, second, [chance.lognormvariate(math.log(0.004 * slower), 0.2) for _ in range(40)]
        )
        _durations(
            added, HOSTILE, second, [chance.lognormvariate(math.log(0.0008), 0.15) for _ in range(150)]
        )
        if second == 70:
            _durations(added, GOOD, second, [0.002] * 3, error_type="InvalidArgument")
        for model in (GOOD, HOSTILE):
            wave = math.sin(second / 9) * 0.1
            if second >= 15:
                drift = (slower - 1 if model == GOOD else 0) + wave * 0.2
                _gauge(added, "quantmon.inference.duration.drift", model, second, drift)
                mean = (0.004 if model == GOOD else 0.0008) * (1 + drift)
                for statistic, factor in (("mean", 1.0), ("p50", 0.97), ("p95", 1.4), ("p99", 1.7)):
                    name = "quantmon.inference.window.duration"
                    _gauge(added, name, model, second, mean * factor, statistic=statistic)
            for output, level in (("scores", 0.012), ("<i>boxes", 0.035)):
                far = level * (1 + wave) * (3 if model == GOOD and 40 <= second < 55 else 1)
                for statistic, factor in (("mean", 1.0), ("max", 1.6)):
                    told = {"output.name": output, "reference.source": "shadow", "statistic": statistic}
                    _gauge(added, "quantmon.output.relative_error", model, second, far * factor, **told)
            clip = 0.002 + max(0.0, wave) * 0.05
            _gauge(added, "quantmon.input.clip_ratio", model, second, clip, **{"input.name": "image"})
            for kind, size in (("process_rss", 180e6 + 4e5 * second), ("model_file", 24e6), ("io", 2.4e6)):
                _gauge(added, "quantmon.memory.usage", model, second, size, **{"memory.type": kind})
        yield request
    yield _errors()
    yield _facts()
    for kind in ("latency_drift", "relative_error"):
        request = number("quantmon.anomalies", 1.0, SECONDS, kind="sum", anomaly_type=kind)
        # The helper names a model of its own.
        request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].attributes[
            0
        ].value.string_value = GOOD
        yield request
    active = number("quantmon.anomaly.active", 1, SECONDS, anomaly_type="latency_drift")
    points = active.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    points[0].attributes[0].value.string_value = GOOD
    yield active
    yield from _spans(chance)
    yield _anomaly(SLOWER_FROM + 3, "latency_drift", 2)
    yield _anomaly(42, "relative_error", 3)
    left = _anomaly(56, "relative_error", 3)
    left.resource_logs[0].scope_logs[0].log_records[0].event_name = "quantmon.anomaly.left"
    yield left


def _durations(added: Any, model: str, second: float, values: list[float], **more: str) -> None:
    metric = added.add()
    metric.name, metric.unit = "quantmon.inference.duration", "s"
    metric.histogram.aggregation_temporality = DELTA
    point = metric.histogram.data_points.add()
    point.start_time_unix_nano = BEGAN + int((second - 1) * SECOND)
    point.time_unix_nano = BEGAN + int(second * SECOND)
    point.explicit_bounds.extend(BOUNDS)
    counts = [0] * (len(BOUNDS) + 1)
    for value in values:
        counts[sum(bound < value for bound in BOUNDS)] += 1
    point.bucket_counts.extend(counts)
    point.count, point.sum, point.min, point.max = len(values), sum(values), min(values), max(values)
    told = {f"{key.replace('_', '.')}": value for key, value in more.items()}
    put(point.attributes, {**attributes(model), "quantmon.operation.name": "run", **told})


def _gauge(added: Any, name: str, model: str, second: float, value: float, **more: str) -> None:
    metric = added.add()
    metric.name = name
    point = metric.gauge.data_points.add()
    point.time_unix_nano = BEGAN + int(second * SECOND)
    point.as_double = value
    put(point.attributes, {**attributes(model), **{f"quantmon.{key}": told for key, told in more.items()}})


def _errors() -> ExportMetricsServiceRequest:
    """The distribution of the relative error, with an exemplar: that of the second inference."""
    request, added = metrics()
    metric = added.add()
    metric.name = "quantmon.output.error"
    metric.histogram.aggregation_temporality = DELTA
    point = metric.histogram.data_points.add()
    point.start_time_unix_nano, point.time_unix_nano = BEGAN, BEGAN + SECONDS * SECOND
    point.explicit_bounds.extend([0.01, 0.1, 1])
    point.bucket_counts.extend([0, 1, 0, 0])
    point.count, point.sum = 1, 0.097
    told = {"quantmon.output.name": "scores", "quantmon.reference.source": "shadow"}
    put(point.attributes, {**attributes(GOOD), **told})
    exemplar = point.exemplars.add()
    exemplar.as_double, exemplar.time_unix_nano = 0.097, BEGAN + 45 * SECOND
    exemplar.trace_id, exemplar.span_id = (2).to_bytes(16, "big"), (2).to_bytes(8, "big")
    return request


def _facts() -> ExportMetricsServiceRequest:
    request, added = metrics()
    for model in (GOOD, HOSTILE):
        metric = added.add()
        metric.name = "quantmon.model.info"
        point = metric.gauge.data_points.add()
        point.time_unix_nano, point.as_double = BEGAN + SECONDS * SECOND, 1
        told = {
            "quantmon.model.format": "onnx",
            "quantmon.runtime.version": "1.29.0",
            "quantmon.quantization.weight_type": "int8",
            "quantmon.quantization.activation_type": "uint8",
            "quantmon.model.digest": "sha256:4c1d…",
        }
        put(point.attributes, {**attributes(model), **told})
    return request


def _spans(chance: random.Random) -> Iterator[ExportTraceServiceRequest]:
    """Forty inferences, each under a span of a server, the fifth of which fails."""
    for place in range(1, 41):
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        put(
            resource.resource.attributes,
            {"service.instance.id": "web", "service.name": "app", "process.pid": 4242},
        )
        start = BEGAN + int(place * 2.2 * SECOND)
        server = resource.scope_spans.add()
        server.scope.name = "opentelemetry.instrumentation.fastapi"
        outer = server.spans.add()
        outer.name, outer.kind = "POST /detect", 2
        outer.trace_id, outer.span_id = place.to_bytes(16, "big"), (SERVER_SPAN + place).to_bytes(8, "big")
        outer.start_time_unix_nano, outer.end_time_unix_nano = start - 3_000_000, start + 45_000_000
        own = resource.scope_spans.add()
        own.scope.name = "otel_quantmon"
        model = HOSTILE if place % 10 == 0 else GOOD
        span = own.spans.add()
        span.name, span.kind = f"inference {model}", 1
        span.trace_id, span.span_id = place.to_bytes(16, "big"), place.to_bytes(8, "big")
        span.parent_span_id = outer.span_id
        span.start_time_unix_nano = start
        slower = 2.5 if place * 2.2 >= SLOWER_FROM else 1.0
        span.end_time_unix_nano = start + int(chance.lognormvariate(math.log(0.006 * slower), 0.3) * SECOND)
        told = {"quantmon.operation.name": "run", "quantmon.batch.size": 1}
        put(span.attributes, {**attributes(model), **told, **({"error.type": "Fail"} if place == 5 else {})})
        if place == 5:
            span.status.code, span.status.message = 2, "<img src=x onerror=alert(1)> shape"
            event = span.events.add()
            event.name, event.time_unix_nano = "exception", span.end_time_unix_nano
            put(event.attributes, {"exception.type": "Fail", "exception.message": "the shape <b>differs</b>"})
        yield request


def _anomaly(second: float, kind: str, number: int) -> Any:
    request = anomaly(second, kind)
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    del record.attributes[:]
    put(record.attributes, {**attributes(GOOD), "quantmon.anomaly.type": kind})
    record.body.string_value = f"{GOOD}: {kind}"
    record.trace_id, record.span_id = number.to_bytes(16, "big"), number.to_bytes(8, "big")
    return request
