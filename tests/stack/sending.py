"""Real telemetry from the real SDK, under the names that otel-quantmon promises, with known values."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from otel_quantmon import semconv

METRICS: Final = [item for item in vars(semconv).values() if isinstance(item, semconv.Metric)]
MODEL: Final = {
    semconv.MODEL_NAME: "digits",
    semconv.RUNTIME_NAME: "onnxruntime",
    semconv.QUANTIZATION_SCHEME: "qdq",
    semconv.EXECUTION_PROVIDER: "CPUExecutionProvider",
}
OBSERVED: Final = 0.25
"""What every instrument of `send_every_metric` is given, once."""


@dataclass(frozen=True)
class Service:
    """A service with the SDK set up as ``opentelemetry-instrument`` would, under a name of its own.

    Attributes:
        name: ``service.name``, which is Prometheus's ``job``.
    """

    name: str
    tracer: Tracer
    meter: Meter
    flush: Callable[[], None]


@contextmanager
def service(
    otlp_grpc: str,
    otlp_http: str,
    *,
    interval: float = math.inf,
    name: str | None = None,
    instance: str = "1",
) -> Iterator[Service]:
    """A service that sends traces by gRPC and metrics by HTTP to these addresses (host:port).

    Args:
        otlp_grpc: for traces.
        otlp_http: for metrics.
        interval: between two exports of metrics, in seconds. By default only `Service.flush` exports: each
            export replaces the one before it in the Collector, exemplars and all.
        name: of the service; by default one that no other has.
        instance: of the service.
    """
    name = name or f"service-{uuid.uuid4().hex[:8]}"
    resource = Resource({"service.name": name, "service.instance.id": instance})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_grpc, insecure=True)))
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=f"http://{otlp_http}/v1/metrics"),
        export_interval_millis=1000 * interval,
    )
    metrics = MeterProvider([reader], resource=resource)

    def flush() -> None:
        assert traces.force_flush()
        assert metrics.force_flush()

    try:
        yield Service(name, traces.get_tracer(semconv.SCOPE), metrics.get_meter(semconv.SCOPE), flush)
    finally:
        traces.shutdown()
        metrics.shutdown()


def send_request(
    sender: Service, *, error_type: str | None = None, anomaly: str | None = None, seconds: float = 0.001
) -> tuple[str, str]:
    """One request with one inference in it: a server span over an inference span, as the library makes them.

    Args:
        sender: the service.
        error_type: of a call that failed.
        anomaly: type of an anomaly that the call brought about.
        seconds: what the spans say that it took.

    Returns:
        Trace id and the inference span's id, in hexadecimal.
    """
    start = time.time_ns() - int(seconds * 1e9)
    server = sender.tracer.start_span("POST /classify", kind=SpanKind.SERVER, start_time=start)
    inference = sender.tracer.start_span(
        f"{semconv.SPAN_NAME_PREFIX} digits",
        set_span_in_context(server),
        attributes={**MODEL, semconv.OPERATION_NAME: "run"},
        start_time=start,
    )
    if anomaly:
        inference.set_attribute(semconv.ANOMALY_TYPE, anomaly)
    if error_type:
        inference.set_attribute(semconv.ERROR_TYPE, error_type)
        inference.set_status(Status(StatusCode.ERROR))
    inference.end()
    server.end()
    identity = inference.get_span_context()
    return format_trace_id(identity.trace_id), format_span_id(identity.span_id)


def send_every_metric(sender: Service) -> str:
    """Give every metric, and each statistic of one that has some, the value `OBSERVED` once, in one sampled span.

    Returns:
        The span's trace id in hexadecimal: what an exemplar must point to.
    """

    def observe(metric: semconv.Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        named = semconv.STATISTIC in metric.attributes
        statistics = semconv.ENUMERATIONS[semconv.STATISTIC] if named else ()
        of_each = [{**_attributes(metric), semconv.STATISTIC: one} for one in statistics]
        return lambda _: [Observation(OBSERVED, each) for each in of_each or [_attributes(metric)]]

    with sender.tracer.start_as_current_span(f"{semconv.SPAN_NAME_PREFIX} digits") as span:
        for metric in METRICS:
            described = {"unit": metric.unit, "description": metric.description}
            match metric.instrument:
                case "counter":
                    sender.meter.create_counter(metric.name, **described).add(OBSERVED, _attributes(metric))
                case "histogram":
                    sender.meter.create_histogram(
                        metric.name, **described, explicit_bucket_boundaries_advisory=metric.boundaries
                    ).record(OBSERVED, _attributes(metric))
                case "observable_counter":
                    sender.meter.create_observable_counter(metric.name, [observe(metric)], **described)
                case "observable_gauge":
                    sender.meter.create_observable_gauge(metric.name, [observe(metric)], **described)
                case "observable_up_down_counter":
                    sender.meter.create_observable_up_down_counter(
                        metric.name, [observe(metric)], **described
                    )
    sender.flush()
    return format_trace_id(span.get_span_context().trace_id)


def record_again(sender: Service) -> None:
    """Give the counters and histograms that `send_every_metric` made another `OBSERVED`."""
    for metric in METRICS:
        if metric.instrument == "counter":
            sender.meter.create_counter(metric.name, metric.unit, metric.description).add(
                OBSERVED, _attributes(metric)
            )
        elif metric.instrument == "histogram":
            sender.meter.create_histogram(
                metric.name,
                metric.unit,
                metric.description,
                explicit_bucket_boundaries_advisory=metric.boundaries,
            ).record(OBSERVED, _attributes(metric))


def _attributes(metric: semconv.Metric) -> dict[str, str]:
    """A value for each attribute that the metric can carry."""
    return {name: MODEL.get(name) or semconv.ENUMERATIONS.get(name, ("x",))[0] for name in metric.attributes}


def finished_span() -> ReadableSpan:
    """A span that has ended, for an exporter of one's own."""
    span = TracerProvider().get_tracer(semconv.SCOPE).start_span("inference digits")
    span.end()
    assert isinstance(span, ReadableSpan)
    return span
