"""From finished calls to metrics: no count is lost or made up, and nothing is kept of models that are gone."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns
from typing import Any

import pytest
from exported import Exported

from otel_quantmon.models.description import IO
from otel_quantmon.models.formats.facts import TensorFacts
from otel_quantmon.pipeline import Pipeline
from otel_quantmon.process.worker import worker
from recording.engines import INVOKE, engine_of, loaded, run


def test_threads_queues_and_collections_lose_no_call(pipeline: Pipeline, exported: Exported) -> None:
    """Callers that empty a full queue themselves and a reader that collects all the time add up exactly."""
    engines = [engine_of(pipeline, loaded(f"net{i % 4}")) for i in range(8)]
    over = threading.Event()

    def work() -> None:
        for _ in range(300):
            for engine in engines:
                run(engine)

    def collect() -> int:
        collections = 0
        while not over.is_set():
            exported.raw_metrics()
            collections += 1
        return collections

    with ThreadPoolExecutor(9) as threads:
        collecting = threads.submit(collect)
        for working in [threads.submit(work) for _ in range(8)]:
            working.result(60)
        over.set()
        assert collecting.result(60) > 0
    assert [exported.count(model_name=f"net{i}") for i in range(4)] == [8 * 300 * 2] * 4
    assert {point.value for point in exported.points("quantmon.inference.active")} == {0}


def test_a_queue_is_emptied_by_its_callers_before_any_collection(pipeline: Pipeline) -> None:
    """With a reader that never reads, what waits stays bounded."""
    engine = engine_of(pipeline)
    run(engine)
    # While the worker has to do with them, a caller leaves records where they are. So it has something else to do.
    busy, over = threading.Event(), threading.Event()
    worker.submit(lambda: (busy.set(), over.wait(60)))
    assert busy.wait(60)
    for _ in range(1000):
        run(engine)
    over.set()
    state = engine._quantmon_probe.states[INVOKE]
    assert state is not None
    assert len(state.durations) < pipeline.recorder.limit
    assert state.series.calls >= 1000 - pipeline.recorder.limit


def test_what_a_model_leaves_behind_is_counted_and_then_forgotten(
    pipeline: Pipeline, exported: Exported
) -> None:
    """A model that goes with calls waiting: they are in the next collection, its state and windows are not kept."""
    engine = engine_of(pipeline)
    for _ in range(5):
        run(engine)
    del engine
    gc.collect()
    assert exported.count() == 5
    gc.collect()
    assert list(pipeline.recorder._pending) == []
    assert pipeline.live_series() == []
    assert exported.count() == 5


def test_a_call_that_ends_while_its_session_is_made_anew_is_counted(
    pipeline: Pipeline, exported: Exported
) -> None:
    """A collection may come where it is no longer in flight and not recorded yet, and its state is to be forgotten."""
    engine = engine_of(pipeline)
    for _ in range(5):
        run(engine)
    state = engine._quantmon_probe.states[INVOKE]
    assert state is not None
    engine._quantmon_probe.reload(loaded("other"))
    assert exported.count() == 5
    # As the call's thread does when it goes on.
    state.ends.append(perf_counter_ns())
    state.durations.append(1000)
    assert exported.count() == 6
    assert exported.count() == 6
    assert list(pipeline.recorder._pending) == []


def test_lanes_of_models_that_went_are_not_kept_without_a_collection(pipeline: Pipeline) -> None:
    """A process that loads and drops models, and whose reader never comes, does not grow by them."""
    for _ in range(2000):
        run(engine_of(pipeline))
    assert len(pipeline.recorder._pending) < 600


def test_sizes_and_batches_add_up(pipeline: Pipeline, exported: Exported) -> None:
    """Bytes of outputs are a running total; io is that of the last call; a batch is a value of its histogram."""
    tensors = (TensorFacts("x", "float32", (4, 3)),)
    engine = engine_of(pipeline, loaded(inputs=tensors, outputs=tensors, batch_input="x", io=IO(4, 48, 48)))
    for _ in range(10):
        run(engine)
    assert exported.point("quantmon.memory.allocated").value == 480
    assert exported.point("quantmon.memory.usage", memory_type="io").value == 96
    batches = exported.point("quantmon.inference.batch_size")
    assert (batches.count, batches.sum, batches.min, batches.max) == (10, 40, 4, 4)


def test_a_failing_instrument_costs_its_own_records_alone(
    pipeline: Pipeline, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the meter of a third party raises stops neither the caller nor what comes after."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    engine = engine_of(pipeline)

    def raising(*_: Any) -> None:
        raise OSError("the meter's own trouble")

    with monkeypatch.context() as fault:
        # The SDK's histogram does not raise: the fault of a third party's has to be put in its place.
        fault.setattr(type(pipeline.providers.instruments.duration), "record_many", raising)
        run(engine)
        exported.raw_metrics()
    run(engine)
    assert exported.count() == 1


def test_what_a_child_inherits_is_not_counted_again(pipeline: Pipeline, exported: Exported) -> None:
    """After `forget`, which a fork's child calls, only the child's own calls are reported."""
    engine = engine_of(pipeline)
    run(engine)
    pipeline.after_fork()
    run(engine)
    assert exported.count() == 1


def test_growth_needs_calls_between_its_judgements(pipeline: Pipeline, exported: Exported) -> None:
    """The slope is there after five blocks of calls, as bytes per call; collections have no part in it."""
    engine = engine_of(pipeline)
    for number in range(25):
        assert exported.points("quantmon.memory.growth") == []
        for _ in range(40):
            run(engine)
        pipeline.judging.run()
        assert (number < 24) == (exported.points("quantmon.memory.growth") == [])
    point = exported.point("quantmon.memory.growth")
    assert type(point.value) is float


def test_memory_is_watched_on_when_a_model_has_gone(pipeline: Pipeline, exported: Exported) -> None:
    """The calls of a model that is unloaded still count: blocks go on with those of the other, and are of it alone."""
    stays, goes = engine_of(pipeline, loaded("stays")), engine_of(pipeline, loaded("goes"))
    increments = pipeline.monitor._memory._increments
    for _ in range(10):
        for engine, calls in (goes, 2000), (stays, 20):
            for _ in range(calls):
                run(engine)
        pipeline.judging.run()
    seen = len(increments)
    assert sum(one.calls["goes"] for one in increments) > 2000
    del engine, goes
    gc.collect()
    exported.raw_metrics()
    assert [one.key[0] for one in pipeline.live_series()] == ["stays"]
    for _ in range(20):
        for _ in range(40):
            run(stays)
        pipeline.judging.run()
    assert len(increments) >= seen + 3
    assert set(increments[-1].calls) == {"stays"}


def test_overhead_is_counted_by_where_it_arises(pipeline: Pipeline, exported: Exported) -> None:
    """Around the calls, in draining and in collections: never less than at the collection before."""
    engine = engine_of(pipeline)
    phases = ("call", "drain", "collect")
    run(engine)
    before = [exported.point("quantmon.overhead.duration", phase=phase).value for phase in phases]
    for _ in range(100):
        run(engine)
    after = [exported.point("quantmon.overhead.duration", phase=phase).value for phase in phases]
    assert all(0 < earlier < later for earlier, later in zip(before, after, strict=True))


def test_no_overhead_is_counted_twice(pipeline: Pipeline, exported: Exported) -> None:
    """What a collection drains is no part of its own share, and what a judgement takes none of the worker's."""
    engine = engine_of(pipeline)
    run(engine)
    exported.raw_metrics()
    state = engine._quantmon_probe.states[INVOKE]
    assert state is not None
    recorder = pipeline.recorder

    def drained(begin: Callable[[], object], counted: Callable[[], int]) -> tuple[int, int, int]:
        """Nanoseconds that ``begin`` took with many calls waiting, and by how much the two shares have grown."""
        now = perf_counter_ns()
        state.ends += range(now, now + 200_000)
        state.durations += range(200_000)
        before = recorder.drain_overhead, counted()
        started = perf_counter_ns()
        begin()
        took = perf_counter_ns() - started
        return took, recorder.drain_overhead - before[0], counted() - before[1]

    took, draining, collecting = drained(exported.raw_metrics, lambda: pipeline.collect_overhead)
    assert 0 < draining <= took - collecting

    def judge() -> None:
        worker.submit(pipeline.judging.run)
        assert worker.flush(60)

    assert worker.flush(60)
    took, draining, working = drained(judge, lambda: worker.busy)
    assert 0 < draining <= took - working
