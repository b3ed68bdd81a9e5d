"""What is read of a run, for any view of it: plain values, from a connection that `schema.open_reader` has opened.

Times are nanoseconds since the epoch, durations seconds unless a name says otherwise. Each query reads a state of its
own; for one that several share, wrap them in `snapshot`. A connection is for one thread at a time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from otel_quantmon import semconv
from otel_quantmon.desk.histogram import Histogram, from_row
from otel_quantmon.desk.rows import Event, Interval, Model, Process, Quantiles, Reading, Span

__all__ = [
    "Event",
    "Interval",
    "Model",
    "Process",
    "Quantiles",
    "Reading",
    "Span",
    "distribution",
    "durations",
    "events",
    "every_series",
    "every_span",
    "facts",
    "intervals",
    "largest",
    "latest",
    "models",
    "newest_time",
    "processes",
    "readings",
    "slowest",
    "snapshot",
    "span",
    "spans_failed",
    "spans_far_from_float",
    "totals",
    "trace",
]

_SECOND = 10**9
# A gauge that has not been heard of for so long before the newest is of a model or a process that has gone.
_RECENT = 15 * _SECOND


@contextmanager
def snapshot(database: sqlite3.Connection) -> Generator[None, None, None]:
    """Let all queries inside see one state of the file, whatever is written meanwhile. Keep it short."""
    database.execute("BEGIN")
    try:
        yield
    finally:
        database.execute("ROLLBACK")


def facts(database: sqlite3.Connection) -> dict[str, Any]:
    """Return the table ``meta``, ``command`` as a list."""
    found = {row["key"]: row["value"] for row in database.execute("SELECT key, value FROM meta")}
    if "command" in found:
        found["command"] = json.loads(found["command"])
    return found


def models(database: sqlite3.Connection) -> list[Model]:
    """All models, in the order of their names."""
    rows = database.execute("SELECT * FROM model ORDER BY name, runtime, scheme")
    return [
        Model(
            row["id"],
            row["name"],
            row["runtime"],
            row["scheme"],
            row["provider"],
            json.loads(row["info"] or "{}"),
        )
        for row in rows
    ]


def processes(database: sqlite3.Connection) -> list[Process]:
    """All processes, in the order in which they were heard of."""
    rows = database.execute("SELECT * FROM process ORDER BY id")
    return [Process(**{**dict(row), "resource": json.loads(row["resource"])}) for row in rows]


def newest_time(database: sqlite3.Connection) -> int | None:
    """Return the time of the newest point, None if there is none."""
    found: int | None = database.execute("SELECT max(last_time) FROM series").fetchone()[0]
    return found


def readings(database: sqlite3.Connection, metric: semconv.Metric, model: int | None = None) -> list[Reading]:
    """Total of each series of a sum, or last value of each of a gauge: of a model, or of what belongs to none.

    A gauge that has not been heard of in the last 15 s of the metric is left out.
    """
    rows = database.execute(
        "SELECT process, kind, attributes, last_time, value FROM series "
        "WHERE metric = ? AND model IS ? AND value IS NOT NULL",
        (metric.name, model),
    ).fetchall()
    recent = max((row["last_time"] for row in rows), default=0) - _RECENT
    return [
        Reading(row["process"], json.loads(row["attributes"]), row["last_time"], row["value"])
        for row in rows
        if row["kind"] == "sum" or row["last_time"] >= recent
    ]


def largest(
    database: sqlite3.Connection, metric: semconv.Metric, model: int, statistic: str | None = None
) -> float | None:
    """Return the largest of the last values of a gauge, None if there is none; which count, `readings` says.

    Args:
        database, metric, model: As there.
        statistic: Value of ``quantmon.statistic`` that the series must have.
    """
    found: float | None = database.execute(
        "SELECT max(value) FROM series WHERE metric = :metric AND model = :model AND (:statistic IS NULL OR "
        "json_extract(attributes, :key) = :statistic) AND last_time >= -:recent + "
        "(SELECT max(last_time) FROM series WHERE metric = :metric AND model = :model AND value IS NOT NULL)",
        {
            "metric": metric.name,
            "model": model,
            "statistic": statistic,
            "key": f'$."{semconv.STATISTIC}"',
            "recent": _RECENT,
        },
    ).fetchone()[0]
    return found


def latest(
    database: sqlite3.Connection,
    metric: semconv.Metric,
    model: int | None,
    since: int = 0,
    **attributes: str,
) -> list[tuple[int, int, float]]:
    """Each value of a gauge, or increment of a sum, since a time: (time, id of its series, value), ascending.

    Args:
        database, metric, model: As in `readings`.
        since: Time after which the point must be.
        attributes: Attributes that the series must have, by the last part of their names (``statistic="mean"``).
    """
    found = [
        row["id"]
        for row in database.execute(
            "SELECT id, attributes FROM series WHERE metric = ? AND model IS ?", (metric.name, model)
        )
        if attributes.items()
        <= {k.rpartition(".")[2]: v for k, v in json.loads(row["attributes"]).items()}.items()
    ]
    rows = [
        (row["time"], row["series"], row["value"])
        for series in found
        for row in database.execute(
            "SELECT time, series, value FROM point WHERE series = ? AND time > ? AND value IS NOT NULL",
            (series, since),
        )
    ]
    return sorted(rows)


def totals(
    database: sqlite3.Connection, metric: semconv.Metric, model: int
) -> list[tuple[dict[str, Any], Histogram]]:
    """Return the distribution of each series of a histogram over the whole run, with its attributes but the model's."""
    rows = database.execute(
        "SELECT * FROM series WHERE metric = ? AND model = ? AND count IS NOT NULL", (metric.name, model)
    )
    return [(json.loads(row["attributes"]), from_row(row, row["kind"], row["bounds"])) for row in rows]


