"""What a Collector with the shipped file does when a backend or its own disk fails it."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stack.backends import Collector, Jaeger, Prometheus, collector, jaeger
from stack.running import free_ports, until
from stack.sending import Service, send_request, service
from stack.test_stack_service import Classifier, classifier

BACKEND = "otlp_grpc/jaeger"
MIB = 2**20
GROWTH_LIMIT = 48 * MIB
"""Of a service's resident memory in an outage; the queue's spans take some 10 MiB of it."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"a small file system needs root: {mount.stderr.decode().strip()}")
    yield mounted
    subprocess.run(["umount", "--lazy", mounted], check=True)


def lost(server: Collector) -> float:
    """Spans for Jaeger that the Collector counts as given up before its queue."""
    return server.own_metric("otelcol_exporter_enqueue_failed_spans", exporter=BACKEND)


def send_until_lost(server: Collector, sender: Service) -> int:
    """Send requests, two spans each, until some are counted as lost; returns how many were sent."""
    sent = 0
    for _ in range(200):
        for _ in range(250):
            send_request(sender)
        sender.flush()
        sent += 250
        if lost(server):
            return sent
    raise AssertionError(f"{sent} requests and nothing lost")


@contextmanager
def unreachable(server: Collector) -> Iterator[None]:
    """The Collector takes connections and never answers, as behind a network that drops what it is sent."""
    server.process.suspend()
    try:
        yield
    finally:
        server.process.resume()


def durations(asked: Classifier, seconds: float) -> list[float]:
    """What each request took, one after another for so long."""
    taken = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        asked.classify(b"import this\n")
        taken.append(time.perf_counter() - start)
    return taken


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


@pytest.mark.parametrize(
    ("outages", "seconds"),
    [
        pytest.param(3, 8.0, id="three-short-ones"),
        pytest.param(1, 60.0, id="a-minute", marks=pytest.mark.slow),
    ],
)
def test_an_unreachable_collector_is_not_felt_and_what_it_misses_is_counted(
    tmp_path: Path, prometheus_server: Prometheus, outages: int, seconds: float
) -> None:
    """No request fails or waits, memory stays bounded, the totals are right after it, lost spans are counted.

    Time with and without the Collector takes turns within one run. The p99 may differ by the noise of a shared
    machine; a request that waited for an export would take ten seconds. Memory may grow by the SDK's queue of
    2048 spans, what an export holds, and the allocators' slack.
    """
    environment = {
        "PROMETHEUS_URL": prometheus_server.url,
        "JAEGER_OTLP": "127.0.0.1:9",
        "TEMPO_OTLP": "127.0.0.1:9",
    }
    # The SDK's account of its own spans: those that found its queue full, and those whose export failed.
    counted = {"OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true"}
    with (
        collector(tmp_path / "otelcol", "otelcol.yaml", environment=environment) as collecting,
        classifier(tmp_path / "service", collecting.otlp_grpc, counted) as asked,
    ):

        def total(series: str, labels: str = "") -> float:
            return prometheus_server.value(f'sum({series}{{job="{asked.name}"{labels}}})') or 0.0

        first = durations(asked, 5)  # all that is made at first use has been
        reachable, missing, growth = durations(asked, seconds / 2), list[float](), list[int]()
        for _ in range(outages):
            with unreachable(collecting):
                resident = asked.process.resident_bytes()
                missing += durations(asked, seconds)
                growth.append(asked.process.resident_bytes() - resident)
            reachable += durations(asked, seconds / 2)
        calls = len(first) + len(reachable) + len(missing)
        count = "quantmon_inference_duration_seconds_count"
        until(lambda: total(count) == calls or None, f"count of {calls}")

        def accounted() -> tuple[float, float, float] | None:
            """Spans ended, accepted by the Collector, and lost, once the first are no more than the others."""
            ended = total("otel_sdk_processor_span_processed_total")
            accepted = collecting.own_metric("otelcol_receiver_accepted_spans")
            lost = total("otel_sdk_processor_span_processed_total", ', error_type!=""')
            lost += total("otel_sdk_exporter_span_exported_total", ', error_type!=""')
            return (ended, accepted, lost) if 2 * calls <= ended <= accepted + lost else None

        ended, accepted, lost = until(accounted, "account of every span")
        ratio = p99(missing) / p99(reachable)
        print(
            f"{len(missing)} requests without the Collector, {len(reachable)} with it;"
            f" p99 {p99(missing) * 1e3:.1f} ms and {p99(reachable) * 1e3:.1f} ms, ratio {ratio:.2f};"
            f" resident memory grew by {max(growth) / MIB:.1f} MiB at most;"
            f" {ended:.0f} spans ended, {accepted:.0f} accepted, {lost:.0f} counted as lost"
        )
        assert ratio < 1.5
        assert max(growth) < GROWTH_LIMIT


