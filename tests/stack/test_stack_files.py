"""Every file of ``collector-config/`` is accepted by the program it is for, and agrees with the others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_quantmon import semconv
from stack.backends import SHIPPED
from stack.programs import binary

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
DOCUMENTS = Path(__file__).parents[2] / "docs" / "backends"
PROMETHEUS = SHIPPED / "prometheus"


def alerts() -> dict[str, dict[str, Any]]:
    """The alert rules by name."""
    groups = yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def run(*command: str | Path) -> str:
    """What a command printed; a failing command fails the test with it."""
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("file", ["otelcol.yaml", "agent.yaml", "gateway.yaml", "kafka.yaml"])
def test_the_collector_accepts_its_files(file: str) -> None:
    """`otelcol validate` finds each file right, with no variable set."""
    assert "deprecated" not in run(binary("otelcol"), "validate", f"--config={SHIPPED / file}")


def test_prometheus_accepts_its_files() -> None:
    """`promtool check config`, the rules included, lints them without a remark."""
    run(binary("promtool"), "check", "config", "--lint=all", "--lint-fatal", PROMETHEUS / "prometheus.yml")


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    """`promtool test rules` on the shipped unit tests."""
    run(binary("promtool"), "test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yml")))


def test_every_alert_has_a_firing_and_a_quiet_test() -> None:
    """No alert can be added without a case in which it fires and one in which it does not."""
    cases = [
        case
        for file in (PROMETHEUS / "tests").glob("*.yml")
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts().keys()
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts().keys()


def test_every_alert_has_a_runbook() -> None:
    """Summary, description, severity, and a link to a section that says what it means and what to do."""
    sections = dict(
        re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOKS.read_text(), re.MULTILINE | re.DOTALL)
    )
    assert sections.keys() == alerts().keys()
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
        assert sections[name].strip().startswith(f"**{rule['labels']['severity'].title()}.**"), name


def test_alertmanager_accepts_its_file() -> None:
    """`amtool check-config`."""
    run(binary("amtool"), "check-config", PROMETHEUS / "alertmanager.yml")


@pytest.mark.parametrize(
    ("labels", "receiver"), [("severity=page", "page"), ("severity=ticket", "ticket"), ("", "ticket")]
)
def test_alertmanager_routes_by_severity(labels: str, receiver: str) -> None:
    """A page reaches the pager; a ticket, or anything unlabelled, does not."""
    routed = run(
        binary("amtool"),
        "config",
        "routes",
        "test",
        f"--config.file={PROMETHEUS / 'alertmanager.yml'}",
        *labels.split(),
    )
    assert routed.strip() == receiver


def test_inhibition_names_alerts_that_exist() -> None:
    """A renamed alert cannot leave a dead inhibition behind."""
    inhibitions = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())["inhibit_rules"]
    for rule in inhibitions:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            label, pattern = re.fullmatch(r'(\w+) !?=~? "?([^"]*)"?', matcher).groups()
            if label != "alertname":
                continue
            for alternative in pattern.split("|"):
                assert any(re.fullmatch(alternative, name) for name in alerts()), matcher


def test_compose_is_pinned_and_on_loopback() -> None:
    """Each image has a version, each mounted file exists, and each published port is loopback's."""
    services = yaml.safe_load((SHIPPED / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        if "image" in service:
            assert re.fullmatch(r"[\w./-]+:v?\d[\w.]+", service["image"]), name
        else:
            build = service["build"]
            assert (SHIPPED / build["context"] / build["dockerfile"]).is_file(), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        for mounted in service.get("volumes", []):
            source = mounted.split(":")[0]
            assert not source.startswith(".") or (SHIPPED / source).exists(), mounted


def defaults(file: str) -> dict[str, str]:
    """The variables that a file of ``collector-config/`` reads, with what stands for those not set."""
    return dict(re.findall(r"\$\{(?:env:)?(\w+):-([^}]*)\}", (SHIPPED / file).read_text()))


def test_tempo_is_where_the_collector_looks_for_it() -> None:
    """Tempo is not run here; its file takes OTLP where otelcol.yaml sends it, and opens loopback ports alone."""
    text = (SHIPPED / "tempo.yaml").read_text()
    configured = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    otlp = configured["distributor"]["receivers"]["otlp"]["protocols"]
    assert otlp == {"grpc": {"endpoint": defaults("otelcol.yaml")["TEMPO_OTLP"]}}
    addresses = {value for key, value in configured["server"].items() if key.endswith("_address")}
    assert addresses | {otlp["grpc"]["endpoint"].rpartition(":")[0]} == {"127.0.0.1"}
    source = (SHIPPED / "grafana" / "provisioning" / "datasources" / "quantmon.yaml").read_text()
    assert "${TEMPO_URL}" in source
    assert not configured["usage_report"]["reporting_enabled"]


def test_the_documented_traceql_asks_for_attributes_that_spans_have() -> None:
    """The queries of docs/backends/tempo.md, which nothing here can answer, name what the convention names."""
    queries = re.findall(r"`(\{ .+ \})`", (DOCUMENTS / "tempo.md").read_text())
    asked = set(re.findall(r"span\.([a-z_.]+)", " ".join(queries)))
    assert asked == {semconv.MODEL_NAME, semconv.ERROR_TYPE, semconv.ANOMALY_TYPE}


def test_behind_kafka_the_same_traces_are_kept() -> None:
    """kafka.yaml repeats gateway.yaml's tail sampling, to be a whole file, and must not drift from it."""
    sampling = [
        yaml.safe_load((SHIPPED / file).read_text())["processors"]["tail_sampling"]
        for file in ("gateway.yaml", "kafka.yaml")
    ]
    assert sampling[0] == sampling[1]
