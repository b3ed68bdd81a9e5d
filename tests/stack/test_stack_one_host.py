"""``otelcol.yaml`` as shipped, before Jaeger and Prometheus as shipped, given real OTLP.

At Tempo's address stands another Jaeger: Tempo is under the AGPL, and no test runs it.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from otel_quantmon import semconv
from stack.backends import Collector, Jaeger, Prometheus, collector, prometheus
from stack.running import until
from stack.sending import METRICS, MODEL, OBSERVED, send_every_metric, send_request, service

DOCUMENTS = Path(__file__).parents[2] / "docs" / "backends"


def documented_names() -> dict[str, str]:
    """Prometheus's series by our metric's name, from the documentation's table."""
    rows = re.findall(
        r"^\| `(quantmon\.[\w.]+)` \| `(\w+)` \|", (DOCUMENTS / "prometheus.md").read_text(), re.MULTILINE
    )
    return dict(rows)


def test_a_trace_reaches_jaeger_whole(one_host: Collector, jaeger_server: Jaeger) -> None:
    """The server span and the inference span under it arrive in one trace, attributes as sent."""
    with service(one_host.otlp_grpc, one_host.otlp_http) as sender:
        trace_id, span_id = send_request(sender)
        sender.flush()

    def both() -> list[dict[str, Any]] | None:
        spans = jaeger_server.spans(trace_id)
        return spans if len(spans) == 2 else None

    spans = {span["operationName"]: span for span in until(both, "trace in Jaeger")}
    server, inference = spans["POST /classify"], spans["inference digits"]
    assert inference["spanID"] == span_id
    assert [(ref["refType"], ref["spanID"]) for ref in inference["references"]] == [
        ("CHILD_OF", server["spanID"])
    ]
    assert {key: inference["tags"].get(key) for key in MODEL} == MODEL
    assert inference["tags"]["otel.scope.name"] == semconv.SCOPE


def test_a_failure_is_an_error_in_jaeger(one_host: Collector, jaeger_server: Jaeger) -> None:
    """A failed call's span is marked as an error and says of what type."""
    with service(one_host.otlp_grpc, one_host.otlp_http) as sender:
        trace_id, span_id = send_request(sender, error_type="timeout")
        sender.flush()
    spans = until(lambda: jaeger_server.spans(trace_id), "trace in Jaeger")
    failed = next(span for span in spans if span["spanID"] == span_id)
    assert failed["tags"]["error"] is True
    assert failed["tags"][semconv.ERROR_TYPE] == "timeout"


def test_a_trace_reaches_the_store_at_tempos_address_whole(
    one_host: Collector, second_jaeger: Jaeger
) -> None:
    """The same trace, from the same pipeline, is in the store behind ``otlp_grpc/tempo`` too."""
    with service(one_host.otlp_grpc, one_host.otlp_http) as sender:
        trace_id, _ = send_request(sender)
        sender.flush()

    def both() -> list[dict[str, Any]] | None:
        spans = second_jaeger.spans(trace_id)
        return spans if len(spans) == 2 else None

    spans = {span["operationName"]: span for span in until(both, "trace at Tempo's address")}
    server, inference = spans["POST /classify"], spans["inference digits"]
    assert [parent["spanID"] for parent in inference["references"]] == [server["spanID"]]
    assert {key: inference["tags"].get(key) for key in MODEL} == MODEL


