"""What is sent is in the file as `schema` says, and counts once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from otel_quantmon import semconv
from otel_quantmon.desk import queries
from otel_quantmon.desk.histogram import Explicit, Histogram
from otel_quantmon.desk.ingest import Outcome
from otel_quantmon.desk.schema import open_reader
from otel_quantmon.desk.store import Store

from .otlp import BEGAN, CUMULATIVE, DELTA, PROTOBUF, SECOND, anomaly, durations, number, put, traces
from .stored import DURATION, total

Send = Callable[..., list[Any]]


def test_a_span_is_whole(read: sqlite3.Connection, send: Send) -> None:
    """Every field comes back as it was sent, attributes of a model's identity included."""
    request = traces(1, attributes={"quantmon.batch.size": 4, "error.type": "ValueError"})
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.parent_span_id = b"parentid"
    span.status.code, span.status.message = 2, "ValueError: no"
    event = span.events.add()
    event.name, event.time_unix_nano = "exception", BEGAN
    put(event.attributes, {"exception.type": "ValueError"})
    assert send(request) == [Outcome(1)]
    (model,) = queries.models(read)
    assert (model.name, model.runtime, model.scheme) == ("net", "onnxruntime", "qdq")
    (found,) = queries.slowest(read, model.id)
    assert found == queries.Span(
        id=1,
        trace_id="0" * 31 + "1",
        span_id="0" * 15 + "1",
        parent_id=b"parentid".hex(),
        process=1,
        model="net",
        name="inference net",
        kind=0,
        scope="otel_quantmon",
        operation="run",
        start=BEGAN + SECOND,
        duration=0.001,
        status=2,
        error_type="ValueError",
        message="ValueError: no",
        attributes={
            "quantmon.model.name": "net",
            "quantmon.runtime.name": "onnxruntime",
            "quantmon.quantization.scheme": "qdq",
            "quantmon.operation.name": "run",
            "quantmon.batch.size": 4,
            "error.type": "ValueError",
        },
        events=[{"time": BEGAN, "name": "exception", "attributes": {"exception.type": "ValueError"}}],
    )
    assert queries.span(read, found.trace_id, found.span_id) == found
    assert queries.trace(read, found.trace_id) == [found]
    assert queries.spans_failed(read, model.id) == [found]


def test_spans_share_what_they_have_in_common(read: sqlite3.Connection, send: Send) -> None:
    """A thousand spans with two sets of attributes are a thousand short rows and two long ones."""
    send(traces(500), traces(500, first=501, attributes={"quantmon.warmup": True}))
    assert read.execute("SELECT count(*) FROM span").fetchone()[0] == 1000
    assert read.execute("SELECT count(*) FROM content").fetchone()[0] == 2


def test_spans_of_other_instrumentations_are_kept_without_a_model(
    read: sqlite3.Connection, send: Send
) -> None:
    """The request around an inference is part of its trace, and no inference."""
    request = traces(1)
    scope = request.resource_spans[0].scope_spans.add()
    scope.scope.name = "opentelemetry.instrumentation.flask"
    outer = scope.spans.add()
    outer.CopyFrom(request.resource_spans[0].scope_spans[0].spans[0])
    outer.name, outer.span_id = "GET /", b"8" * 8
    send(request)
    assert [(span.name, span.model) for span in queries.trace(read, "0" * 31 + "1")] == [
        ("inference net", "net"),
        ("GET /", None),
    ]


def test_differences_add_up(read: sqlite3.Connection, send: Send) -> None:
    """Points of delta temporality: counts, sum, smallest and largest over the run, and each point by itself."""
    send(
        durations([1, 2, 3], 1, ends=(0.0005, 0.5), total=1.0),
        durations([4, 0, 0], 2, start=1, ends=(0.0001, 0.0009), total=0.5),
    )
    assert total(read) == Histogram(10, 1.5, 0.0001, 0.5, Explicit((0.001, 0.002), (5, 2, 3)))
    (model,) = queries.models(read)
    found = queries.intervals(read, DURATION, model.id, BEGAN, 1.0)
    assert [(interval.time - BEGAN, interval.values.count) for interval in found] == [
        (SECOND, 6),
        (2 * SECOND, 4),
    ]


