"""An application's own endpoint gets what it would have got, and can harm nobody."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from otel_quantmon.desk import forward as module
from otel_quantmon.desk.environment import Destination, child_environment, destinations
from otel_quantmon.desk.forward import Forwarder

from .otlp import PROTOBUF, traces

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
HTTP = {ENDPOINT: "http://host:4318/", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


class Endpoint:
    """Answers with ``statuses`` in turn, the last one for ever, and keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        left = list(statuses)
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {key.lower(): value for key, value in self.headers.items()}
                endpoint.requests.append((self.path, headers, body))
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint(200)
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


def destination(url: str, **more: Any) -> Destination:
    told: dict[str, Any] = {
        "protocol": "http",
        "headers": {},
        "gzip": False,
        "secure": False,
        "certificate": None,
        "client_key": None,
        "client_certificate": None,
    }
    return Destination(url, **{**told, **more})


def test_bodies_go_on_as_they_came(endpoint: Endpoint) -> None:
    """In their order, with the headers and the compression that the application asks for."""
    forwarder = Forwarder({"traces": destination(endpoint.url, headers={"x-key": "secret"}, gzip=True)})
    forwarder.start()
    bodies = [traces(2, first=first).SerializeToString() for first in range(1, 20)]
    for body in bodies:
        forwarder.put("traces", PROTOBUF, body)
        forwarder.put("metrics", PROTOBUF, body)
    forwarder.close()
    assert forwarder.counts == {"sent": 19, "dropped": 0}
    assert [gzip.decompress(body) for _, _, body in endpoint.requests] == bodies
    path, headers, _ = endpoint.requests[0]
    assert (path, headers["x-key"], headers["content-encoding"], headers["content-type"]) == (
        "/v1/traces",
        "secret",
        "gzip",
        PROTOBUF,
    )


def test_what_may_be_sent_again_is() -> None:
    """503 twice and then 200: sent once the endpoint takes it. 400 is the end of a request."""
    endpoint = Endpoint(503, 503, 200, 400)
    forwarder = Forwarder({"traces": destination(endpoint.url)})
    forwarder.start()
    forwarder.put("traces", PROTOBUF, b"one")
    forwarder.put("traces", PROTOBUF, b"two")
    forwarder.close(30)
    assert [body for _, _, body in endpoint.requests] == [b"one", b"one", b"one", b"two"]
    assert forwarder.counts == {"sent": 1, "failed": 1, "dropped": 0}
    assert forwarder.failure == f"{endpoint.url} answered 400"
    endpoint.server.shutdown()
    endpoint.server.server_close()


@pytest.mark.parametrize(
    "answer", [b"no http at all\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]
)
def test_an_answer_that_is_no_http_costs_an_attempt(answer: bytes) -> None:
    """A bad first line, or an end in the middle: sent again, and so is all that comes after."""
    taken: list[bytes] = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            taken.append(self.rfile.read(3))
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if len(taken) > 1 else answer)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        forwarder = Forwarder(
            {"traces": destination(f"http://127.0.0.1:{server.server_address[1]}/v1/traces")}
        )
        forwarder.start()
        for body in (b"one", b"two"):
            forwarder.put("traces", PROTOBUF, body)
        forwarder.close(30)
        server.shutdown()
    assert taken == [b"one", b"one", b"two"]
    assert forwarder.counts == {"sent": 2, "dropped": 0}


def test_what_nobody_has_thought_of_costs_one_request(endpoint: Endpoint) -> None:
    """An address with a port that is none fails at each request; whatever a sender raises, the next one is sent."""
    forwarder = Forwarder(
        {"traces": destination(endpoint.url), "logs": destination("http://host:43l8/v1/logs")}
    )
    sender = forwarder._senders["traces"]
    send, left = sender.send, [RuntimeError("a fault")]

    def failing(content_type: str, body: bytes) -> tuple[bool, str | None]:
        if left:
            raise left.pop()
        return send(content_type, body)

    sender.send = failing  # type: ignore[method-assign]
    forwarder.start()
    for signal in ("traces", "logs", "traces"):
        forwarder.put(signal, PROTOBUF, signal.encode())
    forwarder.close(30)
    assert forwarder.counts == {"failed": 2, "sent": 1, "dropped": 0}
    assert [body for _, _, body in endpoint.requests] == [b"traces"]


