"""What a Collector with the shipped file does when a backend or its own disk fails it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.backends import Collector, Jaeger, Prometheus, collector, jaeger
from stack.running import free_ports, until
from stack.sending import Service, send_request, service

BACKEND = "otlp_grpc/jaeger"


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
