"""From finished calls to metrics: no count is lost or made up, and nothing is kept of models that are gone."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from exported import Exported

from otel_quantmon.formats.facts import TensorFacts
from otel_quantmon.hooks import NO_HOOKS
from otel_quantmon.probe.call import observed
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.loaded import IO, LoadedModel, Method, declared_shapes
from otel_quantmon.probe.observer import Observer
from otel_quantmon.probe.probe import Probe
from otel_quantmon.settings import Settings

INVOKE = Method("invoke", None, declared_shapes)


class Engine:
    """The smallest runtime there is: its models do nothing."""

    _quantmon_probe: Probe

    def invoke(self) -> None:
        return None


def lane_of(engine: Engine, method: Method) -> Lane | None:
    return engine._quantmon_probe.lane(method)


run: Callable[[Engine], None] = observed(Engine.invoke, INVOKE, lane_of)


def loaded(name: str = "net", **facts: Any) -> LoadedModel:
    return LoadedModel(runtime="tflite", runtime_version="1", provider="CPU", label=name, **facts)


@pytest.fixture
def observer(exported: Exported) -> Observer:
    """Of calls that get no span, in short queues."""
    return observer_with(exported, spans="none", warmup=0, queue_size=16)


def observer_with(exported: Exported, **settings: Any) -> Observer:
    return Observer(exported.tracer_provider, exported.meter_provider, Settings(**settings))


def engine_of(observer: Observer, model: LoadedModel | None = None, **settings: Any) -> Engine:
    engine = Engine()
    chosen = Settings(**({"spans": "none", "warmup": 0} | settings))
    engine._quantmon_probe = Probe(engine, model or loaded(), observer, chosen, NO_HOOKS)
    observer.add(engine._quantmon_probe)
    return engine


def test_threads_queues_and_collections_lose_no_call(observer: Observer, exported: Exported) -> None:
    """Callers that empty a full queue themselves and a reader that collects all the time add up exactly."""
    engines = [engine_of(observer, loaded(f"net{i % 4}")) for i in range(8)]
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


def test_a_queue_is_emptied_by_its_callers_before_any_collection(observer: Observer) -> None:
    """With a reader that never reads, what waits stays bounded."""
    engine = engine_of(observer)
    for _ in range(1000):
        run(engine)
    lane = engine._quantmon_probe.lanes[INVOKE]
    assert lane is not None
    assert len(lane.durations) < observer.queue_size
    assert lane.series.calls >= 1000 - observer.queue_size


def test_what_a_model_leaves_behind_is_counted_and_then_forgotten(
    observer: Observer, exported: Exported
) -> None:
    """A model that goes with calls waiting: they are in the next collection, its lane and windows are not kept."""
    engine = engine_of(observer)
    for _ in range(5):
        run(engine)
    del engine
    gc.collect()
    assert exported.count() == 5
    gc.collect()
    assert observer.recorder._lanes == []
    assert observer.live_series() == []
    assert exported.count() == 5


def test_lanes_of_models_that_went_are_not_kept_without_a_collection(observer: Observer) -> None:
    """A process that loads and drops models, and whose reader never comes, does not grow by them."""
    for _ in range(2000):
        run(engine_of(observer))
    assert len(observer.recorder._lanes) < 600


def test_sizes_and_batches_add_up(observer: Observer, exported: Exported) -> None:
    """Bytes of outputs are a running total; io is that of the last call; a batch is a value of its histogram."""
    tensors = (TensorFacts("x", "float32", (4, 3)),)
    engine = engine_of(observer, loaded(inputs=tensors, outputs=tensors, batch_input="x", io=IO(4, 48, 48)))
    for _ in range(10):
        run(engine)
    assert exported.point("quantmon.memory.allocated").value == 480
    assert exported.point("quantmon.memory.usage", memory_type="io").value == 96
    batches = exported.point("quantmon.inference.batch_size")
    assert (batches.count, batches.sum, batches.min, batches.max) == (10, 40, 4, 4)


def test_a_failing_instrument_costs_its_own_records_alone(
    observer: Observer, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the meter of a third party raises stops neither the caller nor what comes after."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    engine = engine_of(observer)

    def raising(*_: Any) -> None:
        raise OSError("the meter's own trouble")

    with monkeypatch.context() as fault:
        # The SDK's histogram does not raise: the fault of a third party's has to be put in its place.
        fault.setattr(type(observer.instruments.duration), "record_many", raising)
        run(engine)
        exported.raw_metrics()
    run(engine)
    assert exported.count() == 1


def test_what_a_child_inherits_is_not_counted_again(observer: Observer, exported: Exported) -> None:
    """After `forget`, which a fork's child calls, only the child's own calls are reported."""
    engine = engine_of(observer)
    run(engine)
    observer.after_fork()
    run(engine)
    assert exported.count() == 1


def test_growth_needs_calls_between_its_collections(observer: Observer, exported: Exported) -> None:
    """The slope is there from the fifth collection with new calls on, as bytes per call."""
    engine = engine_of(observer)
    for _ in range(4):
        run(engine)
        assert exported.points("quantmon.memory.growth") == []
    run(engine)
    point = exported.point("quantmon.memory.growth")
    assert type(point.value) is float


def test_overhead_is_counted_by_where_it_arises(observer: Observer, exported: Exported) -> None:
    """Around the calls, in draining and in collections: never less than at the collection before."""
    engine = engine_of(observer)
    rooms = ("call", "drain", "collect")
    run(engine)
    before = [exported.point("quantmon.overhead.duration", room=room).value for room in rooms]
    for _ in range(100):
        run(engine)
    after = [exported.point("quantmon.overhead.duration", room=room).value for room in rooms]
    assert all(0 < earlier < later for earlier, later in zip(before, after, strict=True))
