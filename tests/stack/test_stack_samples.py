"""``samples.yaml`` as shipped, over ``otelcol.yaml``: a service's samples to a topic, and from there to a worker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from evaluator.conftest import calls, made  # noqa: F401  fixtures
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from otel_quantmon.fidelity.remote.record import encode
from stack.backends import SHIPPED, Collector, Kafka, collector
from stack.evaluating import SECONDS, TOPIC, broker_with_topics, counted, lag, records, worker
from stack.programs import binary
from stack.running import until
from stack.test_stack_service import classifier

LARGEST = 512 * 1024
"""Bytes of the largest sample that a service sends in an event: the default of ``remote_size``."""

# Traces and metrics go to files here, which a test can read: what is tested are the logs.
TO_FILES = (
    "yaml:exporters::file/metrics::path: ${env:OTELCOL_STATE_DIR}/metrics.jsonl",
    "yaml:exporters::file/traces::path: ${env:OTELCOL_STATE_DIR}/traces.jsonl",
    "yaml:service::pipelines::metrics::exporters: [file/metrics]",
    "yaml:service::pipelines::traces::exporters: [file/traces]",
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Kafka]:
    with broker_with_topics(tmp_path / "kafka", 1) as running:
        yield running


@contextmanager
def routing_collector(folder: Path, broker: Kafka) -> Iterator[Collector]:
    """The Collector of both files; its state is in ``state``."""
    (folder / "state").mkdir()
    with collector(
        folder / "otelcol",
        "otelcol.yaml",
        "samples.yaml",
        *TO_FILES,
        environment={"KAFKA_BROKERS": f"[{broker.address}]"},
        state=folder / "state",
    ) as server:
        yield server


@pytest.fixture
def routing(tmp_path: Path, broker: Kafka) -> Iterator[Collector]:
    with routing_collector(tmp_path, broker) as server:
        yield server


def event(body: bytes | str, name: str = "quantmon.sample", *, older: bool = False) -> LogRecord:
    """A log record; that of an older SDK has its name among the attributes."""
    value = AnyValue(bytes_value=body) if isinstance(body, bytes) else AnyValue(string_value=body)
    if not older:
        return LogRecord(event_name=name, body=value)
    return LogRecord(attributes=[KeyValue(key="event.name", value=AnyValue(string_value=name))], body=value)


def export(server: Collector, *logs: LogRecord) -> None:
    """Send them in one request of OTLP over gRPC.

    Raises:
        grpc.RpcError: it is refused.
    """
    scope = ScopeLogs(log_records=logs)
    with grpc.insecure_channel(server.otlp_grpc) as channel:
        LogsServiceStub(channel).Export(
            ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[scope])]), timeout=30
        )


def lines(file: Path) -> list[dict[str, Any]]:
    """What one of the Collector's file exporters has written so far; the last line may not be whole."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def names(state: Path) -> list[str]:
    """Names of the log records that went where logs go."""
    return [
        record.get("eventName") or record.get("body", {}).get("stringValue", "")
        for line in lines(state / "logs" / "quantmon.jsonl")
        for resource in line["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


def points(state: Path, metric: str, **attributes: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """All points of each series of a metric, as OTLP has them in JSON, whose attributes include these."""
    wanted = {f"quantmon.{key.replace('_', '.')}": value for key, value in attributes.items()}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines(state / "metrics.jsonl"):
        for resource in line["resourceMetrics"]:
            of = json.dumps(resource["resource"], sort_keys=True)
            for one in (one for scope in resource["scopeMetrics"] for one in scope["metrics"]):
                data: Mapping[str, Any] = one.get("sum") or one.get("histogram") or one.get("gauge") or {}
                for point in data.get("dataPoints", ()) if one["name"] == metric else ():
                    own = {item["key"]: next(iter(item["value"].values())) for item in point["attributes"]}
                    if wanted.items() <= own.items():
                        found.setdefault((of, json.dumps(own, sort_keys=True)), []).append(point)
    return found


def count(state: Path, outcome: str) -> int:
    """Samples with an outcome, over all processes."""
    found = points(
        state, "quantmon.reference.evaluations", reference_source="remote", reference_outcome=outcome
    )
    return sum(int(series[-1]["asInt"]) for series in found.values())


@pytest.mark.parametrize("over", [(), ("samples-tls.yaml",)], ids=["plain", "tls"])
@pytest.mark.parametrize("under", ["otelcol.yaml", "gateway.yaml"])
def test_the_collector_accepts_it_over_the_files_it_is_for(under: str, over: tuple[str, ...]) -> None:
    """Merged with the file of one host or of the gateways it is valid, and names nothing that is deprecated."""
    files = [f"--config={SHIPPED / file}" for file in (under, "samples.yaml", *over)]
    done = subprocess.run(
        [binary("otelcol"), "validate", *files],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KAFKA_USERNAME": "collector", "KAFKA_PASSWORD": "secret"},
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr


def test_samples_of_a_service_are_evaluated_by_way_of_the_topic(
    broker: Kafka, routing: Collector, tmp_path: Path
) -> None:
    """Service, OTLP, Collector, Kafka, worker: as many evaluated as sent, linked to the service's own traces."""
    state = tmp_path / "state"
    settings = {
        "QUANTMON_REFERENCE": "remote",
        "QUANTMON_REFERENCE_BUDGET": "0.5",
        "QUANTMON_REMOTE_INTERVAL": "1ms",
        "OTEL_BLRP_SCHEDULE_DELAY": "200",
    }
    exporting = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{routing.otlp_grpc}",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    with (
        classifier(tmp_path / "service", routing.otlp_grpc, settings) as asked,
        worker(broker, tmp_path, "a", variables=exporting) as evaluating,
    ):
        traces: set[str] = set()

        def sent() -> int | None:
            traces.update(asked.classify(f"import this  # {len(traces)}\n".encode()) for _ in range(10))
            return True if count(state, "sent") >= 20 else None

        until(sent, "20 samples sent", SECONDS)
        # The service goes on meanwhile: at SIGTERM uvicorn ends it before its last metrics are exported.
        until(
            lambda: True if counted(tmp_path).get("evaluated") == count(state, "sent") else None,
            "as many evaluated as sent",
            SECONDS,
        )
        until(lambda: True if not lag(broker, 1) else None, "every record settled", SECONDS)
        evaluating.send_signal(signal.SIGTERM)
        assert evaluating.wait(SECONDS) == 0
    assert counted(tmp_path) == {"evaluated": count(state, "sent")}
    assert len(records(broker, TOPIC)) == count(state, "sent")
    # What the worker exported: the same count, and errors whose exemplars are in the service's traces.
    assert count(state, "evaluated") == count(state, "sent")
    (errors,) = points(state, "quantmon.output.error", reference_source="remote").values()
    assert int(errors[-1]["count"]) == count(state, "sent")
    linked = {exemplar["traceId"] for point in errors for exemplar in point.get("exemplars", ())}
    assert linked
    assert linked <= traces
    assert "quantmon.sample" not in names(state)


def test_other_logs_go_on_as_before(broker: Kafka, routing: Collector, tmp_path: Path) -> None:
    """Of one request, samples go to the topic, each in a record of its own, and all else to the file, each once."""
    export(
        routing,
        event(b"one"),
        event("a line of the application", name=""),
        event(b"two", older=True),
        event("changed", name="quantmon.anomaly.entered"),
    )
    written = until(lambda: names(tmp_path / "state") or None, "logs in the file")
    assert written == ["a line of the application", "quantmon.anomaly.entered"]
    found = until(lambda: two if len(two := bodies(broker)) >= 2 else None, "samples in the topic")
    assert sorted(found) == [[b"one"], [b"two"]]


def bodies(broker: Kafka) -> list[list[bytes]]:
    """Of each record of the topic, what is in its log records."""
    found: list[list[bytes]] = []
    for message in records(broker, TOPIC):
        request = ExportLogsServiceRequest.FromString(message.value() or b"")
        scopes = [scope for resource in request.resource_logs for scope in resource.scope_logs]
        found.append([record.body.bytes_value for scope in scopes for record in scope.log_records])
    return found


def test_the_largest_samples_fit_and_what_does_not_is_counted(broker: Kafka, routing: Collector) -> None:
    """Seven of 512 KiB fit into a request of gRPC, each into a record of 1 MB; eight, and one of 1 MB, do not.

    What is too large takes nothing else with it: the sample beside it in the request arrives.
    """
    largest = [os.urandom(LARGEST) for _ in range(7)]
    export(routing, *(event(one) for one in largest))
    found = until(lambda: all_ if len(all_ := bodies(broker)) == 7 else None, "seven samples in the topic")
    assert sorted(found) == sorted([one] for one in largest)
    with pytest.raises(grpc.RpcError) as refused:
        export(routing, *(event(one) for one in [*largest, bytes(LARGEST)]))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    export(routing, event(bytes(1_000_001)), event(b"beside it"))
    failed = "otelcol_exporter_send_failed_log_records"
    lost = until(
        lambda: routing.own_metric(failed, exporter="kafka/samples") or None,
        "a sample that is counted as lost",
    )
    assert lost == 1
    assert [b"beside it"] in until(
        lambda: all_ if len(all_ := bodies(broker)) == 8 else None, "the sample beside it"
    )
    refusing = routing.process.tail()
    assert re.search("kafka record exceeds max message size", refusing), refusing


def test_a_broker_that_is_away_loses_no_sample(
    broker: Kafka,
    routing: Collector,
    made: Any,  # noqa: F811
) -> None:
    """What comes while the broker is down waits on the Collector's disk, through a kill of the Collector too."""
    samples = [encode(made(number)) for number in range(4)]
    export(routing, event(samples[0]))
    until(lambda: bodies(broker) or None, "first sample")
    broker.process.kill()
    export(routing, *(event(one) for one in samples[1:3]))
    routing.process.kill()
    routing.process.restart()
    routing.process.wait_ready(f"tcp://{routing.otlp_grpc}")
    export(routing, event(samples[3]))
    broker.process.restart()
    broker.process.wait_ready(f"tcp://{broker.address}")
    # At least once: of what was on its way when the Collector was killed nobody knows whether it came.
    until(
        lambda: True if {one for (one,) in bodies(broker)} == set(samples) else None,
        "all samples in the topic",
        SECONDS,
    )
