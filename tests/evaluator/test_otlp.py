"""A worker that samples are sent to: by the SDK's own exporter, and by clients that do it wrong."""

from __future__ import annotations

import gzip
import http.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exported import Exported
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

from otel_quantmon import semconv
from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.otlp import PATH, OtlpSource
from otel_quantmon.evaluator.source import EvaluatorError
from otel_quantmon.evaluator.worker import EvaluatorWorker
from otel_quantmon.fidelity.remote import spool
from otel_quantmon.fidelity.remote.record import LARGEST, encode
from otel_quantmon.fidelity.remote.store import Store
from otel_quantmon.telemetry.events import Events

from .conftest import LEASE, files, outcomes

exporter = pytest.importorskip("opentelemetry.exporter.otlp.proto.http._log_exporter")


@pytest.fixture
def source(directory: Path, tmp_path: Path) -> Iterator[OtlpSource]:
    opened = OtlpSource("127.0.0.1", 0, str(directory), LEASE, Store(str(tmp_path / "store"), LARGEST))
    yield opened
    opened.close()


def post(source: OtlpSource, body: bytes, path: str = PATH, **headers: str) -> int:
    """The status of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", source.port, timeout=30)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body, {"Content-Type": "application/x-protobuf", **given})
    status = connection.getresponse().status
    connection.close()
    return status


def request(*bodies: bytes) -> bytes:
    logs = [LogRecord(event_name="quantmon.sample", body=AnyValue(bytes_value=body)) for body in bodies]
    return LogsData(
        resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=logs)])]
    ).SerializeToString()


def test_samples_of_the_sdk_are_evaluated(
    source: OtlpSource,
    made: Callable[..., Any],
    worker: Callable[..., EvaluatorWorker],
    exported: Exported,
    tmp_path: Path,
    directory: Path,
) -> None:
    """One in its event, one in a store, one that is sent twice; an event of another name is nothing to keep."""
    provider = LoggerProvider(shutdown_on_exit=False)
    target = exporter.OTLPLogExporter(endpoint=f"http://127.0.0.1:{source.port}{PATH}")
    provider.add_log_record_processor(SimpleLogRecordProcessor(target))
    events = Events(provider)
    large, small = made(), made(1)
    location = Store(str(tmp_path / "store"), LARGEST).put(large.id, encode(large))
    for attributes, body in (
        ({semconv.SAMPLE_ID: small.id}, encode(small)),
        ({semconv.SAMPLE_ID: small.id}, encode(small)),
        ({semconv.SAMPLE_ID: large.id, semconv.SAMPLE_LOCATION: location}, b""),
    ):
        assert events.emit(semconv.EVENT_SAMPLE, attributes, body, warning=False)
    assert events.emit(semconv.EVENT_ANOMALY_ENTERED, {}, "another", warning=False)
    provider.shutdown()
    assert files(directory, "new") == sorted(f"{one.id}.sample" for one in (large, small))
    worker(source=source).run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 2}


def test_what_was_accepted_outlives_the_worker(
    source: OtlpSource,
    made: Callable[..., Any],
    worker: Callable[..., EvaluatorWorker],
    exported: Exported,
    directory: Path,
) -> None:
    """Its samples are files when the request is answered: another worker has them, and rejects what is no sample."""
    members = gzip.compress(request(encode(made()))) + gzip.compress(request(b"noise"))
    assert post(source, members, Content_Encoding="gzip") == 200
    source.close()
    worker(source=DirectorySource(str(directory), LEASE)).run(until_empty=True)
    assert outcomes(exported) == {"evaluated": 1, "rejected": 1}


@pytest.mark.parametrize(
    ("body", "path", "headers", "status"),
    [
        (request(b"x"), "/v1/traces", {}, 404),
        (request(b"x"), PATH, {"Content_Type": "application/json"}, 415),
        (request(b"x"), PATH, {"Content_Encoding": "br"}, 415),
        (request(b"x"), PATH, {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(request(b"x"), mtime=0)[:-9], PATH, {"Content_Encoding": "gzip"}, 400),
        (b"\xff", PATH, {}, 400),
        (gzip.compress(bytes(30 * 1024**2), mtime=0), PATH, {"Content_Encoding": "gzip"}, 413),
        (b"", PATH, {"Content_Length": "99999999999"}, 413),
        (b"", PATH, {"Content_Length": "many"}, 411),
    ],
)
def test_a_request_that_is_wrong_is_refused(
    source: OtlpSource, directory: Path, body: bytes, path: str, headers: dict[str, str], status: int
) -> None:
    """With the status that says what is wrong, and without an end to the worker or its memory."""
    assert post(source, body, path, **headers) == status
    assert files(directory, "new") == []
    assert post(source, request(b"x")) == 200


def test_too_many_samples_are_to_be_sent_again(
    source: OtlpSource, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full directory is no loss: the status is one that clients try again after."""
    monkeypatch.setattr(spool, "_MOST_FILES", 1)
    assert post(source, request(b"one")) == 200
    assert post(source, request(b"two")) == 503
    assert len(files(directory, "new")) == 1


def test_an_address_that_is_taken_is_told(source: OtlpSource, directory: Path) -> None:
    """With the address, before any sample is claimed."""
    with pytest.raises(EvaluatorError, match=rf"127\.0\.0\.1:{source.port} cannot be listened on"):
        OtlpSource("127.0.0.1", source.port, str(directory), LEASE)
