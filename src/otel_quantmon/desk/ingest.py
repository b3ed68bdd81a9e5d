"""From OTLP messages to rows of the store, on the thread of its writer.

Everything that repeats is written once and found again by its bytes: attributes of processes, what spans have in
common, series. So a span costs a few microseconds, whatever attributes it carries.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_quantmon import semconv
from otel_quantmon.desk.messages import attributes_of, to_json

__all__ = ["LAST_TIME", "Origins", "Outcome", "insert", "take_logs", "take_traces"]

LAST_TIME = 2**63 - 1
"""The latest time that SQLite can hold, in the year 2262."""

# Attributes of spans may differ from span to span without end; then what was met is forgotten and met anew.
_MOST_CONTENTS = 20_000
# Rows of one statement: each one gives up the interpreter's lock, so fewer are faster beside other threads.
_ROWS = 50


class Outcome(NamedTuple):
    """What became of the items of a request: kept, accepted but not kept, rejected, and why the first one was.

    ``duplicate`` is True of a request that was taken before; then nothing was done with it.
    """

    kept: int = 0
    other: int = 0
    rejected: int = 0
    message: str = ""
    duplicate: bool = False


def insert(
    database: sqlite3.Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Insert ``rows``, many with a statement."""
    one = f"({', '.join('?' * len(columns))})"
    head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608  names of our own
    many = head + ", ".join([one] * _ROWS)
    whole = len(rows) - len(rows) % _ROWS
    for first in range(0, whole, _ROWS):
        database.execute(many, [value for row in rows[first : first + _ROWS] for value in row])
    database.executemany(head + one, rows[whole:])


