"""From metric points to rows: series, what each collection added to them, and their totals over the run.

Cumulative sums and histograms become differences, so that both temporalities read alike and a total survives a process
that starts anew. https://opentelemetry.io/docs/specs/otel/metrics/data-model/ says what the points mean.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp

from otel_quantmon import semconv
from otel_quantmon.desk.histogram import MOST_BUCKETS, Explicit, Exponential, Histogram, from_row
from otel_quantmon.desk.ingest import LAST_TIME, Origins, Outcome, insert
from otel_quantmon.desk.messages import attributes_of, to_json

__all__ = ["Metrics"]

_PREFIX = "quantmon."
# Attributes of metrics are bounded, by the instrumentation and by the SDK's limit of 2,000 points for an instrument.
# This is the most of one process, and about as many are held in memory, of the processes heard last.
_MOST_SERIES = 50_000
_MOST_BOUNDS = 10_000
_MOST_STARTS = 1_000
_DELTA, _CUMULATIVE = otlp.AGGREGATION_TEMPORALITY_DELTA, otlp.AGGREGATION_TEMPORALITY_CUMULATIVE
_NO_VALUE = otlp.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_POINT = ("series", "time", "start", "value", "count", "sum", "min", "max", "buckets")
_EXEMPLAR = ("series", "time", "value", "trace_id", "span_id")


class _RejectedError(ValueError):
    """A point that means nothing; the message says why."""


class _Series:
    """A series and its total so far. What is cumulative is kept as it came, to be subtracted from what comes next."""

    __slots__ = ("before", "first_time", "id", "last_time", "model", "points", "total", "value")

    def __init__(self, found: int, model: int | None) -> None:
        self.id = found
        self.model = model
        self.first_time: int | None = None
        self.last_time: int | None = None
        self.points = 0
        self.value: float | None = None
        self.total: Histogram | None = None
        # Time and value of the last cumulative point of each start: processes that say the same of themselves share a
        # series, and differ in when they began. The first is the one that was not heard of for the longest time.
        self.before: dict[int, tuple[int, Any]] = {}

    def row(self) -> tuple[Any, ...]:
        """For the statement that writes the total."""
        found = self.total
        columns = (
            (None,) * 5 if found is None else (found.count, found.sum, found.min, found.max, _json(found))
        )
        return (self.first_time, self.last_time, self.points, self.value, *columns, self.id)


def _json(found: Histogram) -> str | None:
    return None if found.buckets is None else found.buckets.to_json()


class _Known:
    """The series of one process, by the bytes of their points' attributes and by what the rows have in common."""

    __slots__ = ("by_bytes", "by_text")

    def __init__(self) -> None:
        self.by_bytes: dict[tuple[Any, ...], _Series] = {}
        self.by_text: dict[tuple[Any, ...], _Series] = {}


