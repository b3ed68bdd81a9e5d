"""What is in a record of a topic; the broker itself is in tests/stack/test_stack_evaluate.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.cli import main
from otel_quantmon.evaluator.source import EvaluatorError
from otel_quantmon.fidelity.remote.record import LARGEST, encode
from otel_quantmon.fidelity.remote.store import Store

pytest.importorskip("confluent_kafka")

import confluent_kafka
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs

from otel_quantmon.evaluator import kafka, share
from otel_quantmon.evaluator.kafka import KafkaSource
from otel_quantmon.evaluator.records import SentSample, fetched, samples_in


def request(*records: LogRecord) -> bytes:
    logs = ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])
    return LogsData(resource_logs=[logs]).SerializeToString()


def named(name: str, value: str) -> KeyValue:
    return KeyValue(key=name, value=AnyValue(string_value=value))


@given(st.binary(max_size=200))
def test_any_record_is_read(value: bytes) -> None:
    """What is no sample and no request is one record to be rejected: nothing that arrives ends a worker."""
    assert isinstance(samples_in(value), list)


def test_samples_are_found_among_other_events(made: Callable[..., Any]) -> None:
    """By the event's name, where newer and older SDKs put it; a request without a sample has none to reject."""
    data = encode(made())
    body = AnyValue(bytes_value=data)
    new = LogRecord(event_name="quantmon.sample", body=body)
    old = LogRecord(attributes=[named("event.name", "quantmon.sample")], body=body)
    other = LogRecord(event_name="quantmon.anomaly.entered", body=AnyValue(string_value="x"))
    assert samples_in(request(other, new, old)) == [SentSample(data), SentSample(data)]
    assert samples_in(request(other)) == []
    assert samples_in(data) == [SentSample(data)]


def test_a_sample_in_a_store_is_fetched_from_that_store_alone(tmp_path: Path) -> None:
    """Another place that a record names is not read, and the sample is rejected; without a store the worker says so."""
    store = Store(str(tmp_path / "store"), LARGEST)
    location = store.put("ab", b"sample")
    event = LogRecord(event_name="quantmon.sample", attributes=[named("quantmon.sample.location", location)])
    (sent,) = samples_in(request(event))
    assert fetched(sent, store) == b"sample"
    assert fetched(SentSample(b"", "/etc/passwd"), store) == b"/etc/passwd"
    store.remove(location)
    assert fetched(sent, store) == location.encode(), "gone for good: rejected with where it was"
    with pytest.raises(EvaluatorError, match="name the store in --store"):
        fetched(sent, None)


def test_a_property_that_the_client_does_not_know_is_told() -> None:
    """With the client's own words for it."""
    with pytest.raises(EvaluatorError, match=r"sasl\.mechanismus"):
        KafkaSource("127.0.0.1:9", "samples", 10.0, {"sasl.mechanismus": "PLAIN"})


@pytest.mark.parametrize("group", ["ordinary", "share", "auto"])
def test_a_broker_that_does_not_answer_is_told(
    group: str,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2 with ``--until-empty``: that nothing came does not mean that nothing waits."""
    if group != "ordinary" and not hasattr(confluent_kafka, "ShareConsumer"):
        pytest.skip("this client has no share groups")
    for module, limits in ((kafka, ["_JOINING"]), (share, ["_JOINING", "_PATIENCE"])):
        for limit in limits:
            monkeypatch.setattr(module, limit, 0.5)
    command = [
        "evaluate",
        "--models",
        str(models),
        "--source",
        "kafka://127.0.0.1:9/samples",
        "--until-empty",
    ]
    assert main([*command, "--state", str(tmp_path / "s"), "--group", group]) == 2
    assert "no broker answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "name a file for the state"),
        (["--state", "s", "--kafka-properties", "p"], "line 2: write key=value"),
    ],
)
def test_mistakes_in_the_arguments_are_told(
    more: list[str],
    said: str,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2, before a broker is asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").write_text("a=b\nnonsense\n")
    command = ["evaluate", "--models", str(models), "--source", "kafka://127.0.0.1:9/samples"]
    assert main([*command, *more]) == 2
    assert said in capsys.readouterr().err
