"""What ordinary and share groups of Kafka have in common: open records, dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import confluent_kafka

from otel_quantmon.evaluator.records import fetched, samples_in
from otel_quantmon.evaluator.source import Claimed, EvaluatorError, Verdict
from otel_quantmon.fidelity.remote.store import Store

__all__ = ["LASTING", "REASON", "OpenRecords", "Record", "TopicWriter", "configured", "without_consumers"]

REASON = "quantmon.reason"
"""Header of a dead letter."""

LASTING = (
    confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED,
    confluent_kafka.KafkaError.GROUP_AUTHORIZATION_FAILED,
)
"""Codes of errors that trying again does not mend."""

# Seconds that a record may take to be acknowledged.
_PATIENCE = 60.0


def configured(kind: Any, properties: Mapping[str, Any]) -> Any:
    """Return a client of ``kind`` with these properties.

    Raises:
        EvaluatorError: A property is not accepted.
    """
    try:
        return kind(dict(properties))
    except (confluent_kafka.KafkaException, ValueError, TypeError) as error:
        raise EvaluatorError(f"Kafka's client cannot be configured: {error}") from error


def without_consumers(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``properties`` without those of consumers, which other clients warn of."""
    return {name: value for name, value in properties.items() if name not in _OF_CONSUMERS}


class TopicWriter:
    """Writes records, each acknowledged by all replicas before the call returns.

    Args:
        properties: Properties of librdkafka. Those of consumers are left out.

    Raises:
        EvaluatorError: A property is not accepted.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        # Written once if it is sent again.
        own = {"enable.idempotence": True, **without_consumers(properties)}
        self._producer = configured(confluent_kafka.Producer, own)

    def write(self, topic: str, data: bytes, key: str | bytes | None, reason: str | None = None) -> None:
        """Write a record, with ``reason`` in the header `REASON` if there is one.

        Raises:
            EvaluatorError: It is not acknowledged.
        """
        failed: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                failed.append(error)

        headers = {} if reason is None else {REASON: reason}
        try:
            self._producer.produce(topic, data, key=key, headers=headers, on_delivery=delivered)
        except (confluent_kafka.KafkaException, BufferError) as error:
            failed.append(error)
        if self._producer.flush(_PATIENCE) or failed:
            raise EvaluatorError(f"a record cannot be written to {topic}: {failed or 'no answer'}")


class Record:
    """One record of a topic.

    Attributes:
        message: It as the client gave it.
        left: Samples in it that are not settled yet.
        released: True if somebody else is to have it.
        rejected: True if one of its samples is a dead letter.
    """

    __slots__ = ("left", "message", "rejected", "released")

    def __init__(self, message: Any, left: int) -> None:
        self.message = message
        self.left = left
        self.released = self.rejected = False


class OpenRecords:
    """The records that a worker has taken, and the samples in them that it has not settled.

    Args:
        writer: Writes dead letters, to the topic of the samples with ``-rejected`` behind its name.
        topic: Topic of the samples.
        store: Store of the samples that were too large for an event; None without one.
    """

    def __init__(self, writer: TopicWriter, topic: str, store: Store | None) -> None:
        self._writer = writer
        self._dead = f"{topic}-rejected"
        self._store = store
        self._by_name: dict[str, tuple[Record, bytes]] = {}

    def open(self, message: Any) -> tuple[Record, list[Claimed]]:
        """Return the record of a message with the samples in it."""
        name = f"{message.topic()}-{message.partition()}-{message.offset()}"
        samples = [fetched(one, self._store) for one in samples_in(message.value() or b"")]
        record = Record(message, len(samples))
        found: list[Claimed] = []
        for number, data in enumerate(samples):
            own = name if len(samples) == 1 else f"{name}-{number}"
            self._by_name[own] = record, data
            found.append(Claimed(data, own))
        return record, found

    def settle(self, claimed: Claimed, verdict: Verdict, reason: str) -> Record | None:
        """Settle a sample, a rejected one by a dead letter; return its record once all samples in it are settled."""
        record, data = self._by_name.pop(claimed.name, (None, b""))
        if record is None:
            return None
        if verdict == "reject":
            self._writer.write(self._dead, data, claimed.name, reason)
            record.rejected = True
        if verdict == "release":
            record.released = True
        record.left -= 1
        return None if record.left else record


_OF_CONSUMERS = frozenset(
    {
        "auto.offset.reset",
        "fetch.max.bytes",
        "fetch.wait.max.ms",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "heartbeat.interval.ms",
        "max.poll.interval.ms",
        "max.poll.records",
        "partition.assignment.strategy",
        "session.timeout.ms",
    }
)
