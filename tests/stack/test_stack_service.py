"""An unchanged service with a real int8 model, seen through the whole stack as shipped.

The service is ``examples/zero-code/fastapi_app.py`` under ``opentelemetry-instrument``, beside FastAPI's own
instrumentation; whoever asks it is a plain HTTP client that starts the trace.
"""

from __future__ import annotations

import secrets
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stack.backends import Collector, Jaeger, Prometheus, collector
from stack.running import Process, free_ports, running, until
from stack.test_stack_one_host import documented_names

EXAMPLES = Path(__file__).parents[2] / "examples" / "zero-code"
ALWAYS = {
    "quantmon.inference.duration",
    "quantmon.inference.active",
    "quantmon.inference.window.duration",
    "quantmon.model.load.duration",
    "quantmon.model.info",
    "quantmon.memory.usage",
    "quantmon.memory.allocated",
    "quantmon.overhead.duration",
}
"""The metrics that an ONNX model without a reference has from its first call on."""


@dataclass(frozen=True)
class Classifier:
    """The running service: its name (Prometheus's job), its URL and its process."""

    name: str
    url: str
    process: Process

    def classify(self, content: bytes) -> str:
        """Ask what the content is, as the first span of a new trace.

        Returns:
            The trace's id in hexadecimal.
        """
        trace_id = secrets.token_hex(16)
        request = urllib.request.Request(
            f"{self.url}/classify",
            content,
            {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01", "Content-Type": "text/plain"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert b"label" in response.read()
        return trace_id


@contextmanager
def classifier(
    directory: Path, otlp_grpc: str, settings: Mapping[str, str] | None = None
) -> Iterator[Classifier]:
    """Run the service with OpenTelemetry's own environment variables, and `settings` if there are any."""
    port = free_ports(1)[0]
    name = (settings or {}).get("OTEL_SERVICE_NAME") or f"classifier-{secrets.token_hex(4)}"
    environment = {
        "OTEL_SERVICE_NAME": name,
        "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{otlp_grpc}",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        **(settings or {}),
    }
    command = [
        Path(sys.executable).with_name("opentelemetry-instrument"),
        *(sys.executable, "-m", "uvicorn", "--app-dir", EXAMPLES, "fastapi_app:app", "--port", str(port)),
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, directory, environment=environment, ready=f"{url}/health") as process:
        yield Classifier(name, url, process)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, one_host: Collector) -> Iterator[Classifier]:
    with classifier(tmp_path_factory.mktemp("service"), one_host.otlp_grpc) as server:
        yield server


def test_the_inference_is_under_its_request_in_jaeger(service: Classifier, jaeger_server: Jaeger) -> None:
    """The client's trace holds FastAPI's server span, and the model's run under it with what is known of it."""
    trace_id = service.classify(b"import this\n")

    def whole() -> dict[str, dict[str, Any]] | None:
        spans = {span["operationName"]: span for span in jaeger_server.spans(trace_id)}
        return spans if {"POST /classify", "inference magika_int8"} <= spans.keys() else None

    spans = until(whole, "request and inference in Jaeger")
    request, inference = spans["POST /classify"], spans["inference magika_int8"]
    assert [reference["spanID"] for reference in inference["references"]] == [request["spanID"]]
    assert request["tags"]["span.kind"] == "server"
    expected = {
        "quantmon.model.name": "magika_int8",
        "quantmon.runtime.name": "onnxruntime",
        "quantmon.quantization.scheme": "qdq",
        "quantmon.execution_provider": "CPUExecutionProvider",
        "quantmon.operation.name": "run",
        "quantmon.model.format": "onnx",
    }
    assert {key: inference["tags"].get(key) for key in expected} == expected
    assert 0 < inference["duration"] < request["duration"]


def test_the_inference_is_under_its_request_at_tempos_address(
    service: Classifier, second_jaeger: Jaeger
) -> None:
    """The same in the store at Tempo's address."""
    trace_id = service.classify(b"#!/bin/sh\necho hello\n")

    def whole() -> dict[str, dict[str, Any]] | None:
        spans = {span["operationName"]: span for span in second_jaeger.spans(trace_id)}
        return spans if {"POST /classify", "inference magika_int8"} <= spans.keys() else None

    spans = until(whole, "request and inference at Tempo's address")
    (parent,) = spans["inference magika_int8"]["references"]
    assert parent["spanID"] == spans["POST /classify"]["spanID"]


def test_prometheus_counts_what_the_client_did(service: Classifier, prometheus_server: Prometheus) -> None:
    """Every request more is one inference more; and each metric that the model has data for is there."""
    count = f'sum(quantmon_inference_duration_seconds_count{{job="{service.name}"}})'
    service.classify(b"{}")
    before = _settled(prometheus_server, count)
    for _ in range(25):
        service.classify(b'{"a": 1}')
    until(lambda: prometheus_server.value(count) == before + 25 or None, "count of 25 more")
    names = documented_names()
    series = prometheus_server.query(
        f'count by (__name__) ({{__name__=~"quantmon_.+", job="{service.name}"}})'
    )
    present = {sample["metric"]["__name__"] for sample in series}
    assert {metric for metric in ALWAYS if {names[metric], f"{names[metric]}_count"} & present} == ALWAYS


def _settled(server: Prometheus, count: str) -> float:
    """A count that two exports in a row (they come every second) have not changed."""
    previous: list[float] = []

    def same_as_three_seconds_ago() -> float | None:
        value = server.value(count)
        if value is None:
            return None
        previous.append(value)
        return value if len(previous) > 30 and previous[-30] == value else None

    return until(same_as_three_seconds_ago, "settled count")


def test_an_exemplar_leads_to_the_requests_trace(
    service: Classifier, prometheus_server: Prometheus, second_jaeger: Jaeger
) -> None:
    """A bucket of the duration names a trace, and the store at Tempo's address has it with the client's id."""
    start = time.time() - 1
    asked = {service.classify(b"<html></html>") for _ in range(10)}
    selector = f'quantmon_inference_duration_seconds_bucket{{job="{service.name}"}}'

    def one_of_ours() -> str | None:
        found = prometheus_server.exemplars(selector, start, time.time() + 1)
        return next(
            (item["labels"]["trace_id"] for item in found if item["labels"]["trace_id"] in asked), None
        )

    trace_id = until(one_of_ours, "exemplar of one of the requests")
    spans = until(lambda: second_jaeger.spans(trace_id), "its trace at Tempo's address")
    assert "inference magika_int8" in {span["operationName"] for span in spans}


def test_a_killed_collector_costs_no_request_and_no_count(
    tmp_path: Path, prometheus_server: Prometheus
) -> None:
    """Requests go on while the Collector is dead, and are all counted once it is back."""
    environment = {
        "PROMETHEUS_URL": prometheus_server.url,
        "JAEGER_OTLP": "127.0.0.1:9",
        "TEMPO_OTLP": "127.0.0.1:9",
    }
    with (
        collector(tmp_path / "otelcol", "otelcol.yaml", environment=environment) as collecting,
        classifier(tmp_path / "service", collecting.otlp_grpc) as asked,
    ):
        count = f'sum(quantmon_inference_duration_seconds_count{{job="{asked.name}"}})'
        for _ in range(5):
            asked.classify(b"before")
        until(lambda: prometheus_server.value(count) == 5 or None, "count of 5")
        collecting.process.kill()
        for _ in range(5):
            asked.classify(b"meanwhile")
        collecting.process.restart()
        for _ in range(5):
            asked.classify(b"after")
        until(lambda: prometheus_server.value(count) == 15 or None, "count of 15")
