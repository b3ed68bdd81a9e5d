"""What the receiver answers: to requests as they should be, and to those that should not."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import sqlite3
import zlib
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_quantmon.desk import queries
from otel_quantmon.desk import receiver as module
from otel_quantmon.desk.messages import JSON, SIGNALS, MalformedError, parse
from otel_quantmon.desk.receiver import MOST_BYTES, Receiver

from .otlp import PROTOBUF, anomaly, durations, post, traces


def spans(database: sqlite3.Connection) -> int:
    found: int = database.execute("SELECT count(*) FROM span").fetchone()[0]
    return found


def in_json(request: Any) -> bytes:
    """As OTLP has it: ids in hexadecimal digits, where protobuf's JSON has base64."""
    told = MessageToDict(request)
    for resource in told.get("resourceSpans", []):
        for scope in resource["scopeSpans"]:
            for number, span in enumerate(scope["spans"], 1):
                span["traceId"], span["spanId"] = f"{number:032x}", f"{number:016X}"
    return json.dumps(told).encode()


@pytest.mark.parametrize(
    ("compress", "encoding"),
    [(lambda body: body, "identity"), (gzip.compress, "gzip"), (zlib.compress, "deflate")],
    ids=["identity", "gzip", "deflate"],
)
def test_protobuf_is_taken(
    receiver: Receiver, read: sqlite3.Connection, compress: Any, encoding: str
) -> None:
    """Each signal at its path, in each compression: status 200, an empty response, and it is in the store already."""
    for path, request in (
        ("/v1/traces", traces(3)),
        ("/v1/metrics", durations([1, 0, 0], 1)),
        ("/v1/logs", anomaly(1, "timeout")),
    ):
        body = compress(request.SerializeToString())
        status, answer, headers = post(receiver.address, path, body, {"Content-Encoding": encoding})
        assert (status, answer, headers["content-type"]) == (200, b"", PROTOBUF)
        # A connection that outlives a request would be shared by the children of a fork.
        assert headers["connection"] == "close"
    assert spans(read) == 3
    assert len(queries.events(read)) == 1


def test_what_is_sent_again_is_forwarded_once(store: Any) -> None:
    """As it is counted once: the application's own endpoint would count it twice."""
    forwarded: list[tuple[str, str, bytes]] = []
    receiver = Receiver(store, lambda *request: forwarded.append(request))
    receiver.start()
    first, second = (durations([count, 0, 0], 1).SerializeToString() for count in (1, 2))
    for body in (first, first, second):
        assert post(receiver.address, "/v1/metrics", body)[0] == 200
    receiver.stop()
    assert forwarded == [("metrics", PROTOBUF, first), ("metrics", PROTOBUF, second)]


def test_several_gzip_members_are_one_body(receiver: Receiver, read: sqlite3.Connection) -> None:
    """As gzip allows, and cat of two files makes."""
    body = traces(2).SerializeToString()
    pieces = gzip.compress(body[:100]) + gzip.compress(body[100:])
    assert post(receiver.address, "/v1/traces", pieces, {"Content-Encoding": "gzip"})[0] == 200
    assert spans(read) == 2


def test_json_is_taken(receiver: Receiver, read: sqlite3.Connection) -> None:
    """Ids in hexadecimal digits of either case, and an answer in JSON."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    status, answer, told = post(receiver.address, "/v1/traces", in_json(traces(2)), headers)
    assert (status, json.loads(answer), told["content-type"]) == (200, {}, "application/json")
    assert queries.trace(read, f"{2:032x}")[0].span_id == f"{2:016x}"


def test_what_is_rejected_is_told(receiver: Receiver, read: sqlite3.Connection) -> None:
    """A span without an id and a histogram that does not add up: partial success with their number and a reason."""
    request = traces(3)
    request.resource_spans[0].scope_spans[0].spans[1].trace_id = bytes(16)
    status, answer, _ = post(receiver.address, "/v1/traces", request.SerializeToString())
    told = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (status, told.rejected_spans) == (200, 1)
    assert "ids" in told.error_message
    assert spans(read) == 2
    request = durations([1, 1, 1], 1)
    request.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points[0].count = 7
    status, answer, _ = post(receiver.address, "/v1/metrics", request.SerializeToString())
    told = ExportMetricsServiceResponse.FromString(answer).partial_success
    assert (status, told.rejected_data_points) == (200, 1)
    assert told.error_message == "quantmon.inference.duration: counts do not fit the bounds, or do not add up"


NAMES = [
    *(
        "resourceSpans",
        "scopeSpans",
        "spans",
        "traceId",
        "spanId",
        "attributes",
        "key",
        "value",
        "stringValue",
    ),
    *(
        "resourceMetrics",
        "scopeMetrics",
        "metrics",
        "name",
        "histogram",
        "sum",
        "dataPoints",
        "bucketCounts",
        "asInt",
    ),
]
DEEP = b'{"a":' * 20_000 + b"1" + b"}" * 20_000


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/traces", b"\xff\xff\xff", {}, 400),
        ("/v1/traces", b"{", {"Content-Type": "application/json"}, 400),
        ("/v1/traces", b"[]", {"Content-Type": "application/json"}, 400),
        ("/v1/traces", DEEP, {"Content-Type": "application/json"}, 400),
        ("/v1/traces", in_json(traces(1)).replace(b"00", b"zz"), {"Content-Type": "application/json"}, 400),
        ("/v1/traces", b"\n\x02\n\x00" * 10, {"Content-Encoding": "gzip"}, 400),
        ("/v1/traces", gzip.compress(b"x" * 1000, mtime=0)[:-20], {"Content-Encoding": "gzip"}, 400),
        ("/v1/traces", b"", {"Content-Encoding": "br"}, 415),
        ("/v1/traces", b"", {"Content-Type": "text/plain"}, 415),
        ("/v1/profiles", b"", {}, 404),
        ("/v1/traces", b"", {"Host": "evil.example"}, 400),
        ("/v1/traces", b"", {"Host": "127.0.0.1.evil.example:80"}, 400),
    ],
)
def test_what_is_no_request_is_refused(
    receiver: Receiver, read: sqlite3.Connection, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    """The status that OTLP has for it, and whoever comes next is served as before."""
    found, answer, told = post(receiver.address, path, body, headers)
    assert found == status
    if status in {400, 415} and "Host" not in headers:
        assert answer, "a reason"
        assert told["content-type"] in {PROTOBUF, "application/json"}
    assert post(receiver.address, "/v1/traces", traces(1).SerializeToString())[0] == 200
    assert spans(read) == 1


def test_a_bomb_is_not_unpacked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte of zeros in a megabyte: 413, after as much as is allowed and no more."""
    unpacked = []
    original = zlib.decompressobj

    class Watched:
        def __init__(self, window: int) -> None:
            self._stream = original(window)

        def decompress(self, body: bytes, limit: int) -> bytes:
            piece = self._stream.decompress(body, limit)
            unpacked.append(len(piece))
            return piece

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(1024)) + packer.flush()
    status, _, _ = post(receiver.address, "/v1/traces", bomb, {"Content-Encoding": "gzip"})
    assert status == 413
    assert sum(unpacked) == MOST_BYTES + 1


