"""The dashboards: generated, explained, and asking only for what exists."""

from __future__ import annotations

import contextlib
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.metrics import CallbackOptions, Observation

from otel_quantmon import semconv
from stack.backends import SHIPPED, Collector, Prometheus, collector, prometheus
from stack.running import until
from stack.sending import METRICS, MODEL, record_again, send_every_metric, send_request, service
from stack.test_stack_one_host import documented_names

GRAFANA = SHIPPED / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))


def panels(file: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, rows left out."""
    return [panel for panel in json.loads(file.read_text())["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Each panel's PromQL, with Grafana's variables filled in, by where it stands."""
    variables = {"$__rate_interval": "10s", "$job": ".+", "$model": ".+"}
    found = {}
    for file in FILES:
        for panel in panels(file):
            for target in panel["targets"]:
                expression = target["expr"]
                for variable, value in variables.items():
                    expression = expression.replace(variable, value)
                found[f"{file.stem}: {panel['title']} {target['refId']}"] = expression
    return found


def documented_labels() -> set[str]:
    """Every attribute that a metric can carry."""
    return {attribute for metric in METRICS for attribute in metric.attributes}


def recorded() -> list[str]:
    """The names of the recording rules."""
    groups = yaml.safe_load((SHIPPED / "prometheus" / "rules" / "recording.yml").read_text())["groups"]
    return [rule["record"] for group in groups for rule in group["rules"]]


def test_the_files_are_what_the_source_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody edited a dashboard's JSON by hand, or forgot to write it anew."""
    monkeypatch.syspath_prepend(GRAFANA)
    import dashboards

    assert {file.name: file.read_text() for file in FILES} == dashboards.rendered()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_panel_is_explained(file: Path) -> None:
    """Each has a title of its own, a description, a unit, and a query on the chosen data source."""
    titles = [panel["title"] for panel in panels(file)]
    assert len(set(titles)) == len(titles)
    for panel in panels(file):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_the_dashboards_show_every_metric() -> None:
    """No metric of the convention is left out, and no series is asked for that does not exist."""
    rules = (SHIPPED / "prometheus" / "rules" / "recording.yml").read_text()
    asked_for = re.sub(r"\w+:\w+(:\w+)?", "", " ".join(queries().values()))  # the recorded have a test below
    named = {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\bquantmon_\w+", asked_for)}
    labels = {name.replace(".", "_") for name in documented_labels()}
    series = set(documented_names().values())
    assert named - labels <= series
    through_rules = {name for name in series if name in rules}
    assert series <= named | through_rules


def test_every_query_and_recording_rule_returns_data(tmp_path: Path, faster: Path) -> None:
    """With three instances that report every metric, and a Collector that is scraped and loses spans, none is empty."""
    empty = queries() | {f"rule {name}": name for name in recorded()}
    # The baselines begin an hour back, here a minute.
    scrape = "yaml:service::pipelines::metrics::exporters: [prometheus]"
    nowhere = {"JAEGER_OTLP": "127.0.0.1:9", "TEMPO_OTLP": "127.0.0.1:9"}
    # What it has for Jaeger is given up at once, and so counted as lost.
    losing = "yaml:exporters::otlp_grpc/jaeger::retry_on_failure::enabled: false"
    with collector(tmp_path / "otelcol", "otelcol.yaml", scrape, losing, environment=nowhere) as collecting:
        targets = {"quantmon": collecting.prometheus, "otelcol": collecting.metrics}
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(
                prometheus(tmp_path / "prometheus", targets=targets, configuration=faster)
            )
            sending = partial(service, collecting.otlp_grpc, collecting.otlp_http, interval=0.5, name="fleet")
            senders = [stack.enter_context(sending(instance=instance)) for instance in "123"]
            for sender in senders:
                send_every_metric(sender)

            def all_answered() -> bool | None:
                for sender in senders:
                    record_again(sender)
                    send_request(sender)
                for name, expression in list(empty.items()):
                    samples = server.query(expression)
                    if samples and samples[0]["value"][1] != "NaN":
                        del empty[name]
                return None if empty else True

            with contextlib.suppress(AssertionError):  # the next line says more
                until(all_answered, "answer to every query", seconds=120)
            assert not empty


@pytest.mark.parametrize("board", ["fleet", "model"])
def test_an_anomaly_of_every_type_is_on_a_panel(
    board: str, one_host: Collector, prometheus_server: Prometheus
) -> None:
    """Where a process says that an anomaly is on, of any type, some panel's answer has the type and the instance."""
    types = semconv.ENUMERATIONS[semconv.ANOMALY_TYPE]
    metric = semconv.METRIC_ANOMALY_ACTIVE
    asking = [one for name, one in queries().items() if name.startswith(board) and "anomaly_active" in one]
    with service(one_host.otlp_grpc, one_host.otlp_http, interval=0.5) as sender:

        def observe(_: CallbackOptions) -> list[Observation]:
            # Memory is the process's.
            return [
                Observation(1, {**({} if kind == "memory_growth" else MODEL), semconv.ANOMALY_TYPE: kind})
                for kind in types
            ]

        sender.meter.create_observable_gauge(metric.name, [observe], metric.unit)

        def shown() -> set[str] | None:
            answers = [sample["metric"] for query in asking for sample in prometheus_server.query(query)]
            found = {
                labels["quantmon_anomaly_type"]
                for labels in answers
                if labels.get("job") == sender.name and labels.get("instance") == "1"
            }
            return found if found >= set(types) else None

        until(shown, "anomaly of every type", seconds=120)


def test_the_data_sources_lead_to_each_other() -> None:
    """Exemplars point to Tempo, spans to Prometheus, by uids that exist and recording rules that exist."""
    file = GRAFANA / "provisioning" / "datasources" / "quantmon.yaml"
    sources = {source["uid"]: source for source in yaml.safe_load(file.read_text())["datasources"]}
    exemplars = sources["quantmon-prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    back = sources["quantmon-tempo"]["jsonData"]["tracesToMetrics"]
    assert [target["datasourceUid"] for target in exemplars] == ["quantmon-tempo"]
    assert back["datasourceUid"] == "quantmon-prometheus"
    assert {query["query"].partition("{")[0] for query in back["queries"]} <= set(recorded())