def distribution(database: sqlite3.Connection, metric: semconv.Metric, model: int) -> Histogram:
    """All series of a histogram together, over the whole run; empty if there is none."""
    return Histogram.joined(found for _, found in totals(database, metric, model))


def intervals(
    database: sqlite3.Connection, metric: semconv.Metric, model: int, since: int, step: float = 1.0
) -> list[Interval]:
    """Return a histogram over time: what each ``step`` seconds since a time brought, without empty steps.

    Only what has not been pruned. A collection counts for the step that its end lies in.
    """
    width = int(step * _SECOND)
    found: dict[int, Histogram] = {}
    rows = database.execute(
        "SELECT point.time, point.count, point.sum, point.min, point.max, point.buckets, series.kind, series.bounds "
        "FROM series JOIN point ON point.series = series.id "
        "WHERE series.metric = ? AND series.model = ? AND point.time > ? AND point.count > 0",
        (metric.name, model, since),
    )
    for row in rows:
        place = (row["time"] - since - 1) // width
        added = from_row(row, row["kind"], row["bounds"])
        found[place] = found[place] + added if place in found else added
    return [
        Interval(since + place * width, since + (place + 1) * width, values)
        for place, values in sorted(found.items())
    ]


def durations(database: sqlite3.Connection, model: int, late: Histogram) -> Quantiles:
    """Quantiles of the calls of late.

    Of one process they are those of its own sliding window. Quantiles of several cannot be joined, so they are those
    of all their durations in ``late``, as fine as its buckets; of the whole run if that is empty.
    """
    window = readings(database, semconv.METRIC_INFERENCE_WINDOW_DURATION, model)
    if len({reading.process for reading in window}) == 1:
        # The newest, if an execution provider that has been replaced still has a series.
        found = {
            reading.attributes.get(semconv.STATISTIC): reading.value
            for reading in sorted(window, key=lambda reading: reading.time)
        }
        return Quantiles(found.get("p50"), found.get("p95"), found.get("p99"), exact=True)
    values = late if late.count else distribution(database, semconv.METRIC_INFERENCE_DURATION, model)
    return Quantiles(values.quantile(0.5), values.quantile(0.95), values.quantile(0.99), exact=False)


def slowest(database: sqlite3.Connection, model: int, limit: int = 20) -> list[Span]:
    """Return the slowest inferences that have a span, the slowest first."""
    return _spans(database, "span.model = ? ORDER BY span.duration DESC LIMIT ?", (model, limit))


def spans_failed(database: sqlite3.Connection, model: int, limit: int = 20) -> list[Span]:
    """Return the inferences that failed or ran over, the newest first."""
    where = "span.model = ? AND content.error_type IS NOT NULL ORDER BY span.id DESC LIMIT ?"
    return _spans(database, where, (model, limit))


def spans_far_from_float(
    database: sqlite3.Connection, model: int, limit: int = 20
) -> list[tuple[float, Span]]:
    """Return the inferences with the largest relative error among the exemplars, with it, the largest first."""
    where = _of_trace(database) + " AND span.span_id = ?"
    rows = database.execute(
        "SELECT max(exemplar.value) AS error, exemplar.trace_id, exemplar.span_id "
        "FROM exemplar JOIN series ON series.id = exemplar.series WHERE series.metric = ? AND series.model = ? "
        "GROUP BY exemplar.trace_id, exemplar.span_id ORDER BY error DESC LIMIT ?",
        (semconv.METRIC_OUTPUT_ERROR.name, model, limit),
    ).fetchall()
    return [
        (row["error"], found)
        for row in rows
        for found in _spans(database, where, (row["trace_id"], row["span_id"]))
    ]


