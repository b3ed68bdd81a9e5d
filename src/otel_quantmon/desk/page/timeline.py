"""What the page draws over time: every chart of a model has the same axis, in steps of equal length."""

from __future__ import annotations

import json
import math
import sqlite3
from typing import Any, NamedTuple

from otel_quantmon import semconv
from otel_quantmon.desk import queries
from otel_quantmon.desk.histogram import Histogram

__all__ = ["Axis", "anomalies", "baseline", "finite", "latency", "lines", "milliseconds"]

_SECOND = 10**9
# More points than a wide screen has for them are of no use to an eye, and slow to draw.
_MOST_STEPS = 400


def milliseconds(time: int | None) -> float | None:
    """Nanoseconds since the epoch as a browser has them."""
    return None if time is None else time / 1e6


def finite(value: float | None) -> float | None:
    """``value``, None if it is not finite: JSON has no word for that."""
    return value if value is not None and math.isfinite(value) else None


class Axis(NamedTuple):
    """The time of a run.

    Attributes:
        began: The first step begins here, in nanoseconds since the epoch.
        ended: The newest point.
        step: Nanoseconds; whole seconds.
    """

    began: int
    ended: int
    step: int

    @classmethod
    def of(cls, database: sqlite3.Connection) -> Axis:
        """From the first point of the run to its newest one."""
        first, last = database.execute("SELECT min(first_time), max(last_time) FROM series").fetchone()
        if first is None:
            return cls(0, 0, _SECOND)
        # A point stands for the time before it.
        began = first - _SECOND
        return cls(began, last, math.ceil((last - began) / _MOST_STEPS / _SECOND) * _SECOND)

    def place(self, time: int) -> int:
        """The number of the step that ``time`` is in."""
        return (time - self.began - 1) // self.step


def latency(database: sqlite3.Connection, model: int, axis: Axis) -> dict[str, Any]:
    """Calls and quantiles of their durations of each step that has a call.

    Quantiles are made of the step's own calls and as fine as the histogram's buckets; ``mean`` is exact.
    """
    found = queries.intervals(
        database, semconv.METRIC_INFERENCE_DURATION, model, axis.began, axis.step / _SECOND
    )
    return {
        "time": [milliseconds(each.time) for each in found],
        "calls": [each.values.count for each in found],
        "mean": [finite(each.values.mean) for each in found],
        **{
            name: [finite(each.values.quantile(share)) for each in found]
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
    }


def baseline(database: sqlite3.Connection, model: int, axis: Axis) -> dict[str, Any] | None:
    """What latency is compared with, None until it is learnt.

    ``mean`` follows from drift, which is mean over baseline minus 1. ``low`` and ``high`` hold 90% of the calls from
    the start until drift was first heard of, which is as long as the baseline is learnt.
    """
    drift = queries.latest(database, semconv.METRIC_INFERENCE_DURATION_DRIFT, model)
    if not drift:
        return None
    learnt = Histogram(0, 0.0, None, None, None)
    for each in queries.intervals(database, semconv.METRIC_INFERENCE_DURATION, model, axis.began):
        if each.start < drift[0][0]:
            learnt += each.values
    mean = None
    now = {time: value for time, _, value in drift}
    for time, _, value in reversed(
        queries.latest(database, semconv.METRIC_INFERENCE_WINDOW_DURATION, model, statistic="mean")
    ):
        if time in now and now[time] > -1:
            mean = value / (1 + now[time])
            break
    return {
        "until": milliseconds(drift[0][0]),
        "mean": finite(mean),
        "low": finite(learnt.quantile(0.05)),
        "high": finite(learnt.quantile(0.95)),
        "edges": bars(learnt),
    }


def bars(values: Histogram) -> list[list[float | None]]:
    """The buckets that are not empty: lower bound, upper bound, count. An end that is not known is that of the values.

    Bounds are narrowed to the smallest and largest value, so that a wide bucket does not look like wide values.
    """
    if values.buckets is None:
        return []
    edges = values.buckets.edges()
    found: list[list[float | None]] = []
    for low, high, count in edges:
        lower = max(low, values.min) if values.min is not None else low
        upper = min(high, values.max) if values.max is not None else high
        found.append([finite(lower), finite(upper), count])
    return found


def lines(
    database: sqlite3.Connection, metric: semconv.Metric, model: int, axis: Axis
) -> list[dict[str, Any]]:
    """Each series of a gauge over time: its process and attributes, and the last value of each step."""
    found: list[dict[str, Any]] = []
    rows = database.execute(
        "SELECT id, process, attributes FROM series WHERE metric = ? AND model = ? ORDER BY id",
        (metric.name, model),
    ).fetchall()
    for row in rows:
        last: dict[int, tuple[int, float]] = {}
        for time, value in database.execute(
            "SELECT time, value FROM point WHERE series = ? AND value IS NOT NULL ORDER BY time", (row["id"],)
        ):
            last[axis.place(time)] = (time, value)
        found.append(
            {
                "process": row["process"],
                "attributes": json.loads(row["attributes"]),
                "time": [milliseconds(time) for time, _ in last.values()],
                "value": [finite(value) for _, value in last.values()],
            }
        )
    return found


def anomalies(database: sqlite3.Connection, model: int) -> list[dict[str, Any]]:
    """When something became anomalous, the newest first, with its end where that was reported.

    From the events of the run. Where there are none, from `quantmon.anomaly.active`, which has type and times alone.
    """
    open_: dict[tuple[int, Any], dict[str, Any]] = {}
    found: list[dict[str, Any]] = []
    # In the order of their times: several processes send when they like.
    for event in sorted(queries.events(database, model), key=lambda event: event.time):
        kind = event.attributes.get(semconv.ANOMALY_TYPE)
        if kind is None:
            continue
        if event.name.endswith(".left"):
            entered = open_.pop((event.process, kind), None)
            if entered is not None:
                entered["left"] = milliseconds(event.time)
            continue
        anomaly = {
            "time": milliseconds(event.time),
            "left": None,
            "type": kind,
            "body": event.body,
            "attributes": event.attributes,
            "trace_id": event.trace_id,
            "span_id": event.span_id,
        }
        open_[event.process, kind] = anomaly
        found.append(anomaly)
    return (found or _from_gauge(database, model))[::-1]


def _from_gauge(database: sqlite3.Connection, model: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for kind in semconv.ENUMERATIONS[semconv.ANOMALY_TYPE]:
        open_: dict[int, dict[str, Any]] = {}
        for time, series, active in queries.latest(database, semconv.METRIC_ANOMALY_ACTIVE, model, type=kind):
            if active and series not in open_:
                open_[series] = {
                    "time": milliseconds(time),
                    "left": None,
                    "type": kind,
                    "body": None,
                    "attributes": {},
                    "trace_id": None,
                    "span_id": None,
                }
                found.append(open_[series])
            elif not active and series in open_:
                open_.pop(series)["left"] = milliseconds(time)
    return sorted(found, key=lambda each: each["time"])
