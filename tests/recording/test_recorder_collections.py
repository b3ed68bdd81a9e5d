"""What a collection takes and reads, with several readers, and after one that was given up."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from exported import Exported

from otel_quantmon import semconv
from otel_quantmon.pipeline import Pipeline
from otel_quantmon.process.host import resident_memory
from otel_quantmon.process.worker import worker
from otel_quantmon.recording.gauges import Gauges
from otel_quantmon.recording.latency import LatencyMonitor, LatencySummary
from otel_quantmon.settings import Settings
from otel_quantmon.telemetry.bulk_histogram import BulkPoint
from recording.engines import INVOKE, engine_of, loaded, run


def test_each_reader_drains_once_a_collection(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readers, in turn and at once, with four threads calling and every value an exemplar: records are taken once
    for each collection and not for each of its metrics; the application's own metrics are in every one of them.
    """
    from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    provider = MeterProvider(readers, shutdown_on_exit=False, exemplar_filter=AlwaysOnExemplarFilter())
    provider.get_meter("application").create_counter("own").add(1)
    pipeline = Pipeline(exported.tracer_provider, provider, Settings(spans="none", warmup=0, queue_size=16))
    drains: list[None] = []
    drain = pipeline.recorder.drain
    monkeypatch.setattr(pipeline.recorder, "drain", lambda: (drains.append(None), drain()))
    engine = engine_of(pipeline)
    over = threading.Event()

    def collect(reader: InMemoryMetricReader) -> dict[str, Any]:
        data = reader.get_metrics_data()
        assert data is not None
        found = {
            metric.name: metric.data.data_points
            for scope in data.resource_metrics[0].scope_metrics
            for metric in scope.metrics
        }
        assert found["own"][0].value == 1
        return found

    def call() -> int:
        calls = 0
        while not over.is_set():
            run(engine)
            calls += 1
        return calls

    with ThreadPoolExecutor(6) as threads:
        calling = [threads.submit(call) for _ in range(4)]
        try:
            for _ in range(5):
                for reader in readers:
                    collect(reader)
            for _ in range(5):
                for collecting in [threads.submit(collect, reader) for reader in readers]:
                    collecting.result(60)
        finally:
            over.set()
        calls = sum(each.result(60) for each in calling)
    assert len(drains) == 20
    assert [collect(reader)["quantmon.inference.duration"][0].count for reader in readers] == [calls] * 2
    assert len(drains) == 22
    provider.shutdown()


def test_a_collection_that_the_sdk_gave_up_is_no_reason_to_miss_the_next(
    pipeline: Pipeline, exported: Exported
) -> None:
    """After a collection that ended in its middle, as at its timeout, the next one takes what waits again."""
    engine = engine_of(pipeline)
    report = Gauges(pipeline)
    for metrics in (
        (semconv.METRIC_INFERENCE_ACTIVE, semconv.METRIC_MODEL_INFO),
        (semconv.METRIC_MODEL_INFO,),
    ):
        run(engine)
        for metric in metrics:
            list(report.measure(metric))
        state = engine._quantmon_probe.states[INVOKE]
        assert state is not None
        assert state.records == state.durations == []


def test_what_an_interrupted_collection_was_to_report_is_reported_by_the_next(
    pipeline: Pipeline, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts, exemplars and withheld spans wait for it, also where no call comes any more."""
    engine = engine_of(pipeline, spans="auto", span_budget=1e-9)
    run(engine)
    exported.raw_metrics()
    assert worker.flush(60)
    with exported.tracer.start_as_current_span("request"):
        run(engine)
    run(engine)
    report = BulkPoint.report

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BulkPoint, "report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exported.collect()
    monkeypatch.setattr(BulkPoint, "report", report)
    metrics = exported.points_by_name()
    (duration,) = metrics["quantmon.inference.duration"]
    assert duration.count == 3
    assert len(duration.exemplars) == 1
    (withheld,) = metrics["quantmon.spans.suppressed"]
    assert withheld.value == 2


def test_a_collection_reads_windows_and_memory_once_and_one_model_at_a_time(
    pipeline: Pipeline, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two metrics come from each window, none from the process's memory; no caller waits for more than one."""
    engines = [engine_of(pipeline, loaded(f"net{i}")) for i in range(3)]
    for engine in engines:
        run(engine)
    exported.raw_metrics()
    read: list[int] = []
    under_one_lock: list[int] = []
    lock = pipeline.recorder.lock

    class Counting:
        """The lock itself, and how many windows are read while it is held."""

        def __enter__(self) -> None:
            lock.acquire()
            under_one_lock.append(0)

        def __exit__(self, *_: object) -> None:
            lock.release()

        def __getattr__(self, name: str) -> Any:
            return getattr(lock, name)

    def summary(watching: LatencyMonitor, now: int) -> LatencySummary | None:
        assert lock._is_owned(), "a caller may be adding to the window"
        read.append(id(watching))
        under_one_lock[-1] += 1
        return of_window(watching, now)

    def resident() -> int:
        read.append(0)
        return resident_memory()

    of_window = LatencyMonitor.summary
    monkeypatch.setattr(LatencyMonitor, "summary", summary)
    monkeypatch.setattr("otel_quantmon.recording.gauges.resident_memory", resident)
    monkeypatch.setattr(pipeline.recorder, "lock", Counting())
    assert len(exported.points("quantmon.inference.window.duration")) == 3 * 4
    assert sorted(read) == sorted(id(e._quantmon_probe.states[INVOKE].series.latency) for e in engines)
    assert max(under_one_lock) == 1
