"""What is sent to a worker over HTTP: so much at a time, and an answer whatever happens."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_quantmon.evaluator import receiving
from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.receiving import Receiver, ReceivingSource

from .conftest import LEASE

Take = Callable[[bytes], object]
Opened = Callable[[Take], ReceivingSource]


@pytest.fixture
def opened(directory: Path) -> Iterator[Opened]:
    """Opens a source that does something with each body."""
    sources: list[ReceivingSource] = []

    def open_source(take: Take) -> ReceivingSource:
        class Handler(Receiver):
            def take(self) -> None:
                take(self.body())

        waiting = DirectorySource(str(directory), LEASE)
        sources.append(ReceivingSource(waiting, "127.0.0.1", 0, Handler, "test"))
        return sources[-1]

    yield open_source
    for one in sources:
        one.close()


def post(source: ReceivingSource, body: bytes = b"x") -> tuple[int, str | None]:
    """Status and ``Retry-After`` of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", source.port, timeout=30)
    connection.request("POST", "/", body)
    answer = connection.getresponse()
    connection.close()
    return answer.status, answer.headers["Retry-After"]


def test_what_nobody_had_thought_of_has_an_answer(opened: Opened) -> None:
    """500 and not a connection that ends, and the next request is taken."""
    source = opened(lambda body: 1 // len(body.strip()))
    assert post(source, b" ") == (500, None)
    assert post(source) == (200, None)


def test_so_many_requests_are_taken_at_a_time(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is asked to come again, if none of them is done in time; then it is taken."""
    monkeypatch.setattr(receiving, "_AT_ONCE", 1)
    monkeypatch.setattr(receiving, "_TURN_SECONDS", 0.05)
    begun, done = threading.Event(), threading.Event()

    def take(_: bytes) -> None:
        begun.set()
        assert done.wait(30)

    source = opened(take)
    found: list[tuple[int, str | None]] = []
    first = threading.Thread(target=lambda: found.append(post(source)))
    first.start()
    assert begun.wait(30)
    assert post(source) == (503, "1")
    done.set()
    first.join()
    assert found == [(200, None)]
    assert post(source) == (200, None)


def test_so_many_connections_have_a_thread(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is answered and closed at once, while the others say nothing."""
    monkeypatch.setattr(receiving, "_MOST_CONNECTIONS", 1)
    source = opened(lambda _: None)
    with socket.create_connection(("127.0.0.1", source.port), timeout=30) as silent:
        with socket.create_connection(("127.0.0.1", source.port), timeout=30) as refused:
            said = b"".join(iter(lambda: refused.recv(1000), b""))
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in said
        silent.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
        assert silent.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("ends", "status"), [(True, b"400"), (False, b"408")])
def test_a_body_that_does_not_come_is_not_waited_for(
    ends: bool, status: bytes, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor taken for what it is so far: a client that ends early, and one that sends too slowly."""
    monkeypatch.setattr(receiving, "_BODY_SECONDS", 30.0 if ends else 0.05)
    taken: list[bytes] = []
    source = opened(taken.append)
    with socket.create_connection(("127.0.0.1", source.port), timeout=30) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx")
        if ends:
            client.shutdown(socket.SHUT_WR)
        assert client.recv(1000).startswith(b"HTTP/1.1 " + status)
    assert taken == []
