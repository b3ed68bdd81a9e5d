"""Events, as the exporters of the SDK's releases take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanContext, TraceFlags

from otel_quantmon import semconv
from otel_quantmon.telemetry.events import Events


class _Encoding:
    """An exporter that encodes what it is given, as that of OTLP does."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.requests: list[Any] = []

    def export(self, batch: Sequence[Any]) -> None:
        # The SDK only logs what an exporter raises.
        self.batches.append(batch)
        self.requests.append(encode_logs(batch))

    def shutdown(self) -> None:
        pass


@pytest.fixture
def exporter() -> _Encoding:
    return _Encoding()


@pytest.fixture
def events(exporter: Any) -> Iterator[Events]:
    provider = LoggerProvider(Resource.get_empty(), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    yield Events(provider)
    provider.shutdown()


@pytest.mark.parametrize(
    ("span", "trace_id", "span_id", "flags"),
    [
        (None, b"", b"", 0),
        (
            SpanContext(3, 5, is_remote=False, trace_flags=TraceFlags(1)),
            bytes([*[0] * 15, 3]),
            bytes([*[0] * 7, 5]),
            1,
        ),
    ],
    ids=["without", "with"],
)
def test_an_event_can_be_encoded_for_otlp(
    span: SpanContext | None, trace_id: bytes, span_id: bytes, flags: int, events: Events, exporter: _Encoding
) -> None:
    """With a span and without: one that cannot costs the application the whole batch, with records of its own."""
    assert events.emit(semconv.EVENT_ANOMALY_ENTERED, {"a": 1}, "body", warning=True, span=span)
    assert len(exporter.batches) == 1
    (request,) = exporter.requests
    (record,) = request.resource_logs[0].scope_logs[0].log_records
    assert record.body.string_value == "body"
    assert (record.trace_id, record.span_id, record.flags) == (trace_id, span_id, flags)
