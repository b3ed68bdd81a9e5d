"""``agent.yaml`` and ``gateway.yaml`` as shipped: one agent before two gateways, over TLS with a token."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from stack.backends import Collector, Jaeger, Prometheus, collector
from stack.running import until
from stack.sending import finished_span, send_request, service

SPANS_JUDGED = "otelcol_processor_tail_sampling_count_traces_sampled"


@dataclass(frozen=True)
class ManyHosts:
    """A running agent and its gateways."""

    agent: Collector
    gateways: list[Collector]
    certificate: bytes
    environment: dict[str, str]


@pytest.fixture(scope="module")
def many_hosts(
    tmp_path_factory: pytest.TempPathFactory,
    jaeger_server: Jaeger,
    second_jaeger: Jaeger,
    prometheus_server: Prometheus,
) -> Iterator[ManyHosts]:
    directory = tmp_path_factory.mktemp("many-hosts")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.crt"))
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(directory / "tls.crt"))
    issued.private_key_pem.write_to_path(str(directory / "tls.key"))
    (directory / "token").write_text("correct-horse-battery-staple\n")
    shared = {
        "OTELCOL_TOKEN_FILE": str(directory / "token"),
        "OTELCOL_TLS_CA": str(directory / "ca.crt"),
        "OTELCOL_TLS_CERT": str(directory / "tls.crt"),
        "OTELCOL_TLS_KEY": str(directory / "tls.key"),
        "JAEGER_OTLP": jaeger_server.otlp,
        "TEMPO_OTLP": second_jaeger.otlp,
        "PROMETHEUS_URL": prometheus_server.url,
        # Nothing is kept by chance, and a trace is judged soon.
        "OTELCOL_KEEP_PERCENT": "0",
        "OTELCOL_DECISION_WAIT": "1s",
    }
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(
                collector(directory / f"gateway-{number}", "gateway.yaml", environment=shared)
            )
            for number in range(2)
        ]
        addresses = f"[{', '.join(gateway.otlp_grpc for gateway in gateways)}]"
        agent = stack.enter_context(
            collector(
                directory / "agent", "agent.yaml", environment={**shared, "OTELCOL_GATEWAYS": addresses}
            )
        )
        yield ManyHosts(agent, gateways, authority.cert_pem.bytes(), shared)


@pytest.mark.parametrize(
    "unusual",
    [{"error_type": "Fail"}, {"error_type": "timeout"}, {"anomaly": "clipping"}, {"seconds": 0.8}],
    ids=["failure", "timeout", "anomaly", "slow"],
)
def test_what_matters_is_kept(
    unusual: dict[str, str], many_hosts: ManyHosts, jaeger_server: Jaeger, second_jaeger: Jaeger
) -> None:
    """A failure, a timeout, an anomaly and a slow request reach both trace stores though nothing else is kept."""
    with service(many_hosts.agent.otlp_grpc, many_hosts.agent.otlp_http) as sender:
        trace_id, _ = send_request(sender, **unusual)
        sender.flush()
    assert len(until(lambda: jaeger_server.spans(trace_id), "trace in Jaeger")) == 2
    assert len(until(lambda: second_jaeger.spans(trace_id), "trace at Tempo's address")) == 2


def test_the_rest_is_dropped_and_the_metrics_are_whole(
    many_hosts: ManyHosts, jaeger_server: Jaeger, prometheus_server: Prometheus
) -> None:
    """Of 40 ordinary requests no trace is kept at 0 %, and every one is counted in the metrics."""

    def dropped() -> float:
        return sum(
            gateway.own_metric(SPANS_JUDGED, sampled="false", policy="failures")
            for gateway in many_hosts.gateways
        )

    before = dropped()
    with service(many_hosts.agent.otlp_grpc, many_hosts.agent.otlp_http) as sender:
        duration = sender.meter.create_histogram("quantmon.inference.duration", unit="s")
        for _ in range(40):
            trace_id, _ = send_request(sender)
            duration.record(0.001)
        sender.flush()
        count = f'quantmon_inference_duration_seconds_count{{job="{sender.name}"}}'
        assert until(lambda: prometheus_server.value(count), "count") == 40
    until(lambda: dropped() - before >= 40 or None, "verdict on all 40 traces")
    with pytest.raises(OSError, match="404"):
        jaeger_server.spans(trace_id)


def test_both_gateways_share_the_work_and_each_trace_has_one(
    many_hosts: ManyHosts, jaeger_server: Jaeger
) -> None:
    """Spans of one trace that come from two services, at two times, are judged together.

    The healthy half alone would be dropped: it arrives, so its gateway has seen the failure in the other.
    """
    traces = []
    with (
        service(many_hosts.agent.otlp_grpc, many_hosts.agent.otlp_http) as front,
        service(many_hosts.agent.otlp_grpc, many_hosts.agent.otlp_http) as back,
    ):
        for _ in range(20):
            with front.tracer.start_as_current_span("GET /") as root:
                traces.append(format(root.get_span_context().trace_id, "032x"))
                send_request(back, error_type="Fail")
        back.flush()
        front.flush()
    for trace_id in traces:
        until(lambda trace=trace_id: len(jaeger_server.spans(trace)) == 3 or None, "trace of both services")
    received = [gateway.own_metric("otelcol_receiver_accepted_spans") for gateway in many_hosts.gateways]
    assert all(received), received


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_gateway_refuses_a_stranger(many_hosts: ManyHosts, token: str | None) -> None:
    """Without the token, or with another, nothing is taken."""
    exporter = OTLPSpanExporter(
        endpoint=f"https://{many_hosts.gateways[0].otlp_grpc}",
        credentials=grpc.ssl_channel_credentials(many_hosts.certificate),
        headers={"authorization": f"Bearer {token}"} if token else {},
        timeout=5,
    )
    before = many_hosts.gateways[0].own_metric("otelcol_receiver_accepted_spans")
    assert exporter.export([finished_span()]) is SpanExportResult.FAILURE
    assert many_hosts.gateways[0].own_metric("otelcol_receiver_accepted_spans") == before


def mount(folder: Path, token: str, version: str) -> None:
    """Put the secret where Kubernetes mounts it: each version in a folder of its own, and one link that changes."""
    (folder / version).mkdir(parents=True)
    (folder / version / "token").write_text(token)
    (folder / "..next").symlink_to(version)
    (folder / "..next").rename(folder / "..data")
    if not (folder / "token").is_symlink():
        (folder / "token").symlink_to("..data/token")
    for old in folder.iterdir():
        if old.is_dir() and not old.is_symlink() and old.name != version:
            shutil.rmtree(old)


def test_a_gateway_reads_a_token_that_was_replaced(many_hosts: ManyHosts, tmp_path: Path) -> None:
    """As in Kubernetes, where the folder of a secret is mounted: the new token is taken without a restart."""
    folder = tmp_path / "mounted"
    mount(folder, "first", "..1")
    environment = {**many_hosts.environment, "OTELCOL_TOKEN_FILE": str(folder / "token")}
    with collector(tmp_path / "gateway", "gateway.yaml", environment=environment) as gateway:

        def taken(token: str) -> bool:
            exporter = OTLPSpanExporter(
                endpoint=f"https://{gateway.otlp_grpc}",
                credentials=grpc.ssl_channel_credentials(many_hosts.certificate),
                headers={"authorization": f"Bearer {token}"},
                timeout=5,
            )
            return exporter.export([finished_span()]) is SpanExportResult.SUCCESS

        assert (taken("first"), taken("second")) == (True, False)
        mount(folder, "second", "..2")
        until(lambda: taken("second") or None, "answer to the second token")
        assert not taken("first")


def test_an_agent_keeps_what_no_gateway_takes(many_hosts: ManyHosts, jaeger_server: Jaeger) -> None:
    """Both gateways killed, a failure sent, the agent killed too, all started again: the failure arrives."""
    with service(many_hosts.agent.otlp_grpc, many_hosts.agent.otlp_http) as sender:
        for gateway in many_hosts.gateways:
            gateway.process.kill()
        trace_id, _ = send_request(sender, error_type="Fail")
        sender.flush()
    many_hosts.agent.process.kill()
    for server in (*many_hosts.gateways, many_hosts.agent):
        server.process.restart()
    assert len(until(lambda: jaeger_server.spans(trace_id), "trace after the outage")) == 2