def test_a_body_beyond_the_limit_is_refused(receiver: Receiver) -> None:
    """By its length if that is told, before any of it is read; else as soon as it is too long."""
    connection = http.client.HTTPConnection(receiver.address.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/v1/traces")
    connection.putheader("Content-Type", PROTOBUF)
    connection.putheader("Content-Length", str(MOST_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    pieces = (bytes(2**20) for _ in range(MOST_BYTES // 2**20 + 1))
    connection = http.client.HTTPConnection(receiver.address.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/traces", pieces, {"Content-Type": PROTOBUF}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_the_slow_are_cut_off_and_keep_nobody_waiting(
    receiver: Receiver, read: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that does not come gets 408 in the end; meanwhile, beside many like it, others are answered."""
    monkeypatch.setattr(module, "_BODY_SECONDS", 0.5)
    host, port = receiver.address.removeprefix("http://").split(":")
    head = (
        f"POST /v1/traces HTTP/1.1\r\nHost: {host}\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 100\r\n\r\n"
    )
    slow = [socket.create_connection((host, int(port)), timeout=60) for _ in range(50)]
    for connection in slow:
        connection.sendall(head.encode() + b"x")
    assert post(receiver.address, "/v1/traces", traces(1).SerializeToString())[0] == 200
    answers = [connection.recv(4096) for connection in slow]
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
    for connection in slow:
        connection.close()
    assert spans(read) == 1


def test_headers_that_do_not_end_are_cut_off(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection has its time as a whole."""
    monkeypatch.setattr(module, "_CONNECTION_SECONDS", 0.2)
    receiver = Receiver(store)
    receiver.start()
    host, port = receiver.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: ")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    receiver.stop()


def test_it_listens_on_loopback_alone(receiver: Receiver) -> None:
    """No other address of this host answers at its port."""
    port = int(receiver.address.rpartition(":")[2])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in sorted(others - {"127.0.0.1"}) or ["127.0.0.2"]:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((str(address), port), timeout=10)


def test_requests_before_the_start_wait(store: Any) -> None:
    """The port is open from the construction on: nothing sent early is lost."""
    receiver = Receiver(store)
    host, port = receiver.address.removeprefix("http://").split(":")
    body = traces(1).SerializeToString()
    told = f"Host: {host}\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(body)}"
    head = f"POST /v1/traces HTTP/1.1\r\n{told}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        receiver.start()
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    receiver.stop()


def test_a_store_that_cannot_write_answers_so(receiver: Receiver, store: Any) -> None:
    """With a status that is not asked again."""
    store.close()
    status, answer, _ = post(receiver.address, "/v1/traces", traces(1).SerializeToString())
    assert status == 500
    assert b"the run has ended" in answer


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner),
    max_leaves=20,
)


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(NAMES), JSON_VALUES).map(lambda told: json.dumps(told).encode())
)
def test_any_bytes_are_a_request_or_malformed(body: bytes) -> None:
    """Whatever is sent as either type and any signal is read or refused, and nothing else happens."""
    for signal in SIGNALS:
        for content_type in (PROTOBUF, JSON):
            with contextlib.suppress(MalformedError):
                parse(signal, content_type, body)
