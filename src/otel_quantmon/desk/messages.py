"""Bodies of OTLP over HTTP, in protobuf or JSON: what was sent, and what is answered.

https://opentelemetry.io/docs/specs/otlp/#otlphttp says how.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, cast

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

__all__ = [
    "JSON",
    "PROTOBUF",
    "SIGNALS",
    "MalformedError",
    "Signal",
    "attributes_of",
    "failure",
    "parse",
    "success",
    "to_json",
]

Signal = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class MalformedError(ValueError):
    """A body is not what its type and its path promise."""


class _Kind(NamedTuple):
    request: Callable[[], Message]
    response: Callable[[], Message]
    rejected: str


_KINDS: dict[Signal, _Kind] = {
    "traces": _Kind(ExportTraceServiceRequest, ExportTraceServiceResponse, "rejected_spans"),
    "metrics": _Kind(ExportMetricsServiceRequest, ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": _Kind(ExportLogsServiceRequest, ExportLogsServiceResponse, "rejected_log_records"),
}


def parse(signal: Signal, content_type: str, body: bytes) -> Message:
    """Return the request in ``body``.

    Args:
        signal: Signal that the request's path stands for.
        content_type: `PROTOBUF` or `JSON`.
        body: Bytes of the request, no longer compressed.

    Raises:
        MalformedError: The body is no such request.
    """
    request = _KINDS[signal].request()
    try:
        if content_type == PROTOBUF:
            request.ParseFromString(body)
        else:
            document = json.loads(body)
            if not isinstance(document, dict):
                raise MalformedError("the body is no JSON object")
            ParseDict(_with_ids_as_bytes(document), request, ignore_unknown_fields=True)
    except (DecodeError, ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # protobuf's reader of JSON meets some mistakes with errors of Python's own.
        raise MalformedError(f"no {signal} in {content_type}: {str(error).splitlines()[0][:200]}") from error
    return request


def success(signal: Signal, content_type: str, rejected: int = 0, message: str = "") -> bytes:
    """Return the answer to a request that was accepted, but for ``rejected`` items; ``message`` says why."""
    response: Any = _KINDS[signal].response()
    if rejected or message:
        setattr(response.partial_success, _KINDS[signal].rejected, rejected)
        response.partial_success.error_message = message
    return (
        cast("bytes", response.SerializeToString())
        if content_type == PROTOBUF
        else MessageToJson(response).encode()
    )


def failure(content_type: str, message: str) -> bytes:
    """Return the answer to a request that failed: a ``google.rpc.Status``, of which OTLP asks for the message alone."""
    if content_type != PROTOBUF:
        return json.dumps({"message": message}).encode()
    # Field 2, a string. For one message of one field no package is asked for.
    text = message.encode()[:1000]
    size = bytes([len(text) & 0x7F | 0x80, len(text) >> 7]) if len(text) > 0x7F else bytes([len(text)])
    return b"\x12" + size + text


def _with_ids_as_bytes(value: Any) -> Any:
    """Ids are in hexadecimal digits in OTLP's JSON, where protobuf's own JSON has them in base64."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {
            key: _base64(item) if key in _IDS and isinstance(item, str) else _with_ids_as_bytes(item)
            for key, item in fields.items()
        }
    if isinstance(value, list):
        return [_with_ids_as_bytes(item) for item in value]  # pyright: ignore[reportUnknownVariableType]  JSON
    return value


_IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}


def _base64(digits: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(digits)).decode()
    except (binascii.Error, UnicodeEncodeError) as error:
        raise MalformedError(f"an id is not in hexadecimal digits: {digits[:40]!r}") from error


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as JSON can hold them: bytes as hexadecimal digits, and NaN and infinities as text."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    if kind == "bytes_value":
        return value.bytes_value.hex()
    if kind == "double_value" and not math.isfinite(value.double_value):
        return str(value.double_value)
    return getattr(value, kind) if kind else None


def to_json(value: Any) -> str:
    """One text for equal attributes."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
