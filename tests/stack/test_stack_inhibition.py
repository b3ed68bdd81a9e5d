"""What Alertmanager keeps back because of something else, in its own words: by the shipped file, through its API."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.backends import SHIPPED, Alertmanager, alertmanager
from stack.running import get_json, until

Labels = dict[str, str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Alertmanager]:
    nowhere = dict.fromkeys(("page", "ticket"), "http://127.0.0.1:9")
    with alertmanager(tmp_path / "alertmanager", nowhere, configuration=SHIPPED / "prometheus") as running:
        yield running


def fire(server: Alertmanager, *alerts: Labels) -> None:
    """Have alerts fire, as Prometheus does."""
    body = json.dumps([{"labels": alert} for alert in alerts]).encode()
    request = urllib.request.Request(
        f"http://{server.address}/api/v2/alerts", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def kept_back(server: Alertmanager) -> list[Labels]:
    """The labels of those that are kept back."""
    alerts = get_json(f"http://{server.address}/api/v2/alerts?inhibited=true")
    return [alert["labels"] for alert in alerts if alert["status"]["inhibitedBy"]]


def test_one_dead_collector_keeps_back_what_is_said_of_itself_alone(server: Alertmanager) -> None:
    """Losses of others and models that fell silent are told: a fleet has a dead Collector on some host every day.

    Without any Collector, models are silent because of that.
    """
    down = {"alertname": "QuantmonCollectorDown", "instance": "a", "job": "otelcol"}
    losing = {"alertname": "QuantmonCollectorLosing", "exporter": "jaeger"}
    filling = {"alertname": "QuantmonCollectorQueueFilling", "exporter": "jaeger"}
    silent = {"alertname": "QuantmonModelSilent", "job": "shop", "quantmon_model_name": "m"}
    own = [{**losing, "instance": "a"}, {**filling, "instance": "a"}]
    fire(server, down, silent, *own, {**losing, "instance": "b"}, {**filling, "instance": "b"})
    until(lambda: all(one in kept_back(server) for one in own) or None, "what the dead one says kept back")
    assert sorted(kept_back(server), key=str) == sorted(own, key=str)

    fire(server, {"alertname": "QuantmonCollectorsAllDown", "job": "otelcol"})
    until(lambda: silent in kept_back(server) or None, "the silence of models kept back")
    assert sorted(kept_back(server), key=str) == sorted([*own, silent, down], key=str)
