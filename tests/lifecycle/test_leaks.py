"""What has gone is gone: models, their series, their buffers; and calls leave nothing behind."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
from exported import Exported
from real_models import digits_tflite_float, magika_qdq, one_op_onnx

from lifecycle.models import X
from lifecycle.programs import run
from otel_quantmon.pipeline import Pipeline, pipeline_of
from otel_quantmon.process.worker import worker
from otel_quantmon.settings import Settings

_OF_LIVE_MODELS = {
    "quantmon.inference.active",
    "quantmon.inference.window.duration",
    "quantmon.inference.duration.drift",
    "quantmon.model.info",
    "quantmon.memory.usage",
    "quantmon.memory.growth",
}


def _pipeline(exported: Exported) -> Pipeline:
    """The one that `instrument` has made for these providers."""
    return pipeline_of(exported.tracer_provider, exported.meter_provider, Settings())


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_sessions_leave_nothing(count: int, exported: Exported, instrumentor) -> None:
    """Sessions made from bytes, run and dropped: all are collected, by reference count alone; no gauge tells of them;
    bookkeeping has stayed bounded without a collection in between; each load and each run has been counted.
    """
    import onnxruntime

    instrumentor.instrument(**exported.providers)
    content = one_op_onnx().read_bytes()
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    pipeline = _pipeline(exported)
    most_states = 0
    gc.disable()
    try:
        for _ in range(count):
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            session.run(None, X)
            alive.add(session)
            most_states = max(most_states, len(pipeline.recorder._pending))
        del session
        assert worker.flush(60)
        assert len(alive) == 0
    finally:
        gc.enable()
    # A call state and its sampler refer to each other.
    exported.points_by_name()
    gc.collect()
    points = exported.points_by_name()
    assert {name for name in points if name in _OF_LIVE_MODELS} == set()
    assert sum(point.count for point in points["quantmon.model.load.duration"]) == count
    assert sum(point.count for point in points["quantmon.inference.duration"]) == count
    gc.collect()
    assert (pipeline.probes(), pipeline.live_series(), list(pipeline.recorder._pending)) == ([], [], [])
    assert most_states < 600


def test_a_series_goes_with_its_last_model(exported: Exported, instrumentor) -> None:
    """Of two sessions of one model, the first to go takes nothing from the gauges, and the second all."""
    import onnxruntime

    instrumentor.instrument(**exported.providers, settings=Settings(warmup=0))
    first, second = (
        onnxruntime.InferenceSession(str(one_op_onnx()), providers=["CPUExecutionProvider"]) for _ in range(2)
    )
    first.run(None, X)
    second.run(None, X)
    assert "quantmon.inference.window.duration" in exported.points_by_name()
    del first
    assert "quantmon.inference.window.duration" in exported.points_by_name()
    del second
    assert worker.flush(60)
    exported.points_by_name()  # takes the last record
    gc.collect()
    assert set(exported.points_by_name()) & _OF_LIVE_MODELS == set()
    assert exported.calls() == 2


def test_an_interpreter_that_is_resized_for_ever(exported: Exported, tflite_instrumentor) -> None:
    """An application that changes the batch size from call to call is counted, and its bookkeeping stays bounded."""
    from ai_edge_litert.interpreter import Interpreter

    tflite_instrumentor.instrument(**exported.providers)
    interpreter = Interpreter(model_path=str(digits_tflite_float()))
    index = interpreter.get_input_details()[0]["index"]
    for number in range(1_500):
        interpreter.resize_tensor_input(index, (1 + number % 2, 8, 8, 1))
        interpreter.allocate_tensors()
        interpreter.invoke()
    assert len(_pipeline(exported).recorder._pending) < 600
    # They linger for one collection, since calls may run meanwhile.
    for _ in range(2):
        assert exported.calls() == 1_500
    assert len(_pipeline(exported).recorder._pending) <= 2


def test_the_buffer_of_a_model_is_not_kept(exported: Exported, instrumentor, tflite_instrumentor) -> None:
    """What a model was loaded from is referred to by the runtime's object alone once it has been read, and by nobody
    after that.
    """
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    for used in (instrumentor, tflite_instrumentor):
        used.instrument(**exported.providers)
    for path, load in (
        (
            magika_qdq(),
            lambda content: onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]),
        ),
        (digits_tflite_float(), lambda content: Interpreter(model_content=content)),
    ):
        content = path.read_bytes()
        unused = sys.getrefcount(content)
        model = load(content)
        assert worker.flush(60)
        holders = [found for found in gc.get_referrers(content) if found is not sys._getframe()]
        assert all(found is model or found is vars(model) for found in holders)
        assert sys.getrefcount(content) == unused + 1
        del model, holders
        assert sys.getrefcount(content) == unused


def test_inputs_and_results_are_not_kept(exported: Exported, instrumentor) -> None:
    """Tensors of calls, with and without a span, and errors with their frames are free when the caller lets go."""
    import onnxruntime

    class Tensor(np.ndarray):
        """An array to which weak references can be made."""

    instrumentor.instrument(**exported.providers, settings=Settings(spans="all"))
    session = onnxruntime.InferenceSession(str(one_op_onnx()), providers=["CPUExecutionProvider"])
    kept: list[weakref.ref[object]] = []
    gc.disable()
    try:
        for _ in range(20):
            x = np.ones(4, np.float32).view(Tensor)
            session.run(None, {"x": x, "y": X["y"]})
            kept.append(weakref.ref(x))
            wrong = np.ones(5, np.float32).view(Tensor)
            with pytest.raises(Exception, match="x"):
                session.run(None, {"x": wrong, "y": X["y"]})
            kept.append(weakref.ref(wrong))
            del x, wrong
        assert [reference() for reference in kept] == [None] * 40
    finally:
        gc.enable()


_CALLS = """
import gc, sys
import psutil
from exported import Exported
from lifecycle.models import wake_word_interpreter
from otel_quantmon import TFLiteInstrumentor

exported, process = Exported(), psutil.Process()
exported.tracer_provider.shutdown()  # spans kept in memory would be the test's own leak
TFLiteInstrumentor().instrument(**exported.providers)
interpreter = wake_word_interpreter()

def call(times):
    for _ in range(times):
        interpreter.invoke()
    exported.points_by_name()
    gc.collect()
    return process.memory_info().rss

call(20_000)
before = call(20_000)
print(call(int(sys.argv[1])) - before, exported.calls())
"""


@pytest.mark.parametrize("calls", [200_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_calls_take_no_memory(calls: int) -> None:
    """So many calls of a wake word add less than 1 MiB to the process, and every one is counted."""
    growth, counted = map(int, run(_CALLS, str(calls)).stdout.split())
    assert growth < 1024**2
    assert counted == calls + 40_000
