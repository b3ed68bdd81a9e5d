"""Each way into ONNX Runtime: the whole span and the whole set of metrics that one call of it exports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from inspect import cleandoc
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import Exported

from .expected import metrics_of_one_call
from .models import doubling, no_input, two_outputs

Instrument = Callable[..., None]

X = np.ones((2, 3), np.float32)
CPU = onnxruntime.OrtDevice.make("cpu", 0)._get_c_device()


def session_of(model: bytes, exported: Exported, cls: type = onnxruntime.InferenceSession) -> Any:
    """A session of which everything is known that is read in the background."""
    session = cls(model, providers=["CPUExecutionProvider"])
    exported.raw_metrics()
    return session


def run(session: Any) -> Any:
    return session.run(None, {"x": X})[0]


def run_by_keyword(session: Any) -> Any:
    return session.run(output_names=["y"], input_feed={"x": X}, run_options=None)[0]


def run_async(session: Any) -> Any:
    over = threading.Event()
    given: list[Any] = []

    def callback(results: Any, user_data: Any, error: str) -> None:
        given.extend([results, user_data, error])
        over.set()

    session.run_async(None, {"x": X}, callback, "user data")
    assert over.wait(60)
    assert given[1:] == ["user data", ""]
    return given[0][0]


def run_with_ort_values(session: Any) -> Any:
    value = onnxruntime.OrtValue.ortvalue_from_numpy(X)
    return session.run_with_ort_values(None, {"x": value})[0].numpy()


def run_with_iobinding(session: Any) -> Any:
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()[0]


def run_with_ortvaluevector(session: Any) -> Any:
    feeds = onnxruntime.capi._pybind_state.OrtValueVector()
    feeds.push_back(onnxruntime.OrtValue.ortvalue_from_numpy(X)._get_c_value())
    fetches = onnxruntime.capi._pybind_state.OrtValueVector()
    session.run_with_ortvaluevector(onnxruntime.RunOptions(), ["x"], feeds, ["y"], fetches, [CPU])
    return fetches[0].numpy()


# The way, its operation, and what it can tell of a call without reading the application's own buffers.
WAYS: list[Any] = [
    pytest.param(run, "run", True, id="run"),
    pytest.param(run_by_keyword, "run", True, id="run_by_keyword"),
    pytest.param(run_async, "run_async", True, id="run_async"),
    pytest.param(run_with_ort_values, "run_with_ort_values", True, id="run_with_ort_values"),
    pytest.param(run_with_iobinding, "run_with_iobinding", False, id="run_with_iobinding"),
    pytest.param(run_with_ortvaluevector, "run_with_ortvaluevector", False, id="run_with_ortvaluevector"),
]


@pytest.mark.parametrize(("way", "operation", "sized"), WAYS)
def test_a_call_exports_one_whole_span(
    way: Callable[[Any], Any], operation: str, sized: bool, exported: Exported, instrument: Instrument
) -> None:
    """Name, kind, parent, status and every attribute with its type; and the call gives what it gave before."""
    instrument()
    session = session_of(doubling(), exported)
    with exported.tracer.start_as_current_span("request"):
        output = way(session)
    np.testing.assert_array_equal(output, 2 * X)
    size, rows = ("\n              quantmon.batch.size=2", "2") if sized else ("", "?")
    assert exported.spans() == cleandoc(
        f"""
            inference doubling (INTERNAL, parent request, UNSET){size}
              quantmon.execution_provider='CPUExecutionProvider'
              quantmon.input.shapes=('x:{rows}x3',)
              quantmon.model.digest=<digest>
              quantmon.model.format='onnx'
              quantmon.model.name='doubling'
              quantmon.operation.name='{operation}'
              quantmon.output.shapes=('y:{rows}x3',)
              quantmon.quantization.scheme='none'
              quantmon.runtime.name='onnxruntime'
              quantmon.runtime.version=<version>
        """
    )


@pytest.mark.parametrize(("way", "operation", "sized"), WAYS)
def test_a_call_exports_these_metrics_and_no_other(
    way: Callable[[Any], Any], operation: str, sized: bool, exported: Exported, instrument: Instrument
) -> None:
    """Every metric with its kind, unit and points; one call, one count, linked to the call's span."""
    instrument()
    session = session_of(doubling(), exported)
    way(session)
    series = "[doubling onnxruntime none CPUExecutionProvider]"
    file = {"model_file": len(doubling())}
    assert exported.metrics() == metrics_of_one_call(
        series,
        call=operation,
        span="inference doubling",
        info="quantmon.cpu.isa=<isa> quantmon.model.digest=<digest> quantmon.model.format='onnx' "
        "quantmon.runtime.version=<version>",
        nodes=[series],
        # Calls are compared with calls of their own shapes, which are not known of all ways.
        drift=sized,
        batch=2 if sized else None,
        allocated=24 if sized else None,
        memory=file | {"io": 48} if sized else file,
    )