def span(database: sqlite3.Connection, trace_id: str, span_id: str) -> Span | None:
    """Return the span of two hexadecimal ids, None if it is not there (any more)."""
    try:
        ids = bytes.fromhex(trace_id), bytes.fromhex(span_id)
    except ValueError:
        return None
    return next(iter(_spans(database, _of_trace(database) + " AND span.span_id = ?", ids)), None)


def trace(database: sqlite3.Connection, trace_id: str, limit: int = 1000) -> list[Span]:
    """All spans of a trace, in the order of their starts; ``trace_id`` is hexadecimal."""
    try:
        wanted = bytes.fromhex(trace_id)
    except ValueError:
        return []
    where = _of_trace(database) + " ORDER BY span.start, span.id LIMIT ?"
    return _spans(database, where, (wanted, limit))


def _of_trace(database: sqlite3.Connection) -> str:
    """Return the condition that a span is of one trace, as the index has it: `schema` says why."""
    first, last = database.execute("SELECT (SELECT min(id) FROM span), (SELECT max(id) FROM span)").fetchone()
    parts = range((first or 0) >> 14, ((last or 0) >> 14) + 1)
    return f"span.id >> 14 IN ({', '.join(map(str, parts))}) AND span.trace_id = ?"


def events(
    database: sqlite3.Connection, model: int | None = None, after: int = 0, limit: int = 200
) -> list[Event]:
    """Events with an id above ``after``, of a model or of all, the newest first.

    One event names all models that a fault of the host has reached, and none where it is of the process.
    """
    rows = database.execute(
        "SELECT event.*, model.name AS model_name FROM event LEFT JOIN model ON model.id = event.model "
        "WHERE event.id > :after AND (:model IS NULL OR event.model = :model OR event.model IS NULL AND ("
        "coalesce(json_array_length(event.attributes, :models), 0) = 0 OR EXISTS (SELECT 1 "
        "FROM json_each(event.attributes, :models) AS named JOIN model AS wanted ON wanted.name = named.value "
        "WHERE wanted.id = :model))) ORDER BY event.id DESC LIMIT :limit",
        {"after": after, "model": model, "limit": limit, "models": f'$."{semconv.ANOMALY_MODELS}"'},
    )
    return [
        Event(
            row["id"],
            row["process"],
            row["model_name"],
            row["time"],
            row["name"],
            row["severity"],
            row["body"],
            json.loads(row["attributes"]),
            _hex(row["trace_id"]),
            _hex(row["span_id"]),
        )
        for row in rows
    ]


def every_series(database: sqlite3.Connection) -> Generator[dict[str, Any], None, None]:
    """Each series with its total, as JSON has it."""
    rows = database.execute(
        "SELECT series.*, model.name AS model_name FROM series LEFT JOIN model ON model.id = series.model "
        "ORDER BY series.id"
    )
    for row in rows:
        fields = {key: row[key] for key in row.keys() if key not in {"model", "model_name"}}  # noqa: SIM118  a Row's own
        for key in ("attributes", "bounds", "buckets"):
            fields[key] = None if row[key] is None else json.loads(row[key])
        yield {**fields, "model": row["model_name"]}


def every_span(database: sqlite3.Connection) -> Generator[Span, None, None]:
    """Each span that was kept, in the order in which they came."""
    after = 0
    while found := _spans(database, "span.id > ? ORDER BY span.id LIMIT 1000", (after,)):
        yield from found
        after = found[-1].id


def _spans(database: sqlite3.Connection, where: str, parameters: tuple[Any, ...]) -> list[Span]:
    rows = database.execute(
        "SELECT span.id, span.trace_id, span.span_id, span.parent_id, span.process, model.name AS model, "  # noqa: S608  conditions of our own
        "content.name, content.kind, content.scope, content.operation, span.start, span.duration, content.status, "
        "content.error_type, content.message, content.attributes, span.events "
        "FROM span JOIN content ON content.id = span.content LEFT JOIN model ON model.id = span.model "
        f"WHERE {where}",
        parameters,
    )
    return list(map(_span, rows))


def _span(row: sqlite3.Row) -> Span:
    fields = dict(row)
    fields["trace_id"], fields["span_id"] = row["trace_id"].hex(), row["span_id"].hex()
    fields["parent_id"] = _hex(row["parent_id"])
    fields["duration"] = row["duration"] / 1e9
    fields["attributes"], fields["events"] = json.loads(row["attributes"]), json.loads(row["events"] or "[]")
    return Span(**fields)


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
