"""A topic of Kafka as a source, by an ordinary consumer group: at most as many workers as there are partitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import Any

import confluent_kafka

from otel_quantmon.evaluator.source import Claimed, EvaluatorError, Verdict
from otel_quantmon.evaluator.topic import LASTING, OpenRecords, Record, TopicWriter, configured
from otel_quantmon.fidelity.remote.store import Store

__all__ = ["GROUP", "KafkaSource"]

GROUP = "quantmon-evaluate"
"""Name of the group, unless ``group.id`` is another."""

# Milliseconds. The client wants more than a session without a heartbeat may last, which is 45 s unless it is set.
_SHORTEST_LEASE = 60_000

# Seconds to wait for the group, and for records of partitions that were given.
_JOINING = 30.0
_FETCHING = 2.0


class KafkaSource:
    """See `otel_quantmon.evaluator.source.Source`.

    An offset is committed when all samples up to it are settled; what is rejected goes to a topic of dead letters
    before that.

    Args:
        brokers: Addresses of brokers, ``host:port,host:port``.
        topic: Topic of the samples; dead letters go to the one of this name with ``-rejected`` behind it.
        lease: Seconds after which the partitions of a worker that hangs are given to others.
        configuration: Further properties of librdkafka, such as those of TLS and SASL.
        store: Store of the samples that were too large for an event; None without one.

    Raises:
        EvaluatorError: A property is not accepted.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        lease: float,
        configuration: Mapping[str, str],
        store: Store | None = None,
    ) -> None:
        self._joined = False
        self._topic = topic
        common = {"bootstrap.servers": brokers, **configuration}
        self._consumer = configured(
            confluent_kafka.Consumer,
            {
                "group.id": GROUP,
                "enable.auto.commit": False,
                # A new group begins with what waits.
                "auto.offset.reset": "earliest",
                "max.poll.interval.ms": max(_SHORTEST_LEASE, int(lease * 1000)),
                **common,
            },
        )
        self._records = OpenRecords(TopicWriter(common), topic, store)
        self._open: dict[tuple[str, int], deque[Record]] = {}
        self._consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    @property
    def unreached(self) -> str | None:
        """See `Source`."""
        if self._joined:
            return None
        return f"no broker answers, or the group was not joined in {_JOINING:g} s: is there a topic {self._topic!r}?"

    def claim(self, most: int, seconds: float) -> list[Claimed]:
        """See `Source.claim`. Nothing comes before the group has been joined, so that is waited for at first."""
        self._commit()
        until = monotonic() + max(seconds, _FETCHING if self._joined else _JOINING)
        while True:
            found: list[Claimed] = []
            for message in self._consumer.consume(most, timeout=max(0.1, until - monotonic())):
                error = message.error()
                if error is None:
                    record, samples = self._records.open(message)
                    self._open.setdefault((message.topic(), message.partition()), deque()).append(record)
                    found += samples
                elif error.fatal() or error.code() in LASTING:
                    raise EvaluatorError(f"the topic cannot be read: {error}")
            if found or monotonic() >= until:
                return found

    def renew(self) -> None:
        """See `Source.renew`. The lease is counted from one `claim` to the next."""

    def settle(self, claimed: Claimed, verdict: Verdict, reason: str = "") -> None:
        """See `Source.settle`. What is released, and what follows it in its partition, is delivered again."""
        self._records.settle(claimed, verdict, reason)

    def close(self) -> None:
        """See `Source.close`."""
        self._commit()
        self._consumer.close()

    def _commit(self) -> None:
        """Commit the offset behind what is settled without a gap, in each partition."""
        offsets: list[Any] = []
        for (topic, partition), records in self._open.items():
            behind = None
            while records and not records[0].left and not records[0].released:
                behind = records.popleft().message.offset() + 1
            if behind is not None:
                offsets.append(confluent_kafka.TopicPartition(topic, partition, behind))
        if offsets:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            except confluent_kafka.KafkaException as error:
                # They are delivered again, and passed over by what has been counted.
                if error.args[0].fatal():
                    raise EvaluatorError(f"offsets cannot be committed: {error}") from error

    def _on_assign(self, _consumer: Any, _partitions: list[Any]) -> None:
        self._joined = True

    def _on_revoke(self, _consumer: Any, partitions: list[Any]) -> None:
        self._commit()
        self._on_lost(_consumer, partitions)

    def _on_lost(self, _consumer: Any, partitions: list[Any]) -> None:
        for one in partitions:
            self._open.pop((one.topic, one.partition), None)
