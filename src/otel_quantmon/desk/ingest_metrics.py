"""From metric points to rows: series, what each collection added to them, and their totals over the run.

Cumulative sums and histograms become differences, so that both temporalities read alike and a total survives a process
that starts anew. https://opentelemetry.io/docs/specs/otel/metrics/data-model/ says what the points mean.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp

from otel_quantmon import semconv
from otel_quantmon.desk.histogram import MOST_BUCKETS, Explicit, Exponential, Histogram
from otel_quantmon.desk.ingest import LAST_TIME, Origins, Outcome, insert
from otel_quantmon.desk.messages import attributes_of, to_json

__all__ = ["Metrics"]

_PREFIX = "quantmon."
# Attributes of metrics are bounded, by the instrumentation and by the SDK's limit of 2,000 points for an instrument.
_MOST_SERIES = 50_000
_MOST_BOUNDS = 10_000
_DELTA, _CUMULATIVE = otlp.AGGREGATION_TEMPORALITY_DELTA, otlp.AGGREGATION_TEMPORALITY_CUMULATIVE
_NO_VALUE = otlp.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_POINT = ("series", "time", "start", "value", "count", "sum", "min", "max", "buckets")
_EXEMPLAR = ("series", "time", "value", "trace_id", "span_id")


class _RejectedError(ValueError):
    """A point that means nothing; the message says why."""


class _Series:
    """A series and its total so far. What is cumulative is kept as it came, to be subtracted from what comes next."""

    __slots__ = ("before", "count", "first_time", "id", "last_time", "model", "points", "total", "value")

    def __init__(self, found: int, model: int | None) -> None:
        self.id = found
        self.model = model
        self.first_time: int | None = None
        self.last_time: int | None = None
        self.points = 0
        self.value: float | None = None
        self.total: Histogram | None = None
        # Start and value of the cumulative point before, and the total without it.
        self.before: tuple[int, Any, Any] | None = None

    def row(self) -> tuple[Any, ...]:
        """For the statement that writes the total."""
        found = self.total
        columns = (
            (None,) * 5 if found is None else (found.count, found.sum, found.min, found.max, _json(found))
        )
        return (self.first_time, self.last_time, self.points, self.value, *columns, self.id)


def _json(found: Histogram) -> str | None:
    return None if found.buckets is None else found.buckets.to_json()


class Metrics:
    """Takes metric points. For the writer's thread alone."""

    def __init__(self, database: sqlite3.Connection, origins: Origins) -> None:
        self._database = database
        self._origins = origins
        self._by_bytes: dict[tuple[Any, ...], _Series] = {}
        self._by_text: dict[tuple[Any, ...], _Series] = {}
        self._inherited: dict[tuple[Any, ...], _Series] = {}
        self._changed: dict[int, _Series] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._exemplars: list[tuple[Any, ...]] = []

    def take(self, request: ExportMetricsServiceRequest, now: int) -> Outcome:
        """Write the points of a request, those of other metrics than ours left out."""
        kept = other = rejected = 0
        message = ""
        for resource in request.resource_metrics:
            process = self._origins.process(resource.resource, now)
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                kind = metric.WhichOneof("data")
                points: Any = getattr(metric, kind).data_points if kind else ()
                if not metric.name.startswith(_PREFIX) or kind == "summary":
                    other += len(points)
                    continue
                for point in points:
                    wrong = self._take(process, metric, str(kind), point)
                    if wrong is None:
                        kept += 1
                    else:
                        rejected += 1
                        message = message or f"{metric.name}: {wrong}"
        insert(self._database, "point", _POINT, self._rows)
        insert(self._database, "exemplar", _EXEMPLAR, self._exemplars)
        self._rows.clear()
        self._exemplars.clear()
        return Outcome(kept, other, rejected, message)

    def write_totals(self) -> None:
        """Write the totals of the series that have changed."""
        self._database.executemany(
            "UPDATE series SET first_time = ?, last_time = ?, points = ?, value = ?, count = ?, sum = ?, min = ?, "
            "max = ?, buckets = ? WHERE id = ?",
            [series.row() for series in self._changed.values()],
        )
        self._changed.clear()

    def _take(self, process: int, metric: otlp.Metric, kind: str, point: Any) -> str | None:
        """Take one point; what is wrong with it if it means nothing."""
        try:
            self._add_point(process, metric, kind, point)
        except _RejectedError as error:
            return str(error)
        return None

    def _add_point(self, process: int, metric: otlp.Metric, kind: str, point: Any) -> None:
        if point.flags & _NO_VALUE:
            return
        start, time = point.start_time_unix_nano, point.time_unix_nano
        if not 0 < time <= LAST_TIME or start > time:
            raise _RejectedError("the time of a point is not after its start, or not in this age")
        data: Any = getattr(metric, kind)
        temporality = _DELTA if kind == "gauge" else data.aggregation_temporality
        if temporality not in {_DELTA, _CUMULATIVE}:
            raise _RejectedError("the temporality is not stated")
        value = _value(kind, point)
        series = self._series(process, metric, kind, point, value)
        if kind == "gauge" or (kind == "sum" and not data.is_monotonic):
            # What goes up and down is read by its level; sent as differences it has to be added up.
            level = value + (series.value or 0.0) if kind == "sum" and temporality == _DELTA else value
            series.value = added = level
        elif temporality == _DELTA:
            added = value
            self._add(series, value)
        else:
            added = self._added(series, start, value, (metric.name, kind, start, *_attribute_bytes(point)))
        self._exemplars += _exemplars(series.id, point)
        series.points += 1
        series.first_time = min(time, series.first_time or time)
        series.last_time = max(time, series.last_time or time)
        self._changed[series.id] = series
        columns: tuple[Any, ...] = (added, None, None, None, None, None)
        if isinstance(added, Histogram):
            columns = (None, added.count, added.sum, added.min, added.max, _json(added))
        self._rows.append((series.id, time, min(start, time), *columns))

    def _add(self, series: _Series, value: Any) -> None:
        if isinstance(value, Histogram):
            series.total = value if series.total is None else series.total + value
        else:
            series.value = (series.value or 0.0) + value

    def _added(self, series: _Series, start: int, value: Any, stream: tuple[Any, ...]) -> Any:
        """Return what a cumulative point adds to its series."""
        before: Any = None
        base: Any = None
        if series.before is not None and series.before[0] == start:
            _, before, base = series.before
        elif series.before is None:
            # A forked process goes on with what its parent had counted, from the same start: that is not its own.
            parent = self._inherited.get(stream)
            if parent is not None and parent is not series and parent.before is not None:
                before = parent.before[1]
        else:
            base = series.total if isinstance(value, Histogram) else series.value
        self._inherited.setdefault(stream, series)
        if before is None:
            added = value
        elif isinstance(value, Histogram):
            added = value.minus(before)
        else:
            added = None if value < before else value - before
        if added is None:
            # It has begun anew without saying so.
            added, base = value, series.total if isinstance(value, Histogram) else series.value
        series.before = (start, value, base)
        if (
            isinstance(value, Histogram)
            and before is not None
            and series.total is not None
            and added is not value
        ):
            # The smallest and the largest value are those of the whole, which is all that is known of them.
            total = series.total.without_ends() + added
            series.total = Histogram(
                total.count,
                total.sum,
                _least(value.min, base, min),
                _least(value.max, base, max),
                total.buckets,
            )
        else:
            self._add(series, added)
        return added

    def _series(self, process: int, metric: otlp.Metric, kind: str, point: Any, value: Any) -> _Series:
        bounds = (
            value.buckets.bounds
            if isinstance(value, Histogram) and isinstance(value.buckets, Explicit)
            else None
        )
        key = (process, metric.name, kind, bounds, *_attribute_bytes(point))
        found = self._by_bytes.get(key)
        if found is None:
            if len(self._by_bytes) >= _MOST_SERIES:
                raise _RejectedError(f"there are {_MOST_SERIES} series already")
            found = self._by_bytes[key] = self._new_series(process, metric, kind, point, bounds)
        return found

    def _new_series(
        self, process: int, metric: otlp.Metric, kind: str, point: Any, bounds: tuple[float, ...] | None
    ) -> _Series:
        attributes = attributes_of(point.attributes)
        model = self._origins.model(attributes)
        if model is not None and metric.name == semconv.METRIC_MODEL_INFO.name:
            self._database.execute("UPDATE model SET info = ? WHERE id = ?", (to_json(attributes), model))
        provider = attributes.get(semconv.EXECUTION_PROVIDER)
        if provider is not None and metric.name == semconv.METRIC_INFERENCE_DURATION.name:
            self._database.execute("UPDATE model SET provider = ? WHERE id = ?", (str(provider), model))
        for name in (semconv.MODEL_NAME, semconv.RUNTIME_NAME, semconv.QUANTIZATION_SCHEME):
            attributes.pop(name, None)
        shown = {"sum": "sum" if metric.sum.is_monotonic else "gauge", "exponential_histogram": "exponential"}
        key = (
            process,
            model,
            metric.name,
            shown.get(kind, kind),
            metric.unit,
            to_json(attributes),
            None if bounds is None else json.dumps(bounds),
        )
        found = self._by_text.get(key)
        if found is None:
            done = self._database.execute(
                "INSERT INTO series (process, model, metric, kind, unit, attributes, bounds) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                key,
            )
            found = self._by_text[key] = _Series(done.lastrowid or 0, model)
        return found


