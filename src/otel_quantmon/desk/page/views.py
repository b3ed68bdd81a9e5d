"""What the page shows of a run, as JSON has it.

Times are milliseconds since the epoch, as browsers have them; durations are seconds, shares and errors plain numbers.
What is not known, or not finite, is None.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, TypeAlias

from otel_quantmon import semconv
from otel_quantmon._version import __version__
from otel_quantmon.desk import queries
from otel_quantmon.desk.overview import Overview, overview
from otel_quantmon.desk.page import timeline
from otel_quantmon.desk.page.timeline import Axis, finite, milliseconds
from otel_quantmon.desk.rows import Span

__all__ = ["Json", "listed_traces", "model_view", "run_view", "trace_view"]

Json: TypeAlias = dict[str, Any]

_SECOND = 10**9
_LISTED = 20


def run_view(database: sqlite3.Connection) -> Json:
    """The run, and one row for each model."""
    facts = queries.facts(database)
    axis = Axis.of(database)
    return {
        "run": {
            "command": facts.get("command"),
            "started": milliseconds(facts.get("started")),
            "ended": milliseconds(facts.get("ended")),
            "exit_status": facts.get("exit_status"),
            "newest": milliseconds(axis.ended or None),
            "processes": len(queries.processes(database)),
            "spans": facts.get("accepted_spans", 0),
            "points": facts.get("accepted_points", 0),
            "version": __version__,
        },
        "models": [
            {
                **_row(row),
                "latency": timeline.latency(database, row.model.id, axis),
                "step": axis.step / _SECOND,
            }
            for row in _rows(database, axis)
        ],
    }


def model_view(database: sqlite3.Connection, model_id: int) -> Json | None:
    """All that is shown of one model, None if there is none of this id."""
    axis = Axis.of(database)
    row = next(iter(_rows(database, axis, model_id)), None)
    if row is None:
        return None
    with queries.snapshot(database):
        return {
            **_row(row),
            "memory_now": _memory(database, model_id),
            "speedup": _speedup(database, model_id),
            "began": milliseconds(axis.began),
            "ended": milliseconds(axis.ended),
            "step": axis.step / _SECOND,
            "latency": timeline.latency(database, model_id, axis),
            "baseline": timeline.baseline(database, model_id, axis),
            "distribution": timeline.bars(
                queries.distribution(database, semconv.METRIC_INFERENCE_DURATION, model_id)
            ),
            "drift_lines": timeline.lines(database, semconv.METRIC_INFERENCE_DURATION_DRIFT, model_id, axis),
            "error_lines": timeline.lines(database, semconv.METRIC_OUTPUT_RELATIVE_ERROR, model_id, axis),
            "clipping_lines": timeline.lines(database, semconv.METRIC_INPUT_CLIP_RATIO, model_id, axis),
            "memory_lines": timeline.lines(database, semconv.METRIC_MEMORY_USAGE, model_id, axis),
            "anomalies": timeline.anomalies(database, model_id),
            "slow": [_inference(span) for span in queries.slowest(database, model_id, _LISTED)],
            "wrong": [
                {**_inference(span), "relative_error": finite(error)}
                for error, span in queries.spans_far_from_float(database, model_id, _LISTED)
            ],
            "failed": [_inference(span) for span in queries.spans_failed(database, model_id, _LISTED)],
        }


def trace_view(database: sqlite3.Connection, trace_id: str) -> list[Json]:
    """All spans of a trace in the order of their starts; ``depth`` is how many of its spans each one is below.

    ``offset`` is the time from the first start, in seconds: a browser's numbers are too coarse for nanoseconds since
    the epoch, which ``start_ns`` and, of an event, ``time_ns`` therefore have as text.
    """
    with queries.snapshot(database):
        spans = queries.trace(database, trace_id)
        services = {process.id: process for process in queries.processes(database)}
    parents = {span.span_id: span.parent_id for span in spans}
    found: list[Json] = []
    for span in spans:
        depth, parent, met = 0, span.parent_id, {span.span_id}
        # A trace that comes from elsewhere may lead in a circle.
        while parent in parents and parent not in met:
            met.add(parent)
            depth, parent = depth + 1, parents[parent]
        process = services[span.process]
        found.append(
            {
                **asdict(span),
                "start": milliseconds(span.start),
                "start_ns": str(span.start),
                "events": [
                    {**event, "time": milliseconds(event["time"]), "time_ns": str(event["time"])}
                    for event in span.events
                ],
                "offset": (span.start - spans[0].start) / _SECOND,
                "depth": depth,
                "service": process.service,
                "pid": process.pid,
            }
        )
    return found


def listed_traces(models: Iterable[Json]) -> set[str]:
    """The traces of all inferences that views of models name."""
    return {
        found["trace_id"]
        for model in models
        for part in ("slow", "wrong", "failed", "anomalies")
        for found in model[part]
        if found["trace_id"]
    }


def _rows(database: sqlite3.Connection, axis: Axis, only: int | None = None) -> list[Overview]:
    """As the terminal has them. A run without a recorded end lasts: its newest point is now."""
    return overview(database, None if "ended" in queries.facts(database) else axis.ended, only=only)


def _row(row: Overview) -> Json:
    return {
        "id": row.model.id,
        "name": row.model.name,
        "runtime": row.model.runtime,
        "scheme": row.model.scheme,
        "provider": row.model.provider,
        "info": row.model.info,
        "calls": row.calls,
        "errors": row.errors,
        "rate": finite(row.rate),
        "p50": finite(row.p50),
        "p95": finite(row.p95),
        "p99": finite(row.p99),
        "drift": finite(row.drift),
        "relative_error": finite(row.relative_error),
        "clip_ratio": finite(row.clipping),
        "memory": row.memory,
        "anomaly_counts": row.anomalies,
        "active_anomalies": row.active,
    }


def _memory(database: sqlite3.Connection, model: int) -> dict[str, float]:
    """Bytes of all processes together, by what they hold."""
    added: dict[str, float] = {}
    for reading in queries.readings(database, semconv.METRIC_MEMORY_USAGE, model):
        kind = str(reading.attributes.get(semconv.MEMORY_TYPE, ""))
        added[kind] = added.get(kind, 0.0) + (finite(reading.value) or 0.0)
    return added


def _speedup(database: sqlite3.Connection, model: int) -> float | None:
    found = [finite(reading.value) for reading in queries.readings(database, semconv.METRIC_SPEEDUP, model)]
    return max((value for value in found if value is not None), default=None)


def _inference(span: Span) -> Json:
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "start": milliseconds(span.start),
        "duration": span.duration,
        "operation": span.operation,
        "error_type": span.error_type,
        "batch": span.attributes.get(semconv.BATCH_SIZE),
    }
