"""Of each type of anomaly that a process can find an operator is told: rule, severity, panel and runbook."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from otel_quantmon import semconv

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "collector-config"
TYPES = get_args(semconv.AnomalyType)
ACTIVE = "instance:quantmon_anomaly_active"
OF_TYPE = re.compile(rf'{ACTIVE}{{quantmon_anomaly_type="(\w+)"}}')


def rules(file: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((SHIPPED / "prometheus" / "rules" / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert(kind: str) -> dict[str, Any]:
    """The one alert of a type."""
    (found,) = (rule for rule in rules("alerts.yml") if kind in OF_TYPE.findall(rule["expr"]))
    return found


def runbook(name: str) -> str:
    """What the section of an alert says."""
    text = (ROOT / "docs" / "runbooks.md").read_text()
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return section


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_has_an_alert_that_reads_what_the_process_decided(kind: str) -> None:
    """Named after its type, with a severity and a way to its runbook; the only number in it is 1 for "is on"."""
    rule = alert(kind)
    assert rule["alert"] == "Quantmon" + "".join(word.title() for word in kind.split("_"))
    selected = re.escape(f'{ACTIVE}{{quantmon_anomaly_type="{kind}"}}')
    assert re.fullmatch(rf"{selected} == 1|max_over_time\({selected}\[\d+m\]\) == 1", rule["expr"])
    assert rule["labels"]["severity"] in {"page", "ticket"}
    for where in ("$labels.job", "$labels.instance", "$labels.host"):
        assert where in rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"].endswith(f"#{rule['alert'].lower()}")


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_has_a_runbook(kind: str) -> None:
    """What it means, how sure it is, how to confirm it, and what to do."""
    rule = alert(kind)
    severity = rule["labels"]["severity"].title()
    parts = re.findall(r"^\*\*([\w ]+)\.\*\*", runbook(rule["alert"]), re.MULTILINE)
    assert parts == [severity, "How sure", "Confirm", "Do"]


def test_every_type_is_on_a_panel() -> None:
    """The dashboards of one model and of the fleet ask for the anomalies of all types, with the type in the legend."""
    for board in ("model", "fleet"):
        panels = json.loads((SHIPPED / "grafana" / "dashboards" / f"{board}.json").read_text())["panels"]
        shown = [
            target["legendFormat"]
            for panel in panels
            for target in panel.get("targets", ())
            if "quantmon_anomaly_active" in target["expr"] and "quantmon_anomaly_type=" not in target["expr"]
        ]
        assert any("{{quantmon_anomaly_type}}" in legend for legend in shown), board


def test_no_alert_is_of_a_type_that_there_is_not() -> None:
    """A renamed type leaves no dead rule, and one alert is of one type."""
    selected = [kind for rule in rules("alerts.yml") for kind in OF_TYPE.findall(rule["expr"])]
    assert sorted(selected) == sorted(TYPES)


def test_rules_read_series_that_exist() -> None:
    """Each series of ours that a rule asks for is a metric under its documented name, or the record of another rule."""
    table = (ROOT / "docs" / "backends" / "prometheus.md").read_text()
    documented = dict(re.findall(r"^\| `(quantmon\.[\w.]+)` \| `(\w+)` \|", table, re.MULTILINE))
    metrics = {m.name for m in vars(semconv).values() if isinstance(m, semconv.Metric)}
    assert documented.keys() == metrics
    recorded = {rule["record"] for rule in rules("recording.yml")}
    attributes = {
        name.replace(".", "_")
        for m in vars(semconv).values()
        if isinstance(m, semconv.Metric)
        for name in m.attributes
    }
    asked = {
        name
        for file in ("alerts.yml", "recording.yml")
        for rule in rules(file)
        for name in re.findall(r"\b(?:\w+:)?quantmon_\w+(?::\w+)?", rule["expr"])
    }
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked if ":" not in name}
    assert {name for name in asked if ":" in name} <= recorded
    assert plain - attributes <= set(documented.values())
