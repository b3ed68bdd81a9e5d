"""The whole way through real programs: from a fault in a running application to the message that someone reads."""

from __future__ import annotations

import contextlib
import json
import queue
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from runtimes.models import until_told

from otel_quantmon import semconv
from stack.backends import Prometheus, alertmanager, collector, prometheus
from stack.running import Process, until

Message = dict[str, Any]
HERE = Path(__file__).parent
PATIENCE = 300.0
"""Seconds to wait for what takes a minute: an anomaly is not left before."""


@dataclass
class Told:
    """What arrived at the receivers of Alertmanager's messages, and the URL of each."""

    url: str
    messages: queue.Queue[tuple[str, Message]]

    def about(self, alert: str, status: str) -> tuple[str, dict[str, Any]]:
        """The receiver and the alert, out of the next message that has it with that status."""
        while True:
            path, message = self.messages.get(timeout=PATIENCE)
            for each in message["alerts"]:
                if (each["labels"]["alertname"], each["status"]) == (alert, status):
                    return path.strip("/"), each


@pytest.fixture
def told() -> Iterator[Told]:
    """A web server that takes Alertmanager's messages."""
    messages: queue.Queue[tuple[str, Message]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            messages.put((self.path, json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Told(f"http://127.0.0.1:{server.server_port}", messages)
        server.shutdown()
        thread.join()


@dataclass
class Application:
    """The running application under ``opentelemetry-instrument``, and what has arrived of it.

    Attributes:
        name: of the service, which is Prometheus's job.
        fault: the file that switches a fault on.
        event: of a name and a type of anomaly, as the Collector has written it down; None while it has not.
        server: Prometheus.
    """

    name: str
    fault: Path
    event: Callable[[semconv.Event, str], dict[str, Any] | None]
    server: Prometheus

    def active(self, kind: str) -> float | None:
        """The gauge of a type of anomaly in Prometheus."""
        return self.server.value(f"quantmon_anomaly_active_ratio{{{self._series(kind)}}}")

    def anomalies(self, kind: str) -> float | None:
        """The counter of a type of anomaly in Prometheus."""
        return self.server.value(f"quantmon_anomalies_total{{{self._series(kind)}}}")

    def _series(self, kind: str) -> str:
        return f'job="{self.name}", quantmon_model_name="echo_int8", quantmon_anomaly_type="{kind}"'


@pytest.fixture
def application(tmp_path: Path, faster: Path, told: Told) -> Iterator[Application]:
    """The application, before the Collector, Prometheus and Alertmanager as shipped, their clock apart."""
    model = tmp_path / "echo_int8.onnx"
    model.write_bytes(until_told("echo_int8", quantized=True))
    name, fault = f"echo-{secrets.token_hex(4)}", tmp_path / "fault"
    receivers = {severity: f"{told.url}/{severity}" for severity in ("page", "ticket")}
    with contextlib.ExitStack() as stack:
        alerts = stack.enter_context(alertmanager(tmp_path / "alertmanager", receivers, configuration=faster))
        server = stack.enter_context(
            prometheus(
                tmp_path / "prometheus", targets={"alertmanager": alerts.address}, configuration=faster
            )
        )
        nowhere = {"JAEGER_OTLP": "127.0.0.1:9", "TEMPO_OTLP": "127.0.0.1:9"}
        collecting = stack.enter_context(
            collector(
                tmp_path / "otelcol", "otelcol.yaml", environment={**nowhere, "PROMETHEUS_URL": server.url}
            )
        )
        environment = {
            "OTEL_SERVICE_NAME": name,
            "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=1,host.name=rack-7",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collecting.otlp_grpc}",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_BLRP_SCHEDULE_DELAY": "500",
            # Of a model that takes some microseconds, so that its inputs are looked at often.
            "QUANTMON_CHECK_BUDGET": "1",
            "QUANTMON_TIMEOUT": "500ms",
        }
        logs = tmp_path / "otelcol" / "state" / "logs" / "quantmon.jsonl"
        command = [Path(sys.executable).with_name("opentelemetry-instrument"), sys.executable]
        process = Process(
            [*command, HERE / "faulty.py", model, fault], tmp_path, environment, tmp_path / "output.log"
        )
        stack.callback(process.stop)

        def event(of: semconv.Event, kind: str) -> dict[str, Any] | None:
            found = [
                one for one in _events(logs) if (one["name"], one[semconv.ANOMALY_TYPE]) == (of.name, kind)
            ]
            assert len(found) <= 1, found
            return found[0] if found else None

        yield Application(name, fault, event, server)


def _events(logs: Path) -> Iterator[dict[str, Any]]:
    """The named log records that the Collector has written so far, attributes as a dict."""
    for line in logs.read_text().splitlines() if logs.exists() else ():
        for resource in json.loads(line)["resourceLogs"]:
            for scope in resource["scopeLogs"]:
                for record in scope["logRecords"]:
                    if record.get("eventName"):
                        attributes = {
                            one["key"]: next(iter(one["value"].values())) for one in record["attributes"]
                        }
                        yield {"name": record["eventName"], **attributes}


def test_a_fault_is_told_from_the_process_to_the_receiver_and_so_is_its_end(
    application: Application, told: Told
) -> None:
    """Event, gauge, counter and alert come with a NaN that is switched on while the application runs, and go with it.

    The model hides it: int8 has no NaN, and all outputs are finite. Nothing is made up: the process judges, its event
    is what the Collector wrote down, gauge and counter are Prometheus's, and the alert is what Alertmanager sent, with
    the model, the type, the host and the runbook.
    """
    until(lambda: application.active("nonfinite") == 0.0 or None, "baseline", seconds=PATIENCE)
    assert application.event(semconv.EVENT_ANOMALY_ENTERED, "nonfinite") is None
    assert application.anomalies("nonfinite") is None

    application.fault.write_text("nan")
    until(lambda: application.active("nonfinite") == 1.0 or None, "active anomaly", seconds=PATIENCE)
    until(lambda: application.anomalies("nonfinite") == 1.0 or None, "counted anomaly")
    entered = until(lambda: application.event(semconv.EVENT_ANOMALY_ENTERED, "nonfinite"), "event")
    assert entered[semconv.MODEL_NAME] == "echo_int8"
    assert entered[semconv.QUANTIZATION_SCHEME] == "qdq"
    assert {semconv.ANOMALY_SINCE, semconv.ANOMALY_CAUSE, semconv.ANOMALY_REMEDY} <= entered.keys()
    receiver, firing = told.about("QuantmonNonfinite", "firing")
    assert receiver == "ticket"
    assert firing["labels"] == {
        "alertname": "QuantmonNonfinite",
        "job": application.name,
        "instance": "1",
        "host": "rack-7",
        "quantmon_model_name": "echo_int8",
        "quantmon_anomaly_type": "nonfinite",
        "severity": "ticket",
    }
    assert f"echo_int8 in {application.name} (1 on rack-7)" in firing["annotations"]["description"]
    assert firing["annotations"]["runbook_url"] == "docs/runbooks.md#quantmonnonfinite"

    application.fault.unlink()
    until(lambda: application.active("nonfinite") == 0.0 or None, "end of the anomaly", seconds=PATIENCE)
    left = until(lambda: application.event(semconv.EVENT_ANOMALY_LEFT, "nonfinite"), "event of its end")
    assert left[semconv.MODEL_NAME] == "echo_int8"
    receiver, resolved = told.about("QuantmonNonfinite", "resolved")
    assert (receiver, resolved["labels"]) == ("ticket", firing["labels"])
    assert application.anomalies("nonfinite") == 1.0


def test_calls_that_hang_page_by_the_error_budget_and_their_end_resolves(
    application: Application, told: Told
) -> None:
    """Runs that the time limit ends are failures: the budget's fast burn pages, and is resolved when runs end again.

    The process has found the same by itself, and says so beside it.
    """
    until(lambda: application.active("timeout") == 0.0 or None, "baseline", seconds=PATIENCE)
    assert "QuantmonErrorBudgetBurnFast" not in application.server.alerts()

    application.fault.write_text("hang")
    until(lambda: application.active("timeout") == 1.0 or None, "active anomaly", seconds=PATIENCE)
    receiver, firing = told.about("QuantmonErrorBudgetBurnFast", "firing")
    assert receiver == "page"
    expected = {"job": application.name, "quantmon_model_name": "echo_int8", "severity": "page"}
    assert firing["labels"] == {"alertname": "QuantmonErrorBudgetBurnFast", **expected}

    application.fault.unlink()
    receiver, resolved = told.about("QuantmonErrorBudgetBurnFast", "resolved")
    assert (receiver, resolved["labels"]) == ("page", firing["labels"])
    until(lambda: application.active("timeout") == 0.0 or None, "end of the anomaly", seconds=PATIENCE)
