"""A store and a receiver for one test."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if any(find_spec(name) is None for name in ("starlette", "uvicorn", "opentelemetry.proto")):
    # Without the extra `page`.
    collect_ignore_glob = ["test_*.py"]
else:
    from otel_quantmon.desk.receiver import Receiver
    from otel_quantmon.desk.schema import open_reader
    from otel_quantmon.desk.store import Limits, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "run.db")
    store.start()
    yield store
    store.close()


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[Store]:
    """One that keeps a hundred rows."""
    store = Store(tmp_path / "small.db", Limits(100, 100, 100, 100))
    store.start()
    yield store
    store.close()


@pytest.fixture
def read(store: Store) -> Iterator[sqlite3.Connection]:
    database = open_reader(store.path)
    yield database
    database.close()


@pytest.fixture
def send(store: Store) -> Callable[..., Any]:
    """Gives requests to the store, past the receiver, and waits until they are committed."""

    def send(*requests: Any) -> list[Any]:
        signals = {"Trace": "traces", "Metrics": "metrics", "Logs": "logs"}
        outcomes = []
        for request in requests:
            name = type(request).__name__.removeprefix("Export").removesuffix("ServiceRequest")
            done = store.submit(signals[name], "application/x-protobuf", request.SerializeToString())
            outcomes.append(done.result(60))
        return outcomes

    return send


@pytest.fixture
def receiver(store: Store) -> Iterator[Receiver]:
    receiver = Receiver(store)
    receiver.start()
    yield receiver
    receiver.stop()
