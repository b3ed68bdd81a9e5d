"""``quantmon evaluate`` on a topic of a real broker: what is sent, damaged, sent twice, and who is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluator.conftest import calls, made  # noqa: F401  fixtures
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs

from otel_quantmon.fidelity.remote.record import encode
from stack.backends import Kafka
from stack.evaluating import SECONDS, broker_with_topics, counted, dead_letters, lag, send, worker
from stack.running import until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Kafka]:
    with broker_with_topics(tmp_path / "kafka") as running:
        yield running


def request(samples: list[bytes]) -> bytes:
    """What the Collector's exporter makes of events, with one of another name among them."""
    records = [LogRecord(event_name="quantmon.sample", body=AnyValue(bytes_value=one)) for one in samples]
    records.insert(1, LogRecord(event_name="quantmon.anomaly.entered", body=AnyValue(string_value="another")))
    data = LogsData(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])])
    return data.SerializeToString()


@pytest.mark.parametrize("group", ["ordinary", "share"])
def test_every_sample_counts_once_or_is_a_dead_letter(
    broker: Kafka,
    made: Any,  # noqa: F811
    tmp_path: Path,
    group: str,
) -> None:
    """Doubles, damage, another version, requests of OTLP, a worker killed, the broker restarted: counts reconcile."""
    samples = [encode(made(number)) for number in range(60)]
    inside = [encode(made(number)) for number in range(3)]
    old = bytearray(encode(made()))
    old[8:10] = (9).to_bytes(2, "little")
    damaged = samples[0][:-1] + bytes([samples[0][-1] ^ 1])
    send(broker, [*samples[:30], request(inside), damaged, bytes(old), b"noise", *samples[:10]])
    with (
        worker(broker, tmp_path, "a", group=group) as first,
        worker(broker, tmp_path, "b", group=group) as second,
    ):
        until(lambda: counted(tmp_path) or None, "first sample", SECONDS)
        os.kill(first.pid, signal.SIGKILL)
        broker.process.kill()
        broker.process.restart()
        broker.process.wait_ready(f"tcp://{broker.address}")
        send(broker, [*samples[30:], damaged, *samples[25:35]])
        until(
            lambda: True if sum(counted(tmp_path).values()) == 66 else None,
            f"all samples counted: {counted(tmp_path)}",
            SECONDS,
        )
        if group == "ordinary":
            until(lambda: True if not lag(broker) else None, "all samples settled", SECONDS)
        second.send_signal(signal.SIGTERM)
        assert second.wait(SECONDS) == 0
    with worker(broker, tmp_path, "c", "--until-empty", group=group) as third:
        assert third.wait(SECONDS) == 0
    assert counted(tmp_path) == {"evaluated": 63, "rejected": 3}
    # A dead letter may be written twice, once for each time that its record came; it is counted once.
    buried = dead_letters(broker)
    assert {value for _, value in buried} == {damaged, bytes(old), b"noise"}
    assert {reason.partition(":")[0] for reason, _ in buried} >= {"it is damaged"}
    assert json.loads((tmp_path / "b.log").read_text().partition("\n{")[2].join(["{", ""]))["samples"]