@pytest.mark.parametrize(("way", "operation", "sized"), WAYS)
def test_a_model_of_fixed_shapes_tells_its_sizes_on_every_way(
    way: Callable[[Any], Any], operation: str, sized: bool, exported: Exported, instrument: Instrument
) -> None:
    """Where no shape can change, none has to be read: shapes and bytes are known of every way, a batch of none."""
    instrument()
    model = doubling(rows=2)
    way(session_of(model, exported))
    span = exported.raw_spans()[0]
    assert span.attributes is not None
    assert span.attributes["quantmon.input.shapes"] == ("x:2x3",)
    assert span.attributes["quantmon.output.shapes"] == ("y:2x3",)
    assert "quantmon.batch.size" not in span.attributes
    assert exported.point("quantmon.memory.allocated").value == 24
    assert exported.points("quantmon.inference.batch_size") == []


def test_one_of_two_outputs_counts_the_bytes_of_that_one(exported: Exported, instrument: Instrument) -> None:
    """The declared sizes of all outputs do not stand for a call that asked for fewer."""
    instrument()
    session = session_of(two_outputs(), exported)
    x = np.ones(3, np.float32)
    session.run(["z"], {"x": x})
    assert exported.point("quantmon.memory.allocated").value == 12
    session.run(None, {"x": x})
    session.run([], {"x": x})
    assert exported.point("quantmon.memory.allocated").value == 12 + 24 + 24


def test_a_model_without_inputs_is_observed(exported: Exported, instrument: Instrument) -> None:
    """An empty feed is a feed, given by position or by name."""
    instrument()
    session = session_of(no_input(), exported)
    session.run(None, {})
    session.run(output_names=["y"], input_feed={})
    assert exported.count() == 2
    assert exported.point("quantmon.memory.allocated").value == 24


def test_run_takes_ort_values_too(exported: Exported, instrument: Instrument) -> None:
    """An `OrtValue` has a method where an array has its shape: the call is measured like any other."""
    instrument()
    session = session_of(doubling(), exported)
    session.run(None, {"x": onnxruntime.OrtValue.ortvalue_from_numpy(X)})
    attributes = exported.raw_spans()[0].attributes or {}
    assert attributes["quantmon.input.shapes"] == ("x:2x3",)
    assert attributes["quantmon.batch.size"] == 2
    assert exported.point("quantmon.inference.batch_size").sum == 2
    assert exported.point("quantmon.memory.usage", memory_type="io").value == 48


def test_run_async_is_over_before_its_callback_runs(exported: Exported, instrument: Instrument) -> None:
    """The span has ended, a child of its caller's, when the application's callback is given the results."""
    instrument()
    session = session_of(doubling(), exported)
    over = threading.Event()
    seen: list[str] = []

    def callback(*_: Any) -> None:
        seen.append(exported.spans())
        over.set()

    with exported.tracer.start_as_current_span("request"):
        session.run_async(None, {"x": X}, callback, None)
        assert over.wait(60)
    assert seen[0].startswith("inference doubling (INTERNAL, parent unended, UNSET)")
    assert exported.point("quantmon.inference.active").value == 0


def test_a_sequence_can_be_fed(instrument, exported, tmp_path):
    """What is no tensor has no size to measure: the run and its record are as ever."""
    from onnx import TensorProto, helper

    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [5]))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "sequences",
        [helper.make_value_info("x", sequence)],
        [helper.make_value_info("y", sequence)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    instrument(spans="all")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [values] = session.run(None, {"x": [np.ones(5, np.float32), np.zeros(5, np.float32)]})
    assert [value.tolist() for value in values] == [[1.0] * 5, [0.0] * 5]
    [point] = exported.raw_metrics()["quantmon.inference.duration"].data.data_points
    assert point.count == 1