def test_what_waits_for_a_dead_backend_reaches_it_when_it_lives(tmp_path: Path) -> None:
    """Traces sent while Jaeger is down, across a crash of the Collector, are in Jaeger once it starts."""
    otlp = f"127.0.0.1:{free_ports(1)[0]}"
    environment = {"JAEGER_OTLP": otlp, "TEMPO_OTLP": "127.0.0.1:9", "PROMETHEUS_URL": "http://127.0.0.1:9"}
    with collector(tmp_path / "otelcol", "otelcol.yaml", environment=environment) as server:
        with service(server.otlp_grpc, server.otlp_http) as sender:
            traces = [send_request(sender)[0] for _ in range(50)]
            sender.flush()
        until(lambda: server.own_metric("otelcol_exporter_queue_size", exporter=BACKEND) or None, "queue")
        server.process.kill()
        server.process.restart()
        with jaeger(tmp_path / "jaeger", otlp=otlp) as backend:
            for trace_id in traces:
                until(lambda trace=trace_id: len(backend.spans(trace)) == 2 or None, "trace after the outage")


def test_a_full_queue_loses_by_count_and_only_its_own(
    tmp_path: Path, jaeger_server: Jaeger, prometheus_server: Prometheus
) -> None:
    """One backend down and its queue full: what is lost is counted, the other backends get everything.

    At least once, that is: the receiver refuses the batch, and the SDK's retry brings it to the others again.
    """
    small = f"yaml:exporters::{BACKEND}::sending_queue::queue_size: 200000"
    environment = {
        "JAEGER_OTLP": "127.0.0.1:9",
        "TEMPO_OTLP": jaeger_server.otlp,  # whatever takes OTLP will do
        "PROMETHEUS_URL": prometheus_server.url,
    }
    with (
        collector(tmp_path, "otelcol.yaml", small, environment=environment) as server,
        service(server.otlp_grpc, server.otlp_http) as sender,
    ):
        expected = 2 * send_until_lost(server, sender)
        until(
            lambda: (
                server.own_metric("otelcol_exporter_sent_spans", exporter="otlp_grpc/tempo") >= expected
                or None
            ),
            "all spans at the other backend",
        )
        assert server.own_metric("otelcol_exporter_queue_size", exporter=BACKEND) <= 200_000


def test_a_full_disk_is_survived_and_counted(
    tmp_path: Path, small_disk: Path, prometheus_server: Prometheus
) -> None:
    """The disk under the queues fills up: the Collector counts what it loses, and lives."""
    environment = {
        "JAEGER_OTLP": "127.0.0.1:9",
        "TEMPO_OTLP": "127.0.0.1:9",
        "PROMETHEUS_URL": prometheus_server.url,
    }
    with (
        collector(tmp_path / "otelcol", "otelcol.yaml", environment=environment, state=small_disk) as server,
        service(server.otlp_grpc, server.otlp_http) as sender,
    ):
        calls = sender.meter.create_counter("quantmon.anomalies", "{anomaly}")
        calls.add(1)
        sender.flush()
        total = f'quantmon_anomalies_total{{job="{sender.name}"}}'
        assert until(lambda: prometheus_server.value(total), "metric before") == 1
        send_until_lost(server, sender)
        assert server.process.is_running()
        send_request(sender)
        sender.flush()