def _least(now: float | None, base: Histogram | None, of: Any) -> float | None:
    before = None if base is None or not base.count else (base.min if of is min else base.max)
    return now if before is None or now is None else of(now, before)


def _attribute_bytes(point: Any) -> tuple[bytes, ...]:
    return tuple(pair.SerializeToString() for pair in point.attributes)


def _value(kind: str, point: Any) -> Any:
    if kind == "histogram":
        return _explicit(point)
    if kind == "exponential_histogram":
        return _exponential(point)
    value = float(point.as_int if point.WhichOneof("value") == "as_int" else point.as_double)
    if not math.isfinite(value):
        raise _RejectedError("a value is not finite")
    return value


def _explicit(point: otlp.HistogramDataPoint) -> Histogram:
    bounds, counts = tuple(point.explicit_bounds), tuple(point.bucket_counts)
    if (
        len(bounds) > _MOST_BOUNDS
        or list(bounds) != sorted(set(bounds))
        or not all(map(math.isfinite, bounds))
    ):
        raise _RejectedError("bounds of buckets do not ascend, or are too many")
    if counts and (len(counts) != len(bounds) + 1 or sum(counts) != point.count):
        raise _RejectedError("counts do not fit the bounds, or do not add up")
    return _histogram(point, Explicit(bounds, counts) if counts else None)