class Metrics:
    """Takes metric points. For the writer's thread alone."""

    def __init__(self, database: sqlite3.Connection, origins: Origins) -> None:
        self._database = database
        self._origins = origins
        # By process, the one heard last at the end.
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._forgotten: set[int] = set()
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
            self._known.setdefault(process, _Known())
            self._known.move_to_end(process)
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
                    elif not wrong:
                        other += 1
                    else:
                        rejected += 1
                        message = message or f"{metric.name}: {wrong}"
        # What cannot be inserted is not tried again with the next request.
        rows, self._rows = self._rows, []
        exemplars, self._exemplars = self._exemplars, []
        insert(self._database, "point", _POINT, rows)
        insert(self._database, "exemplar", _EXEMPLAR, exemplars)
        return Outcome(kept, other, rejected, message)

    def write_totals(self) -> None:
        """Write the totals of the series that have changed."""
        self._database.executemany(
            "UPDATE series SET first_time = ?, last_time = ?, points = ?, value = ?, count = ?, sum = ?, min = ?, "
            "max = ?, buckets = ? WHERE id = ?",
            [series.row() for series in self._changed.values()],
        )
        self._changed.clear()
        self._forget()

    def _forget(self) -> None:
        """Leave no more in memory than may be: processes end, and one that is heard again is read from its rows."""
        held = sum(len(known.by_bytes) for known in self._known.values())
        while held > _MOST_SERIES and len(self._known) > 1:
            process, known = self._known.popitem(last=False)
            self._forgotten.add(process)
            held -= len(known.by_bytes)
        if len(self._inherited) > _MOST_SERIES:
            self._inherited.clear()

    def _take(self, process: int, metric: otlp.Metric, kind: str, point: Any) -> str | None:
        """Take one point; what is wrong with it if it means nothing, and no text if nothing is new in it."""
        try:
            return None if self._add_point(process, metric, kind, point) else ""
        except _RejectedError as error:
            return str(error)

    def _add_point(self, process: int, metric: otlp.Metric, kind: str, point: Any) -> bool:
        """Take one point; False if there is nothing in it to keep."""
        if point.flags & _NO_VALUE:
            return False
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
            added = self._added(
                series, start, time, value, (metric.name, kind, start, *_attribute_bytes(point))
            )
            if added is None:
                return False
        self._exemplars += _exemplars(series.id, point)
        series.points += 1
        series.first_time = min(time, series.first_time or time)
        series.last_time = max(time, series.last_time or time)
        self._changed[series.id] = series
        columns: tuple[Any, ...] = (added, None, None, None, None, None)
        if isinstance(added, Histogram):
            columns = (None, added.count, added.sum, added.min, added.max, _json(added))
        self._rows.append((series.id, time, min(start, time), *columns))
        return True

    def _add(self, series: _Series, added: Any, whole: Any = None) -> None:
        """Add to the total. ``whole`` is the cumulative point of which ``added`` is a part."""
        if not isinstance(added, Histogram):
            series.value = (series.value or 0.0) + added
            return
        before = series.total
        total = added if before is None else before + added
        if total.count > LAST_TIME:
            raise _RejectedError("the count of the whole run is out of range")
        if whole is not None and before is not None:
            # The smallest and the largest value are those of the whole, which is all that is known of them.
            least, most = _least(whole.min, before, min), _least(whole.max, before, max)
            total = replace(total, min=least, max=most)
        series.total = total

    def _added(self, series: _Series, start: int, time: int, value: Any, stream: tuple[Any, ...]) -> Any:
        """Return what a cumulative point adds to its series; None if a later one has told it already."""
        known = series.before.get(start)
        parent = self._inherited.setdefault(stream, series)
        if known is None and parent is not series:
            # A forked process goes on with what its parent had counted, from the same start: that is not its own.
            _, before = parent.before.get(start, (0, None))
        else:
            _, before = known or (0, None)
        added = value if before is None else _difference(value, before)
        if added is None and known is not None and time <= known[0]:
            return None
        if added is None or added is value:
            # The first one, or it has begun anew without saying so.
            added = value
            self._add(series, value)
        else:
            self._add(series, added, value if isinstance(value, Histogram) else None)
        series.before.pop(start, None)
        # A clock may have been set back.
        series.before[start] = (time if known is None else max(time, known[0]), value)
        if len(series.before) > _MOST_STARTS:
            del series.before[next(iter(series.before))]
        return added

    def _series(self, process: int, metric: otlp.Metric, kind: str, point: Any, value: Any) -> _Series:
        bounds = (
            value.buckets.bounds
            if isinstance(value, Histogram) and isinstance(value.buckets, Explicit)
            else None
        )
        known = self._known[process]
        key = (metric.name, kind, bounds, *_attribute_bytes(point))
        found = known.by_bytes.get(key)
        if found is None:
            if len(known.by_bytes) >= _MOST_SERIES:
                raise _RejectedError(f"its process has {_MOST_SERIES:,} series already, and no more are kept")
            found = known.by_bytes[key] = self._new_series(process, metric, kind, point, bounds)
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
        by_text = self._known[process].by_text
        found = by_text.get(key)
        if found is None and process in self._forgotten:
            found = self._read(key)
        if found is None:
            done = self._database.execute(
                "INSERT INTO series (process, model, metric, kind, unit, attributes, bounds) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                key,
            )
            found = _Series(done.lastrowid or 0, model)
        by_text[key] = found
        return found

    def _read(self, key: tuple[Any, ...]) -> _Series | None:
        """Return a series from its row, None if there is none yet."""
        cursor = self._database.execute(
            "SELECT * FROM series WHERE process = ? AND model IS ? AND metric = ? AND kind = ? AND unit = ? "
            "AND attributes = ? AND bounds IS ?",
            key,
        )
        values = cursor.fetchone()
        if values is None:
            return None
        row = {name: value for (name, *_), value in zip(cursor.description, values, strict=True)}
        series = _Series(row["id"], row["model"])
        series.first_time, series.last_time = row["first_time"], row["last_time"]
        series.points, series.value = row["points"], row["value"]
        if row["count"] is not None:
            series.total = from_row(row, row["kind"], row["bounds"])
        last = "SELECT start FROM point WHERE series = ? ORDER BY time DESC LIMIT 1"
        for (start,) in self._database.execute(last, (series.id,)):
            # What is cumulative had come to the total, unless its process had begun anew.
            series.before[start] = (row["last_time"], series.total or series.value)
        return series


def _difference(now: Any, then: Any) -> Any:
    """What was added since ``then``; None if it has begun anew."""
    if isinstance(now, Histogram):
        return now.minus(then)
    return None if now < then else now - then


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