class Origins:
    """Processes, models and contents that the store has met, and their ids. For the writer's thread alone."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._processes: dict[bytes, int] = {}
        self._seen: dict[int, int] = {}
        self._models: dict[tuple[str, str, str], int] = {}
        self._contents: dict[tuple[str, bytes], tuple[int, int | None]] = {}

    def forget(self) -> None:
        """Look everything up again: what was met last may have been rolled back."""
        for known in (self._processes, self._models, self._contents):
            known.clear()

    def process(self, resource: Resource, now: int) -> int:
        """Return the id of a process; it was seen at ``now``, in nanoseconds since the epoch."""
        key = resource.SerializeToString(deterministic=True)
        found = self._processes.get(key)
        if found is None:
            if len(self._processes) >= _MOST_CONTENTS:
                self._processes.clear()
            found = self._processes[key] = self._row_of(attributes_of(resource.attributes), now)
        self._seen[found] = now
        return found

    def _row_of(self, attributes: dict[str, Any], now: int) -> int:
        # Without an id of its own all that has the same attributes is one.
        instance = str(attributes.get("service.instance.id") or to_json(attributes))
        pid = attributes.get("process.pid")
        pid = pid if isinstance(pid, int) else None
        where = "SELECT id, pid FROM process WHERE instance = ?"
        row = self._database.execute(where, (instance,)).fetchone()
        if row is not None and pid is not None and row[1] not in {None, pid}:
            # A pod may give one id to all of its processes.
            instance = f"{instance} (pid {pid})"
            row = self._database.execute(where, (instance,)).fetchone()
        if row is not None:
            return int(row[0])
        done = self._database.execute(
            "INSERT INTO process (instance, service, pid, first_seen, last_seen, resource) VALUES (?, ?, ?, ?, ?, ?)",
            (
                instance,
                semconv.bounded(str(attributes.get("service.name", ""))),
                pid,
                now,
                now,
                to_json(attributes),
            ),
        )
        return done.lastrowid or 0

    def write_seen(self) -> None:
        """Write when each process was seen last."""
        self._database.executemany(
            "UPDATE process SET last_seen = ? WHERE id = ?",
            [(now, found) for found, now in self._seen.items()],
        )
        self._seen.clear()

    def model(self, attributes: dict[str, Any]) -> int | None:
        """Return the id of the model that ``attributes`` name, None if they name none."""
        name = attributes.get(semconv.MODEL_NAME)
        if not isinstance(name, str):
            return None
        runtime = str(attributes.get(semconv.RUNTIME_NAME, ""))
        scheme = str(attributes.get(semconv.QUANTIZATION_SCHEME, ""))
        key = (semconv.bounded(name), semconv.bounded(runtime), semconv.bounded(scheme))
        found = self._models.get(key)
        if found is None:
            self._database.execute(
                "INSERT OR IGNORE INTO model (name, runtime, scheme) VALUES (?, ?, ?)", key
            )
            where = "SELECT id FROM model WHERE name = ? AND runtime = ? AND scheme = ?"
            (found,) = self._database.execute(where, key).fetchone()
            self._models[key] = found
        return found

    def content(self, scope: str, key: bytes, span: Span) -> tuple[int, int | None]:
        """Return the ids of what a span has in common with others, by its bytes ``key``, and of its model."""
        found = self._contents.get((scope, key))
        if found is None:
            if len(self._contents) >= _MOST_CONTENTS:
                self._contents.clear()
            attributes = attributes_of(span.attributes)
            operation = attributes.get(semconv.OPERATION_NAME)
            error_type = attributes.get(semconv.ERROR_TYPE)
            model = self.model(attributes) if scope == semconv.SCOPE else None
            done = self._database.execute(
                "INSERT INTO content (name, kind, scope, operation, status, error_type, message, attributes) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    span.name,
                    span.kind,
                    scope,
                    None if operation is None else str(operation),
                    span.status.code,
                    None if error_type is None else str(error_type),
                    span.status.message or None,
                    to_json(attributes),
                ),
            )
            found = self._contents[scope, key] = (done.lastrowid or 0, model)
        return found


def take_traces(
    database: sqlite3.Connection, origins: Origins, request: ExportTraceServiceRequest, now: int
) -> Outcome:
    """Write the spans of a request."""
    rows: list[tuple[Any, ...]] = []
    rejected = 0
    for resource in request.resource_spans:
        process = origins.process(resource.resource, now)
        for scope in resource.scope_spans:
            name = scope.scope.name
            for span in scope.spans:
                start, end = span.start_time_unix_nano, span.end_time_unix_nano
                trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
                if (
                    len(trace_id) != 16
                    or len(span_id) != 8
                    or trace_id == _NO_TRACE
                    or span_id == _NO_SPAN
                    or not start <= end <= LAST_TIME
                ):
                    rejected += 1
                    continue
                events = _events(span) if span.events else None
                # What is left is what spans have in common.
                for field in (
                    "trace_id",
                    "span_id",
                    "parent_span_id",
                    "start_time_unix_nano",
                    "end_time_unix_nano",
                ):
                    span.ClearField(field)
                if events:
                    span.ClearField("events")
                content, model = origins.content(name, span.SerializeToString(), span)
                rows.append(
                    (
                        trace_id,
                        span_id,
                        parent_id or None,
                        process,
                        model,
                        content,
                        start,
                        end - start,
                        events,
                    )
                )
    insert(database, "span", _SPAN, rows)
    return Outcome(
        len(rows),
        0,
        rejected,
        "spans need ids that are not zero, and an end after the start" if rejected else "",
    )


# Zeros are no ids.
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)
_SPAN = ("trace_id", "span_id", "parent_id", "process", "model", "content", "start", "duration", "events")


def _is_id(value: bytes, size: int) -> bool:
    return len(value) == size and any(value)


def _events(span: Span) -> str:
    return to_json(
        [
            {"time": event.time_unix_nano, "name": event.name, "attributes": attributes_of(event.attributes)}
            for event in span.events
        ]
    )


def take_logs(
    database: sqlite3.Connection, origins: Origins, request: ExportLogsServiceRequest, now: int
) -> Outcome:
    """Write those log records of a request that are events of ours; others are the application's own business."""
    rows: list[tuple[Any, ...]] = []
    other = 0
    for resource in request.resource_logs:
        process = origins.process(resource.resource, now)
        for record in _records(resource.scope_logs):
            attributes = attributes_of(record.attributes)
            # Older SDKs have no field for it.
            name = record.event_name or attributes.get("event.name")
            if not isinstance(name, str) or not name.startswith(_OURS):
                other += 1
                continue
            time = record.time_unix_nano or record.observed_time_unix_nano
            body = record.body.string_value if record.body.HasField("string_value") else None
            rows.append(
                (
                    process,
                    origins.model(attributes),
                    time if 0 < time <= LAST_TIME else now,
                    name,
                    record.severity_number,
                    body,
                    to_json(attributes),
                    record.trace_id if _is_id(record.trace_id, 16) else None,
                    record.span_id if _is_id(record.span_id, 8) else None,
                )
            )
    insert(database, "event", _EVENT, rows)
    return Outcome(len(rows), other)


_EVENT = ("process", "model", "time", "name", "severity", "body", "attributes", "trace_id", "span_id")
_OURS = "quantmon."


def _records(scopes: Iterable[Any]) -> Iterable[LogRecord]:
    return (record for scope in scopes for record in scope.log_records)
