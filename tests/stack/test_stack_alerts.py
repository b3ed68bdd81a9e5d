"""An alert's whole way through real programs: from a model's metric to the message that someone reads."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Observation

from otel_quantmon import semconv
from stack.backends import Prometheus, alertmanager, collector, prometheus
from stack.load import requests
from stack.running import until
from stack.sending import MODEL, service
from stack.test_stack_service import classifier

Message = dict[str, Any]
TIME_LIMIT = "50ms"
"""For a model that takes 5 to 10 ms alone, and much longer behind forty others."""


@pytest.fixture
def receiver() -> Iterator[tuple[str, queue.Queue[tuple[str, Message]]]]:
    """A web server that takes Alertmanager's messages: its URL, and the messages with their paths."""
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
        yield f"http://127.0.0.1:{server.server_port}", messages
        server.shutdown()
        thread.join()


def test_clipped_input_becomes_a_message_and_its_end_another(
    tmp_path: Path, faster: Path, receiver: tuple[str, queue.Queue[tuple[str, Message]]]
) -> None:
    """Pending, firing, told to the ticket's receiver with its text; and again when the input is right."""
    url, messages = receiver
    clipped = 0.0
    attributes = {**MODEL, semconv.INPUT_NAME: "image"}
    receivers = {"page": f"{url}/page", "ticket": f"{url}/ticket"}
    with alertmanager(tmp_path / "alertmanager", receivers, configuration=faster) as told:
        targets = {"alertmanager": told.address}
        with (
            prometheus(tmp_path / "prometheus", targets=targets, configuration=faster) as server,
            collector(
                tmp_path / "otelcol",
                "otelcol.yaml",
                environment={
                    "PROMETHEUS_URL": server.url,
                    "JAEGER_OTLP": "127.0.0.1:9",
                    "TEMPO_OTLP": "127.0.0.1:9",
                },
            ) as collecting,
            service(collecting.otlp_grpc, collecting.otlp_http, interval=0.5) as sender,
        ):

            def observe(_: CallbackOptions) -> list[Observation]:
                return [Observation(clipped, attributes)]

            sender.meter.create_observable_gauge(semconv.METRIC_INPUT_CLIP_RATIO.name, [observe], unit="1")
            until(lambda: server.value("quantmon_input_clip_ratio"), "the metric")
            assert "QuantmonInputClipping" not in server.alerts()

            clipped = 0.25
            seen = set()

            def firing() -> bool | None:
                state = server.alerts().get("QuantmonInputClipping")
                seen.add(state)
                return True if state == "firing" else None

            until(firing, "firing alert")
            assert "pending" in seen
            path, message = _about("QuantmonInputClipping", messages)
            assert path == "/ticket"
            assert message["status"] == "firing"
            assert message["groupLabels"] == {"job": sender.name, "quantmon_model_name": "digits"}
            assert "25%" in message["alerts"][0]["annotations"]["description"]

            clipped = 0.0
            _, message = _about("QuantmonInputClipping", messages)
            assert message["status"] == "resolved"


def test_an_overloaded_service_pages_and_its_recovery_resolves(
    tmp_path: Path, faster: Path, receiver: tuple[str, queue.Queue[tuple[str, Message]]]
) -> None:
    """The unchanged FastAPI service with its int8 model, under more clients than it can serve.

    Its inferences run into their time limit: QuantmonTimeouts is pending, firing, told to the page's receiver;
    and resolved there after the crowd has gone. Nothing is made up: the runs are ended by ONNX Runtime, counted by
    the library, and reach the rules through the Collector.
    """
    url, messages = receiver
    receivers = {"page": f"{url}/page", "ticket": f"{url}/ticket"}
    nowhere = {"JAEGER_OTLP": "127.0.0.1:9", "TEMPO_OTLP": "127.0.0.1:9"}
    with alertmanager(tmp_path / "alertmanager", receivers, configuration=faster) as told:
        targets = {"alertmanager": told.address}
        with (
            prometheus(tmp_path / "prometheus", targets=targets, configuration=faster) as server,
            collector(
                tmp_path / "otelcol", "otelcol.yaml", environment={**nowhere, "PROMETHEUS_URL": server.url}
            ) as collecting,
            classifier(tmp_path / "service", collecting.otlp_grpc, {"QUANTMON_TIMEOUT": TIME_LIMIT}) as asked,
        ):
            calls = f'quantmon_inference_duration_seconds_count{{job="{asked.name}", error_type=""}}'
            with requests(asked):
                until(lambda: server.value(f"sum(rate({calls}[5s]))") or None, "calls that succeed")
                assert server.alerts().get("QuantmonTimeouts") != "firing"
                with requests(asked, clients=40, pause=0):
                    states = _states("QuantmonTimeouts", server)
                    assert states == ["pending", "firing"]
                    path, message = _about("QuantmonTimeouts", messages)
                    assert (path, message["status"]) == ("/page", "firing")
                    assert message["groupLabels"] == {"job": asked.name, "quantmon_model_name": "magika_int8"}
                while message["status"] != "resolved":
                    _, message = _about("QuantmonTimeouts", messages)


def _states(alert: str, server: Prometheus) -> list[str]:
    """The states that an alert goes through until it fires."""
    seen: list[str] = []

    def firing() -> bool | None:
        state = server.alerts().get(alert)
        if state and state not in seen:
            seen.append(state)
        return True if state == "firing" else None

    until(firing, f"firing {alert}")
    return seen


def _about(alert: str, messages: queue.Queue[tuple[str, Message]]) -> tuple[str, Message]:
    """The next message about an alert; those about others alone (no Collector is scraped here) are passed over.

    What begins or ends together comes in one message, so the alert may be any of its list.
    """
    while True:
        path, message = messages.get(timeout=60)
        if alert in {each["labels"]["alertname"] for each in message["alerts"]}:
            return path, message