def _exponential(point: otlp.ExponentialHistogramDataPoint) -> Histogram:
    if not -10 <= point.scale <= 20:
        raise _RejectedError("the scale is out of range")
    sides = [
        {side.offset + place: count for place, count in enumerate(side.bucket_counts) if count}
        for side in (point.positive, point.negative)
    ]
    if sum(map(len, sides)) > MOST_BUCKETS * 32:
        raise _RejectedError("there are too many buckets")
    if sum(sum(side.values()) for side in sides) + point.zero_count != point.count:
        raise _RejectedError("counts do not add up")
    return _histogram(point, Exponential(point.scale, point.zero_count, sides[0], sides[1]))


def _histogram(point: Any, buckets: Explicit | Exponential | None) -> Histogram:
    least = point.min if point.HasField("min") and point.count else None
    most = point.max if point.HasField("max") and point.count else None
    if point.count > LAST_TIME or not all(
        math.isfinite(value) for value in (point.sum, least or 0.0, most or 0.0)
    ):
        raise _RejectedError("a count or a sum is out of range")
    return Histogram(point.count, point.sum, least, most, buckets)


def _exemplars(series: int, point: Any) -> Iterator[tuple[Any, ...]]:
    for exemplar in getattr(point, "exemplars", ()):
        value = float(exemplar.as_int if exemplar.WhichOneof("value") == "as_int" else exemplar.as_double)
        if len(exemplar.trace_id) == 16 and len(exemplar.span_id) == 8 and math.isfinite(value):
            time = exemplar.time_unix_nano
            yield (series, time if time <= LAST_TIME else 0, value, exemplar.trace_id, exemplar.span_id)