def test_cumulative_points_become_differences(read: sqlite3.Connection, send: Send) -> None:
    """The total is the last point; a start of another time begins anew and adds to what was."""
    cumulative: dict[str, Any] = {"temporality": CUMULATIVE}
    send(
        durations([1, 0, 0], 1, ends=(0.0005, 0.0005), total=1.0, **cumulative),
        durations([1, 2, 0], 2, ends=(0.0005, 0.002), total=2.0, **cumulative),
        durations([1, 2, 0], 3, ends=(0.0005, 0.002), total=2.0, **cumulative),
        durations([0, 0, 7], 5, start=4, ends=(0.3, 0.4), total=3.0, **cumulative),
    )
    assert total(read) == Histogram(10, 5.0, 0.0005, 0.4, Explicit((0.001, 0.002), (1, 2, 7)))
    rows = read.execute("SELECT count FROM point ORDER BY time").fetchall()
    assert [row["count"] for row in rows] == [1, 2, 0, 7]


def test_a_forked_process_is_not_charged_with_what_its_parent_counted(
    read: sqlite3.Connection, send: Send
) -> None:
    """A child goes on with its parent's cumulative total, from the same start: only what it adds is its own."""
    send(
        durations([5, 0, 0], 1, temporality=CUMULATIVE),
        durations([5, 2, 0], 2, temporality=CUMULATIVE, process="child"),
        durations([5, 3, 0], 3, temporality=CUMULATIVE, process="child"),
        durations([6, 0, 0], 3, temporality=CUMULATIVE),
    )
    assert total(read).buckets == Explicit((0.001, 0.002), (6, 3, 0))


def test_processes_are_told_apart_and_added(read: sqlite3.Connection, send: Send) -> None:
    """Two processes with the same model make one model, two series and one sum."""
    send(durations([1, 0, 0], 1), durations([2, 0, 0], 1, process="two"))
    assert total(read).count == 3
    assert [process.instance for process in queries.processes(read)] == ["one", "two"]


@pytest.mark.parametrize(
    ("kind", "temporality", "monotonic", "value"),
    [("gauge", None, True, 7.0), ("sum", CUMULATIVE, True, 7.0), ("sum", DELTA, True, 12.0)],
)
def test_what_a_number_reads(
    read: sqlite3.Connection, send: Send, kind: str, temporality: Any, monotonic: bool, value: float
) -> None:
    """5 and then 7: the last value of a gauge, the last total of a cumulative sum, the sum of differences."""
    for time, sent in ((1, 5.0), (2, 7.0)):
        send(
            number("quantmon.anomalies", sent, time, kind=kind, temporality=temporality, monotonic=monotonic)
        )
    (model,) = queries.models(read)
    (found,) = queries.readings(read, semconv.METRIC_ANOMALIES, model.id)
    assert found.value == value


@pytest.mark.parametrize(("temporality", "level"), [(CUMULATIVE, 2.0), (DELTA, 5.0)])
def test_what_goes_up_and_down_is_read_by_its_level(
    read: sqlite3.Connection, send: Send, temporality: Any, level: float
) -> None:
    """A sum that is not monotonic: 3 and then 2 is 2, or 5 where those are differences."""
    for time, sent in ((1, 3.0), (2, 2.0)):
        request = number(
            "quantmon.memory.usage",
            sent,
            time,
            kind="sum",
            temporality=temporality,
            monotonic=False,
            memory_type="io",
        )
        send(request)
    (model,) = queries.models(read)
    (found,) = queries.readings(read, semconv.METRIC_MEMORY_USAGE, model.id)
    assert (found.value, found.attributes) == (level, {"quantmon.memory.type": "io"})


def test_a_gauge_that_ended_is_not_read(read: sqlite3.Connection, send: Send) -> None:
    """The model of a process that went a minute ago has no drift any more."""
    send(
        number("quantmon.inference.duration.drift", 9.0, 1, process="gone"),
        number("quantmon.inference.duration.drift", 0.1, 61),
    )
    (model,) = queries.models(read)
    assert [r.value for r in queries.readings(read, semconv.METRIC_INFERENCE_DURATION_DRIFT, model.id)] == [
        0.1
    ]


def test_events_are_kept_and_other_logs_are_not(read: sqlite3.Connection, send: Send) -> None:
    """An anomaly is an event of its model; what the application logs is accepted and left alone."""
    assert send(anomaly(1, "latency_drift"), anomaly(2, "x", name="user.login")) == [
        Outcome(1),
        Outcome(0, 1),
    ]
    (found,) = queries.events(read)
    assert (found.model, found.name, found.attributes["quantmon.anomaly.type"], found.body) == (
        "net",
        "quantmon.anomaly.entered",
        "latency_drift",
        "net is slower",
    )