def test_every_metric_has_its_documented_name(one_host: Collector, prometheus_server: Prometheus) -> None:
    """Pushed by OTLP, each metric of the convention is the series that docs/backends/prometheus.md says."""
    with service(one_host.otlp_grpc, one_host.otlp_http) as sender:
        send_every_metric(sender)
        _assert_documented_series(prometheus_server, sender.name)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The other way: the pipeline ends in ``prometheus``, which another Prometheus scrapes."""
    line = "yaml:service::pipelines::metrics::exporters: [prometheus]"
    environment = {"JAEGER_OTLP": "127.0.0.1:9", "TEMPO_OTLP": "127.0.0.1:9"}
    directory = tmp_path_factory.mktemp("scraped")
    with collector(directory / "otelcol", "otelcol.yaml", line, environment=environment) as server:
        targets = {"quantmon": server.prometheus, "otelcol": server.metrics}
        with prometheus(directory / "prometheus", targets=targets) as scraper:
            yield server, scraper


def test_scraped_or_pushed_the_names_are_the_same(scraped: tuple[Collector, Prometheus]) -> None:
    """With the one changed line, names, job and instance are those of the pushed way."""
    server, scraper = scraped
    with service(server.otlp_grpc, server.otlp_http) as sender:
        send_every_metric(sender)
        _assert_documented_series(scraper, sender.name)


def _assert_documented_series(server: Prometheus, job: str) -> None:
    """Every documented series of the job has the value that was sent, and there is no other of ours."""
    names = documented_names()
    assert names.keys() == {metric.name for metric in METRICS}, "the table and the convention differ"
    histograms = {names[metric.name] for metric in METRICS if metric.instrument == "histogram"}
    sums = {series + "_sum" if series in histograms else series for series in names.values()}
    others = {series + part for series in histograms for part in ("_bucket", "_count")}

    def all_of_them() -> dict[str, float] | None:
        samples = server.query(f'{{__name__=~"quantmon_.+", job="{job}", instance="1"}}')
        values = {sample["metric"]["__name__"]: float(sample["value"][1]) for sample in samples}
        return values if len(values) >= len(sums | others) else None

    values = until(all_of_them, "full set of series")
    assert values.keys() == sums | others
    assert {series: values[series] for series in sums} == dict.fromkeys(sums, OBSERVED)


@pytest.mark.parametrize("way", ["pushed", "scraped"])
def test_an_exemplar_leads_to_its_trace(
    way: str,
    request: pytest.FixtureRequest,
    one_host: Collector,
    prometheus_server: Prometheus,
    second_jaeger: Jaeger,
) -> None:
    """The duration's bucket has an exemplar with the trace's id; pushed, that trace is at Tempo's address."""
    if way == "pushed":
        collecting, server = one_host, prometheus_server
    else:
        collecting, server = request.getfixturevalue("scraped")
    start = time.time() - 5
    with service(collecting.otlp_grpc, collecting.otlp_http) as sender:
        trace_id = send_every_metric(sender)
        selector = f'quantmon_inference_duration_seconds_bucket{{job="{sender.name}"}}'

        def found() -> dict[str, Any] | None:
            exemplars = server.exemplars(selector, start, time.time() + 5)
            return exemplars[0] if exemplars else None

        exemplar = until(found, "exemplar")
    assert exemplar["labels"]["trace_id"] == trace_id
    assert float(exemplar["value"]) == OBSERVED
    if way == "pushed":
        spans = until(lambda: second_jaeger.spans(trace_id), "the exemplar's trace at Tempo's address")
        assert [span["operationName"] for span in spans] == ["inference digits"]


def test_the_debug_pipeline_shows_what_arrives(one_host: Collector) -> None:
    """A line of the Collector's log counts the spans of the batch just sent."""
    with service(one_host.otlp_grpc, one_host.otlp_http) as sender:
        send_request(sender)
        sender.flush()

    line = re.compile(r'"otelcol.component.id": "debug".*"spans": \d')
    until(lambda: line.search(one_host.process.tail()), "debug line")


def test_nothing_listens_beyond_loopback(
    one_host: Collector, jaeger_server: Jaeger, prometheus_server: Prometheus
) -> None:
    """With the shipped files no program opens a port that another machine could reach."""
    for server in (one_host, jaeger_server, prometheus_server):
        assert server.process.listening_addresses() == {"127.0.0.1"}, type(server).__name__
