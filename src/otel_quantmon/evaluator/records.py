"""What is in a record of a topic, or in a request of OTLP: samples, or where they are.

A record is a sample as it is, or a request of OTLP with events ``quantmon.sample`` in it, as the Collector's exporter
for Kafka writes it (``otlp_proto``); other events in it are passed over.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_quantmon import semconv
from otel_quantmon.evaluator.source import EvaluatorError
from otel_quantmon.fidelity.remote.record import is_sample
from otel_quantmon.fidelity.remote.store import Store

__all__ = ["SentSample", "events_in", "fetched", "samples_in"]


class SentSample(NamedTuple):
    """A sample as an event has it.

    Attributes:
        data: Its bytes; empty where they are elsewhere.
        location: Where they are; None where they are here.
        id: Its identity as the event states it, None without one.
    """

    data: bytes
    location: str | None = None
    id: str | None = None


def samples_in(value: bytes) -> list[SentSample]:
    """Return the samples in a record; the record itself where it is no sample and no request, to be rejected."""
    if is_sample(value):
        return [SentSample(value)]
    try:
        request = ExportLogsServiceRequest.FromString(value)
    except DecodeError:
        return [SentSample(value)]
    if not any(scope.log_records for resource in request.resource_logs for scope in resource.scope_logs):
        return [SentSample(value)]
    return events_in(request)


def events_in(request: ExportLogsServiceRequest) -> list[SentSample]:
    """Return the samples among the events of a request."""
    found: list[SentSample] = []
    for record in (
        record
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ):
        attributes = {one.key: one.value.string_value for one in record.attributes}
        # Older SDKs have no field for it.
        if semconv.EVENT_SAMPLE.name in (record.event_name, attributes.get("event.name")):
            found.append(
                SentSample(
                    record.body.bytes_value,
                    attributes.get(semconv.SAMPLE_LOCATION),
                    attributes.get(semconv.SAMPLE_ID),
                )
            )
    return found


def fetched(sample: SentSample, store: Store | None) -> bytes:
    """Return the bytes of a sample; its location where nobody will ever have them, to be rejected.

    Raises:
        EvaluatorError: The store cannot be read, or there is none.
    """
    if sample.location is None:
        return sample.data
    if store is None:
        raise EvaluatorError(f"a sample is in a store, at {sample.location!r}: name the store in --store")
    try:
        return store.get(sample.location)
    except (ValueError, FileNotFoundError):
        # Of another store, too large, or gone.
        return sample.location.encode()
    except Exception as error:
        raise EvaluatorError(f"the sample at {sample.location!r} cannot be read: {error}") from error
