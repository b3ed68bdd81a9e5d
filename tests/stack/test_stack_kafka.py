"""``kafka.yaml`` as shipped, both its halves in one Collector, with a real broker between them."""

from __future__ import annotations

from pathlib import Path

from stack.backends import Jaeger, Prometheus, collector, kafka
from stack.running import until
from stack.sending import send_request, service


def test_through_kafka_failures_are_kept_and_metrics_counted(
    tmp_path: Path, jaeger_server: Jaeger, second_jaeger: Jaeger, prometheus_server: Prometheus
) -> None:
    """A failure's trace is in both trace stores, and every call in Prometheus, by way of the topics."""
    with kafka(tmp_path / "kafka") as broker:
        environment = {
            "KAFKA_BROKERS": f"[{broker.address}]",
            "JAEGER_OTLP": jaeger_server.otlp,
            "TEMPO_OTLP": second_jaeger.otlp,
            "PROMETHEUS_URL": prometheus_server.url,
            "OTELCOL_DECISION_WAIT": "1s",
            "OTELCOL_KEEP_PERCENT": "0",
        }
        with (
            collector(tmp_path / "otelcol", "kafka.yaml", environment=environment) as server,
            service(server.otlp_grpc, server.otlp_http) as sender,
        ):
            trace_id, _ = send_request(sender, error_type="Fail")
            duration = sender.meter.create_histogram("quantmon.inference.duration", unit="s")
            for _ in range(40):
                duration.record(0.001)
            sender.flush()
            assert len(until(lambda: jaeger_server.spans(trace_id), "trace in Jaeger")) == 2
            assert len(until(lambda: second_jaeger.spans(trace_id), "trace at Tempo's address")) == 2
            count = f'quantmon_inference_duration_seconds_count{{job="{sender.name}"}}'
            assert until(lambda: prometheus_server.value(count), "count") == 40
