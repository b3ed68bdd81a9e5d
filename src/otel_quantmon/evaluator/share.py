"""A topic of Kafka as a source, by a share group (KIP-932): any number of workers, and one slow record blocks none.

Each record is one worker's until it accepts, releases or rejects it, or its lock ends. It needs a broker of Kafka 4.2
or newer, and `confluent_kafka.ShareConsumer`, which its makers still call a preview.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import confluent_kafka
from confluent_kafka import admin

from otel_quantmon.evaluator.source import Claimed, EvaluatorError, Source, Verdict
from otel_quantmon.evaluator.topic import LASTING, OpenRecords, TopicWriter, configured, without_consumers
from otel_quantmon.fidelity.remote.store import Store

__all__ = ["GROUP", "ShareSource", "ShareUnsupportedError", "SharedIfPossible"]

_logger = logging.getLogger("otel_quantmon")

GROUP = "quantmon-evaluate-share"
"""Name of the group, unless ``group.id`` is another. A name is of one kind of group for good."""

# Records of one fetch: few, since those that one worker holds are not another's. What the producer sent together comes
# together, so there may be more.
_AT_ONCE = 8

# A broker gives a record out so many times, five unless it is set otherwise, and then drops it. One delivery before
# that it is written again, at the end of the topic.
_LAST_DELIVERY = 4

# Seconds for the first records of a new member, for others, and for the broker to set the group's configuration.
_JOINING = 15.0
_FETCHING = 1.0
_PATIENCE = 10.0


class ShareUnsupportedError(EvaluatorError):
    """This client or this broker knows no share groups."""


class ShareSource:
    """See `otel_quantmon.evaluator.source.Source`.

    Args:
        brokers, topic, configuration, store: See `otel_quantmon.evaluator.kafka.KafkaSource`.

    Raises:
        ShareUnsupportedError: The client has none.
        EvaluatorError: A property is not accepted.
    """

    def __init__(
        self, brokers: str, topic: str, configuration: Mapping[str, str], store: Store | None = None
    ) -> None:
        kind = getattr(confluent_kafka, "ShareConsumer", None)
        if kind is None:
            raise ShareUnsupportedError(
                f"confluent-kafka {confluent_kafka.version()[0]} has no share consumer, 2.16 has"
            )
        common = {"bootstrap.servers": brokers, **configuration}
        self._topic = topic
        self._common = common
        self._group = configuration.get("group.id", GROUP)
        self._writer = TopicWriter(common)
        self._records = OpenRecords(self._writer, topic, store)
        self._consumer = configured(
            kind,
            {
                "group.id": self._group,
                "share.acknowledgement.mode": "explicit",
                "max.poll.records": _AT_ONCE,
                **common,
            },
        )
        self._consumer.subscribe([topic])
        self._prepared = self._joined = False

    @property
    def unreached(self) -> str | None:
        """See `Source`. A share consumer does not tell that it has joined; what its group is set to has an answer."""
        return None if self._prepared else f"no broker answers within {_JOINING:g} s"

    def claim(self, most: int, seconds: float) -> list[Claimed]:  # noqa: ARG002  the client has a limit of its own
        """See `Source.claim`. There may be more than ``most``, and verdicts leave with the next call.

        Raises:
            ShareUnsupportedError: The broker has no share groups.
        """
        until = monotonic() + max(seconds, _FETCHING if self._joined else _JOINING)
        found: list[Claimed] = []
        while self._prepare(until) and not found:
            for message in self._poll(max(0.1, until - monotonic())):
                found += self._taken(message)
            if monotonic() >= until:
                break
        return found

    def renew(self) -> None:
        """See `Source.renew`. No release of the client can, so locks have to be long enough."""

    def settle(self, claimed: Claimed, verdict: Verdict, reason: str = "") -> None:
        """See `Source.settle`."""
        record = self._records.settle(claimed, verdict, reason)
        if record is None:
            return
        kinds = confluent_kafka.AcknowledgeType
        kind = kinds.RELEASE if record.released else kinds.REJECT if record.rejected else kinds.ACCEPT
        self._acknowledge(record.message, kind)

    def close(self) -> None:
        """See `Source.close`."""
        try:
            self._consumer.close()
        except confluent_kafka.KafkaException as error:
            _logger.warning("what was settled last may be delivered again: %s", error)

    def _poll(self, seconds: float) -> list[Any]:
        try:
            found = list(self._consumer.poll(seconds))
        except confluent_kafka.KafkaException as error:
            found_error = error.args[0]
            if found_error.code() == confluent_kafka.KafkaError.UNSUPPORTED_VERSION:
                raise ShareUnsupportedError(f"the broker has no share groups: {found_error}") from error
            if found_error.fatal() or found_error.code() in LASTING:
                raise EvaluatorError(f"the topic cannot be read: {found_error}") from error
            return []
        self._joined = self._joined or bool(found)
        return found

    def _taken(self, message: Any) -> list[Claimed]:
        error = message.error()
        if error is not None:
            if error.fatal() or error.code() in LASTING:
                raise EvaluatorError(f"the topic cannot be read: {error}")
            return []
        if message.delivery_count() >= _LAST_DELIVERY:
            # Before it is given up here: twice is counted once, and lost would be lost.
            self._writer.write(self._topic, message.value() or b"", message.key())
            self._acknowledge(message, confluent_kafka.AcknowledgeType.ACCEPT)
            return []
        record, samples = self._records.open(message)
        if not record.left:
            self._acknowledge(message, confluent_kafka.AcknowledgeType.ACCEPT)
        return samples

    def _acknowledge(self, message: Any, kind: Any) -> None:
        try:
            self._consumer.acknowledge(message, kind)
        except (confluent_kafka.KafkaException, confluent_kafka.IllegalStateException) as error:
            # Its lock has ended: it is another's, who passes it over by what has been counted.
            _logger.debug("a record cannot be acknowledged: %s", error)

    def _prepare(self, until: float) -> bool:
        """Have a new group begin with what waits, which is a configuration of the group; False if nobody answers."""
        if self._prepared:
            return True
        api: Any = admin
        entry = api.ConfigEntry(
            "share.auto.offset.reset", "earliest", incremental_operation=api.AlterConfigOpType.SET
        )
        group = api.ConfigResource(api.ConfigResource.Type.GROUP, self._group, incremental_configs=[entry])
        client = configured(api.AdminClient, without_consumers(self._common))
        while True:
            try:
                client.incremental_alter_configs([group], request_timeout=_PATIENCE)[group].result()
            except confluent_kafka.KafkaException as error:
                if error.args[0].retriable() or error.args[0].code() in _NO_ANSWER:
                    if monotonic() >= until:
                        return False
                    continue
                _logger.warning(
                    "group %r: share.auto.offset.reset cannot be set to earliest, so a new group does not evaluate "
                    "what waits already: %s",
                    self._group,
                    error,
                )
            self._prepared = True
            return True


_NO_ANSWER = (
    confluent_kafka.KafkaError._TIMED_OUT,
    confluent_kafka.KafkaError._TRANSPORT,
    confluent_kafka.KafkaError._ALL_BROKERS_DOWN,
)


class SharedIfPossible:
    """A share group, or an ordinary one where the client or the broker has none. See `Source`.

    Args:
        shared: Makes the source of a share group.
        ordinary: Makes that of an ordinary one.
    """

    def __init__(self, shared: Callable[[], Source], ordinary: Callable[[], Source]) -> None:
        self._ordinary = ordinary
        self._source = self._or_ordinary(shared)

    @property
    def unreached(self) -> str | None:
        """See `Source`."""
        return self._source.unreached

    def claim(self, most: int, seconds: float) -> list[Claimed]:
        """See `Source.claim`."""
        try:
            return self._source.claim(most, seconds)
        except ShareUnsupportedError as error:
            self._source.close()
            self._source = self._instead(error)
            return self._source.claim(most, seconds)

    def renew(self) -> None:
        """See `Source.renew`."""
        self._source.renew()

    def settle(self, claimed: Claimed, verdict: Verdict, reason: str = "") -> None:
        """See `Source.settle`."""
        self._source.settle(claimed, verdict, reason)

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()

    def _or_ordinary(self, shared: Callable[[], Source]) -> Source:
        try:
            return shared()
        except ShareUnsupportedError as error:
            return self._instead(error)

    def _instead(self, error: ShareUnsupportedError) -> Source:
        _logger.warning("%s: an ordinary group is used, with as many workers as there are partitions", error)
        return self._ordinary()
