"""Models at a glance: one line of numbers for each, for the terminal, the page, and JSON alike."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from otel_quantmon import semconv
from otel_quantmon.desk import queries
from otel_quantmon.desk.histogram import Histogram
from otel_quantmon.desk.recent import Recent

__all__ = ["Overview", "overview"]

_SECOND = 10**9
_RATE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Overview:
    """One model, over the run or, where it says so, of late. None is what is not known.

    Attributes:
        model: The model.
        calls: Inferences, failed ones included.
        errors: Failed ones, by ``error.type``.
        rate: Calls in a second: of the last 10 s while the run lasts, and over the whole of it afterwards.
        durations: Durations of all calls, in seconds.
        p50, p95, p99: Quantiles in seconds: recent ones while the run lasts (`queries.durations`), those of the whole
            run afterwards.
        drift: The largest of any process, 0.5 for half as slow again.
        relative_error: Mean over the window of the output where it is largest.
        clipping: Share of input values out of range, of the input where it is largest.
        memory: Bytes that loading took, in all processes that live; those of the model file where that is not known.
        anomalies: How often each kind of anomaly was entered.
        active: Kinds of anomaly that are on, in any process; after the run, that were on at its end.
        loads: How often it was loaded.
        suppressed_spans: Spans that the budget withheld.
        recent: Mean duration of each of the last 40 s, None for a second without a call; the newest last.
    """

    model: queries.Model
    calls: int
    errors: dict[str, int]
    rate: float | None
    durations: Histogram
    p50: float | None
    p95: float | None
    p99: float | None
    drift: float | None
    relative_error: float | None
    clipping: float | None
    memory: int | None
    anomalies: dict[str, int]
    active: tuple[str, ...]
    loads: int
    suppressed_spans: int
    recent: tuple[float | None, ...]

    def as_json(self) -> dict[str, Any]:
        """As JSON has it: durations in seconds, memory in bytes."""
        return {
            "model": self.model.name,
            "runtime": self.model.runtime,
            "scheme": self.model.scheme,
            "execution_provider": self.model.provider,
            "digest": self.model.info.get(semconv.MODEL_DIGEST),
            "calls": self.calls,
            "errors": self.errors,
            "rate": self.rate,
            "duration": {
                "mean": self.durations.mean,
                "min": self.durations.min,
                "max": self.durations.max,
                "p50": self.p50,
                "p95": self.p95,
                "p99": self.p99,
            },
            "drift": self.drift,
            "relative_error": self.relative_error,
            "clip_ratio": self.clipping,
            "memory": self.memory,
            "anomalies": self.anomalies,
            "active_anomalies": list(self.active),
            "loads": self.loads,
            "suppressed_spans": self.suppressed_spans,
        }


def overview(
    database: sqlite3.Connection,
    now: int | None = None,
    recent: Recent | None = None,
    only: int | None = None,
) -> list[Overview]:
    """Each model, in the order of their names.

    Args:
        database: A connection of `schema.open_reader`.
        now: Nanoseconds since the epoch, for a run that lasts; None for one that has ended.
        recent: What earlier views have read of the same file, for a view that is drawn again and again.
        only: Id of the one model to look at.
    """
    with queries.snapshot(database):
        found = [model for model in queries.models(database) if only is None or model.id == only]
        if now is not None and found:
            recent = recent or Recent(only)
            recent.read(database, now)
        return [_overview(database, model, now, recent) for model in found]


def _overview(
    database: sqlite3.Connection, model: queries.Model, now: int | None, late: Recent | None
) -> Overview:
    series = queries.totals(database, semconv.METRIC_INFERENCE_DURATION, model.id)
    values = Histogram.joined(found for _, found in series)
    errors: dict[str, int] = {}
    for attributes, failed in series:
        kind = attributes.get(semconv.ERROR_TYPE)
        if kind is not None:
            errors[kind] = errors.get(kind, 0) + failed.count
    if now is None or late is None:
        rate = _rate(database, model, values)
        p50, p95, p99 = (values.quantile(share) for share in (0.5, 0.95, 0.99))
        recent: tuple[float | None, ...] = ()
    else:
        seconds = late.seconds(model.id, now)
        recent = tuple(None if values is None else values.mean for values in seconds)
        rate = late.calls(model.id, now - _RATE_SECONDS * _SECOND) / _RATE_SECONDS
        found = queries.durations(database, model.id, Histogram.joined(filter(None, seconds)))
        p50, p95, p99 = found.p50, found.p95, found.p99
    return Overview(
        model,
        values.count,
        errors,
        rate,
        values,
        p50,
        p95,
        p99,
        queries.largest(database, semconv.METRIC_INFERENCE_DURATION_DRIFT, model.id),
        queries.largest(database, semconv.METRIC_OUTPUT_RELATIVE_ERROR, model.id, "mean"),
        queries.largest(database, semconv.METRIC_INPUT_CLIP_RATIO, model.id),
        _memory(database, model),
        _by(database, semconv.METRIC_ANOMALIES, model, semconv.ANOMALY_TYPE),
        _active(database, model),
        sum(
            found.count for _, found in queries.totals(database, semconv.METRIC_MODEL_LOAD_DURATION, model.id)
        ),
        int(sum(r.value for r in queries.readings(database, semconv.METRIC_SPANS_SUPPRESSED, model.id))),
        recent,
    )


def _rate(database: sqlite3.Connection, model: queries.Model, calls: Histogram) -> float | None:
    """Over the time from the first call's start to the last point's end."""
    first, last = database.execute(
        "SELECT min(point.start), max(point.time) FROM series JOIN point ON point.series = series.id "
        "WHERE series.metric = ? AND series.model = ?",
        (semconv.METRIC_INFERENCE_DURATION.name, model.id),
    ).fetchone()
    if last is None or not calls.count:
        return None
    # A series begins when its first call ends, which is mostly the longest.
    seconds = (last - first) / _SECOND + (calls.sum / calls.count if calls.max is None else calls.max)
    return calls.count / seconds if seconds > 0 else None


def _by(
    database: sqlite3.Connection, metric: semconv.Metric, model: queries.Model, name: str
) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reading in queries.readings(database, metric, model.id):
        kind = str(reading.attributes.get(name, ""))
        counts[kind] = counts.get(kind, 0) + int(reading.value)
    return counts


def _active(database: sqlite3.Connection, model: queries.Model) -> tuple[str, ...]:
    found = queries.readings(database, semconv.METRIC_ANOMALY_ACTIVE, model.id)
    processes = {reading.process for reading in found}
    # What is of the process and of no model, such as memory, is of each model in it.
    of_process = queries.readings(database, semconv.METRIC_ANOMALY_ACTIVE)
    found += [reading for reading in of_process if reading.process in processes]
    return tuple(sorted({str(r.attributes.get(semconv.ANOMALY_TYPE, "")) for r in found if r.value}))


def _memory(database: sqlite3.Connection, model: queries.Model) -> int | None:
    found = queries.readings(database, semconv.METRIC_MEMORY_USAGE, model.id)
    for kind in ("load_rss", "tensor_arena", "model_file"):
        values = [int(r.value) for r in found if r.attributes.get(semconv.MEMORY_TYPE) == kind]
        if values:
            return sum(values)
    return None
