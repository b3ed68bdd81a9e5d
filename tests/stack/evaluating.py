"""``quantmon evaluate`` on a topic of a real broker, and what it left: counts, dead letters, records that wait."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
import real_models
from confluent_kafka.admin import AdminClient, NewTopic
from lifecycle.programs import environment

from stack.backends import Kafka, Login, kafka

TOPIC = "quantmon-samples"
GROUP = "quantmon-evaluate"
SECONDS = 240.0


@contextmanager
def broker_with_topics(
    directory: Path, partitions: int = 2, *, shares: bool = True, login: Login | None = None
) -> Iterator[Kafka]:
    """A broker with the topic of samples, and the one of dead letters; see `stack.backends.kafka`."""
    with kafka(directory, shares=shares, login=login) as running:
        admin = AdminClient({"bootstrap.servers": running.address})
        wanted = [NewTopic(TOPIC, partitions, 1), NewTopic(f"{TOPIC}-rejected", 1, 1)]
        for created in admin.create_topics(wanted).values():
            created.result(SECONDS)
        yield running


def send(broker: Kafka, values: Iterable[bytes], partitions: int = 2) -> None:
    """Send records, spread over the partitions, each by itself: what is sent together is one worker's together."""
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.address, "batch.num.messages": 1})
    for number, value in enumerate(values):
        producer.produce(TOPIC, value, partition=number % partitions)
    assert producer.flush(SECONDS) == 0


def records(broker: Kafka, topic: str, partition: int = 0) -> list[confluent_kafka.Message]:
    """All records that are in a partition now."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": broker.address, "group.id": "test", "enable.partition.eof": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0)])
    found: list[confluent_kafka.Message] = []
    while True:
        message = consumer.poll(SECONDS)
        assert message is not None
        if message.error() is not None:
            assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF
            consumer.close()
            return found
        found.append(message)


def dead_letters(broker: Kafka) -> list[tuple[str, bytes]]:
    """Reason and bytes of each."""
    found: list[tuple[str, bytes]] = []
    for message in records(broker, f"{TOPIC}-rejected"):
        ((_, reason),) = message.headers() or []
        found.append((reason.decode(), message.value() or b""))
    return found


@contextmanager
def worker(
    broker: Kafka,
    folder: Path,
    name: str,
    *more: str,
    group: str = "ordinary",
    variables: Mapping[str, str] | None = None,
    secured: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of this kind of group, killed at the end if it is still there. What it prints is in NAME.log.

    Args:
        broker, folder, name: broker, place of the state and of files, and name of the worker.
        more: further arguments.
        group: ``--group``.
        variables: of the environment.
        secured: ``--kafka-properties`` for the broker's secured address.
    """
    models = folder / "models.toml"
    models.write_text(f'[models."magika_*"]\nreference = "{real_models.magika_float()}"\n')
    command = [sys.executable, "-m", "otel_quantmon.cli", "evaluate", "--models", str(models), "--json"]
    address = broker.address if secured is None else broker.secured
    command += ["--source", f"kafka://{address}/{TOPIC}", "--state", str(folder / "state.sqlite")]
    command += ["--name", name, "--group", group, *more]
    if secured is not None:
        command += ["--kafka-properties", str(secured)]
    elif group == "ordinary":
        properties = folder / "kafka.properties"
        # So that the partitions of a worker that was killed are another's soon.
        properties.write_text("# of the group\nsession.timeout.ms=6000\n")
        command += ["--kafka-properties", str(properties)]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(variables), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def counted(folder: Path) -> dict[str, int]:
    """What the workers have counted so far, by outcome."""
    return _totals(folder, "outcome")


def counted_by(folder: Path) -> dict[str, int]:
    """What each worker has counted so far."""
    return _totals(folder, "worker")


def _totals(folder: Path, column: str) -> dict[str, int]:
    database = sqlite3.connect(folder / "state.sqlite", timeout=60)
    try:
        return dict(database.execute(f"SELECT {column}, sum(count) FROM total GROUP BY {column}"))
    except sqlite3.OperationalError as error:
        raise OSError("the state is not there yet") from error
    finally:
        database.close()


def lag(broker: Kafka, partitions: int = 2) -> int:
    """Records that no worker of the ordinary group has committed yet."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": broker.address, "group.id": GROUP})
    places = [confluent_kafka.TopicPartition(TOPIC, number) for number in range(partitions)]
    left = 0
    for one in consumer.committed(places, timeout=30):
        low, high = consumer.get_watermark_offsets(one, timeout=30)
        left += high - max(one.offset, low)
    consumer.close()
    return left
