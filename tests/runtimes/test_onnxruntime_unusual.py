"""What a session rarely moves, or cannot run: empty optionals, sequences, unknown ranks, calls that are wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from onnx import TensorProto, helper

from .models import doubling, floats, model

Instrument = Callable[..., None]

X = np.ones((2, 3), np.float32)


def session_of(content: bytes) -> Any:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def empty_optional() -> bytes:
    """``y`` is an optional tensor without one; ``z = x + x``."""
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Optional", [], ["y"], type=tensor),
        helper.make_node("Add", ["x", "x"], ["z"]),
    ]
    outputs = [helper.make_value_info("y", helper.make_optional_type_proto(tensor)), floats("z", "n", 3)]
    return model(nodes, inputs=[floats("x", "n", 3)], outputs=outputs, name="empty_optional")


def sequence() -> bytes:
    """``y`` is a sequence of ``x`` alone; ``z = x + x``."""
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 3])
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["y"]), helper.make_node("Add", ["x", "x"], ["z"])]
    outputs = [helper.make_value_info("y", helper.make_sequence_type_proto(tensor)), floats("z", "n", 3)]
    return model(nodes, inputs=[floats("x", "n", 3)], outputs=outputs, name="sequence")


@pytest.mark.parametrize("make", [empty_optional, sequence])
def test_an_output_that_holds_no_tensor_is_left_out(
    make: Callable[[], bytes], exported: Exported, instrument: Instrument
) -> None:
    """ONNX Runtime says of an empty optional that it is a tensor, and its size, its shape or an array of it end the
    process; an array of a sequence is refused. The tensor beside it is measured, named and checked.
    """
    instrument(check_budget=1.0)
    session = session_of(make())
    bad = onnxruntime.OrtValue.ortvalue_from_numpy(np.full((2, 3), np.nan, np.float32))
    for _ in range(3):
        values = session.run_with_ort_values(None, {"x": bad})
    assert len(values) == 2
    assert exported.point("quantmon.memory.allocated").value == 3 * 24
    spans = [span.attributes or {} for span in exported.raw_spans()]
    assert {span["quantmon.output.shapes"] for span in spans} == {("z:2x3",)}
    assert {point.value > 0 for point in exported.points("quantmon.tensor.nonfinite")} == {True}
    session.run_with_ort_values(["y"], {"x": bad})


def test_an_unknown_rank_is_not_taken_for_that_of_a_scalar(
    exported: Exported, instrument: Instrument
) -> None:
    """The session gives both no dimensions; what each call moves, and its shapes, are those that it had."""
    sides = [floats("x", 1, 1000)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    axes = {"axes": np.array([0])}
    node = helper.make_node("Squeeze", ["x", "axes"], ["y"])
    instrument()
    squeezed = session_of(model([node], inputs=sides[0], outputs=sides[1], name="squeezed", constants=axes))
    node = helper.make_node("Relu", ["x"], ["y"])
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    positive = session_of(model([node], inputs=inputs, outputs=sides[1], name="positive"))
    for rows in (1, 2, 2):
        squeezed.run(None, {"x": np.ones((1, 1000), np.float32)})
        positive.run(None, {"x": np.ones((rows, 10), np.float32)})
        positive.run(None, {"x": np.ones(rows, np.float32)})
    assert exported.point("quantmon.memory.allocated", model_name="squeezed").value == 3 * 4000
    assert exported.point("quantmon.memory.allocated", model_name="positive").value == 5 * (40 + 4)
    shapes = [(span.attributes or {})["quantmon.output.shapes"] for span in exported.raw_spans()]
    assert shapes[:3] == [("y:1000",), ("y:1x10",), ("y:1",)]


def test_a_scalar_of_which_the_file_tells_is_of_a_fixed_size(instrument: Instrument) -> None:
    """A model that is fixed but for what the session leaves open costs its calls no look at their shapes."""
    node = helper.make_node("Mul", ["x", "s"], ["y"])
    instrument(spans="none")
    session = session_of(
        model([node], inputs=[floats("x", 3), floats("s")], outputs=[floats("y", 3)], name="scaled")
    )
    session.run(None, {"x": np.ones(3, np.float32), "s": np.array(3, np.float32)})
    (state,) = session._quantmon_probe.states.values()
    assert tuple(state.io) == (None, 16, 12)
    assert state.measure is None
    # Described anew it is still the same.
    session.set_providers(["CPUExecutionProvider"])
    assert list(session._quantmon_probe.states.values()) == [state]


def test_outputs_whose_size_depends_on_values_do_not_follow_by_name(
    exported: Exported, instrument: Instrument
) -> None:
    """A file may call by one name how many values there are and how many of them are kept."""
    node = helper.make_node("Compress", ["x", "kept"], ["y"], axis=0)
    kept = helper.make_tensor_value_info("kept", TensorProto.BOOL, ["n"])
    instrument(spans="none")
    session = session_of(
        model([node], inputs=[floats("x", "n"), kept], outputs=[floats("y", "n")], name="compressed")
    )
    counts = (4, 4, 4, 4, 1, 2, 3)
    for count in counts:
        session.run(None, {"x": np.ones(4, np.float32), "kept": np.arange(4) < count})
    assert exported.point("quantmon.memory.allocated").value == 4 * sum(counts)


@pytest.mark.parametrize("method", ["run", "run_with_ort_values"])
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (None,),
        (None, 5),
        (None, None),
        (None, [1]),
        (None, {"x": 3}),
        (None, {"x": None}),
        (5, {}),
        ("y", {"x": X}),
    ],
    ids=str,
)
def test_a_call_that_is_wrong_raises_what_it_raises_without_us(
    method: str, arguments: tuple[Any, ...], instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    """The same class and the same words, and no failure of ours is told of."""

    def raised(session: Any) -> tuple[type, str]:
        with pytest.raises(Exception) as caught:
            getattr(session, method)(*arguments)
        # Some name the session by where it is in memory.
        return caught.type, re.sub("0x[0-9a-f]+", "", str(caught.value))

    without = raised(session_of(doubling()))
    instrument()
    assert raised(session_of(doubling())) == without
    assert [record for record in caplog.records if record.name == "otel_quantmon"] == []