@pytest.mark.parametrize(
    ("named", "concerned"), [(["other", "net"], True), ([], True), (None, True), (["other"], False)]
)
def test_an_event_is_of_each_model_that_it_names(
    named: list[str] | None, concerned: bool, read: sqlite3.Connection, send: Send
) -> None:
    """A fault of the host is one event that has no model of its own; one that names none is of the process."""
    send(anomaly(1, "latency_drift"))
    event = anomaly(2, "memory_growth")
    record = event.resource_logs[0].scope_logs[0].log_records[0]
    kept = [each for each in record.attributes if each.key == semconv.ANOMALY_TYPE]
    del record.attributes[:]
    record.attributes.extend(kept)
    if named is not None:
        models = record.attributes.add(key=semconv.ANOMALY_MODELS)
        models.value.array_value.SetInParent()
        for name in named:
            models.value.array_value.values.add(string_value=name)
    send(event)
    (model,) = queries.models(read)
    kinds = [found.attributes[semconv.ANOMALY_TYPE] for found in queries.events(read, model.id)]
    assert kinds == (["memory_growth"] if concerned else []) + ["latency_drift"]


def test_a_request_that_is_sent_again_counts_once(read: sqlite3.Connection, send: Send) -> None:
    """An exporter whose answer was lost repeats itself: same bytes, same calls."""
    request = durations([1, 1, 1], 1)
    send(request, request)
    assert total(read).count == 3
    assert queries.facts(read)["duplicate_requests"] == 1


def test_the_newest_stay_and_totals_are_exact(small_store: Store) -> None:
    """Beyond the limit the oldest spans and points go; what they added up to does not."""
    database = open_reader(small_store.path)
    for first in range(1, 1001, 50):
        small_store.submit("traces", PROTOBUF, traces(50, first=first).SerializeToString())
        small_store.submit(
            "metrics", PROTOBUF, durations([first, 0, 0], first, start=first - 1).SerializeToString()
        )
    for time in range(2000, 2200):
        done = small_store.submit("metrics", PROTOBUF, durations([1, 0, 0], time).SerializeToString())
    done.result(60)
    small_store.note(last=True)
    assert total(database).count == sum(range(1, 1001, 50)) + 200
    (spans, newest) = database.execute("SELECT count(*), max(start) FROM span").fetchone()
    assert 100 <= spans <= 150
    assert newest == BEGAN + 1000 * SECOND
    assert database.execute("SELECT count(*) FROM point").fetchone()[0] <= 107
    facts = queries.facts(database)
    assert facts["accepted_spans"] == 1000 == facts["pruned_spans"] + spans
    database.close()


def test_a_trace_is_found_in_any_part_of_the_index(
    read: sqlite3.Connection, store: Store, send: Send
) -> None:
    """Spans of a trace that were written far apart are one trace, and no query reads all spans to find one."""
    count = 2**14
    send(traces(count), traces(count, first=count + 1), traces(3, first=2 * count + 1))
    request = traces(1, first=2 * count + 4)
    (span,) = request.resource_spans[0].scope_spans[0].spans
    span.trace_id = (5).to_bytes(16, "big")
    send(request)
    wanted = (5).to_bytes(16, "big").hex()
    ids = [5, 2 * count + 4]
    assert [found.span_id for found in queries.trace(read, wanted)] == [f"{found:016x}" for found in ids]
    for nth in (1, count - 1, count, count + 1, 2 * count + 3):
        found = queries.span(read, f"{nth:032x}", f"{nth:016x}")
        assert found is not None
        assert found.start == BEGAN + nth * SECOND
    assert queries.span(read, f"{7:032x}", f"{8:016x}") is None
    asked: list[str] = []
    database = open_reader(store.path)
    database.set_trace_callback(asked.append)
    queries.trace(database, wanted)
    queries.span(database, wanted, f"{5:016x}")
    database.set_trace_callback(None)
    plans = [
        row["detail"]
        for statement in asked
        if "content.name" in statement
        for row in database.execute(f"EXPLAIN QUERY PLAN {statement}")
        if " span " in row["detail"]
    ]
    database.close()
    assert len(plans) == 2
    assert all("USING INDEX span_by_trace" in plan for plan in plans), plans