def test_memory_is_bounded(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit beside what waits is dropped and counted; what fits arrives."""
    monkeypatch.setattr(module, "_MOST_BYTES", 100)
    forwarder = Forwarder({"traces": destination(endpoint.url)})
    for number in range(10):
        forwarder.put("traces", PROTOBUF, bytes([number]) * 40)
    forwarder.start()
    forwarder.close()
    assert [body[:1] for _, _, body in endpoint.requests] == [b"\0", b"\1"]
    assert forwarder.counts == {"sent": 2, "dropped": 8}


@pytest.mark.skipif(find_spec("grpc") is None, reason="without grpcio")
def test_grpc() -> None:
    """The same bytes, to the service of the signal, with the headers as metadata."""
    import grpc

    taken: list[tuple[str, bytes, dict[str, str]]] = []

    class Handlers(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            def take(body: bytes, context: Any) -> bytes:
                taken.append((details.method, body, dict(context.invocation_metadata())))
                return b""

            return grpc.unary_unary_rpc_method_handler(take)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    found = destination(f"http://127.0.0.1:{port}", protocol="grpc", headers={"x-key": "secret"})
    forwarder = Forwarder({"traces": found})
    forwarder.start()
    body = traces(1).SerializeToString()
    forwarder.put("traces", PROTOBUF, body)
    forwarder.close()
    server.stop(None)
    ((method, sent, metadata),) = taken
    assert (method, sent) == ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", body)
    assert metadata["x-key"] == "secret"


def test_where_an_application_sends() -> None:
    """As the specification of the exporters has it: one endpoint for all, or one of a signal's own as it stands."""
    found = destinations(
        {**HTTP, "OTEL_EXPORTER_OTLP_HEADERS": "a=b%20c, D=e", "OTEL_TRACES_EXPORTER": "console,otlp"}
    )
    assert {signal: told.url for signal, told in found.items()} == {
        signal: f"http://host:4318/v1/{signal}" for signal in ("traces", "metrics", "logs")
    }
    assert found["traces"].headers == {"a": "b c", "d": "e"}
    own = destinations({**HTTP, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://other/x"})
    assert (own["traces"].url, own["traces"].secure) == ("https://other/x", True)
    (grpc, *_) = destinations({ENDPOINT: "http://host:4317"}).values()
    assert (grpc.protocol, grpc.url, grpc.secure) == ("grpc", "http://host:4317", False)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {**HTTP, "OTEL_SDK_DISABLED": "true"},
        {**HTTP, **{f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}},
    ],
)
def test_an_application_that_sends_nowhere_is_not_forwarded(variables: dict[str, str]) -> None:
    """No endpoint, the SDK off, or other exporters than OTLP's."""
    assert destinations(variables) == {}


def test_the_environment_of_an_application() -> None:
    """Exporters lead here, and further ones stay; what would lead them elsewhere, such as a proxy, does not."""
    given = {
        **HTTP,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://elsewhere",
        "OTEL_TRACES_EXPORTER": "console,otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "60000",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "HTTP_PROXY": "http://proxy",
        "NO_PROXY": "host",
        "PYTHONPATH": "lib",
        "HOME": "/home",
    }
    child = child_environment(given, "http://127.0.0.1:1", {"QUANTMON_TIMEOUT": "1s"}, forwarded=False)
    assert {name: value for name, value in child.items() if "PYTHONPATH" not in name} == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        "OTEL_TRACES_EXPORTER": "console,otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_BLRP_SCHEDULE_DELAY": "500",
        "HTTP_PROXY": "http://proxy",
        "NO_PROXY": "host,127.0.0.1",
        "no_proxy": "127.0.0.1",
        "HOME": "/home",
        "QUANTMON_TIMEOUT": "1s",
    }
    first, *_, last = child["PYTHONPATH"].split(":")
    assert first.endswith("opentelemetry/instrumentation/auto_instrumentation")
    assert last == "lib"
    # A backend of the application's own gets the temporality that it asks for.
    assert not any("TEMPORALITY" in name for name in child_environment(given, "", {}, forwarded=True))
