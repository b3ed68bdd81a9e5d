"""What needs no reference: inputs outside the range of the graph, NaN and infinities, hidden ones too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import real_models
from ai_edge_litert.interpreter import Interpreter
from exported import Exported
from models.formats.onnx_models import CONV_INPUT, quantized_conv_net
from onnx import helper, numpy_helper
from runtimes.models import doubling, floats, model

Instrument = Callable[..., None]


def representable(path: Path) -> tuple[float, float]:
    """The ends of the range of the graph's QuantizeLinear on its input, half a step further."""
    graph = onnx.load(str(path)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (node,) = (n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == CONV_INPUT)
    scale, zero_point = (float(constants[name]) for name in node.input[1:3])
    return (0 - zero_point - 0.5) * scale, (255 - zero_point + 0.5) * scale


@pytest.mark.parametrize("factor", [1, 3, 100])
def test_the_clip_ratio_is_the_share_of_values_that_the_graph_cannot_represent(
    factor: int, tmp_path: Path, instrument: Instrument, exported: Exported
) -> None:
    """Inputs as in the calibration give 0; larger ones give exactly the share that numpy counts."""
    path = quantized_conv_net(tmp_path, "QDQ")
    images = np.random.default_rng(6).uniform(-1, 3, size=(16, 1, 8, 8)).astype(np.float32) * factor
    low, high = representable(path)
    expected = float(np.mean((images < np.float32(low)) | (images > np.float32(high))))
    assert (expected == 0) == (factor == 1)
    instrument()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    session.run(None, {CONV_INPUT: images})
    assert exported.point("quantmon.input.clip_ratio").value == expected


@pytest.mark.parametrize("factor", [1, 3, 100])
def test_an_integer_input_is_clipped_where_its_codes_are_at_the_ends(
    factor: int, instrument: Instrument, exported: Exported
) -> None:
    """The clip ratio of an int8 input is the share of -128 and 127; an image of mid greys has none."""
    instrument()
    interpreter = Interpreter(model_path=str(real_models.digits_tflite_full_integer()))
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    scale, zero_point = detail["quantization"]
    image = 0.1 + 0.3 * real_models.digits_inputs(1)
    codes = np.clip(np.round(factor * image / scale) + zero_point, -128, 127).astype(np.int8)
    expected = float(np.mean((codes == -128) | (codes == 127)))
    assert (expected == 0) == (factor == 1)
    interpreter.set_tensor(detail["index"], codes)
    interpreter.invoke()
    assert exported.point("quantmon.input.clip_ratio").value == expected
    assert not exported.points("quantmon.anomalies")


def nonfinite(exported: Exported) -> set[tuple[Any, Any, int]]:
    return {
        (p.attributes["quantmon.tensor.direction"], p.attributes["quantmon.nonfinite.outcome"], p.value)
        for p in exported.points("quantmon.tensor.nonfinite")
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_int8_hides_is_counted_as_masked(
    bad: float, tmp_path: Path, instrument: Instrument, exported: Exported
) -> None:
    """A NaN or an infinity that leaves a finite output is counted at the input, as masked."""
    images = np.zeros((1, 1, 8, 8), np.float32)
    images[0, 0, 3, 3] = bad
    instrument()
    session = onnxruntime.InferenceSession(
        str(quantized_conv_net(tmp_path, "QDQ")), providers=["CPUExecutionProvider"]
    )
    (scores,) = session.run(None, {CONV_INPUT: images})
    assert np.isfinite(scores).all()
    assert nonfinite(exported) == {("input", "masked", 1)}


def test_what_runs_through_is_counted_at_both_ends(instrument: Instrument, exported: Exported) -> None:
    """A NaN that comes out as a NaN is propagated, at the input and at the output."""
    instrument()
    onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"]).run(
        None, {"x": np.full((2, 3), np.nan, np.float32)}
    )
    assert nonfinite(exported) == {("input", "propagated", 1), ("output", "propagated", 1)}


def test_what_the_model_makes_itself_is_counted_as_generated(
    instrument: Instrument, exported: Exported
) -> None:
    """The logarithm of a sound -1 is a NaN that the model is to blame for."""
    node = helper.make_node("Log", ["x"], ["y"])
    log = model([node], inputs=[floats("x", 3)], outputs=[floats("y", 3)], name="log")
    instrument()
    onnxruntime.InferenceSession(log, providers=["CPUExecutionProvider"]).run(
        None, {"x": -np.ones(3, np.float32)}
    )
    assert nonfinite(exported) == {("output", "generated", 1)}


def test_sound_tensors_are_checked_and_nothing_is_counted(instrument: Instrument, exported: Exported) -> None:
    """Finite tensors of a model without a quantized input have neither a clip ratio nor a count."""
    instrument()
    onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"]).run(
        None, {"x": np.ones((2, 3), np.float32)}
    )
    assert not nonfinite(exported)
    assert not exported.points("quantmon.input.clip_ratio")


@pytest.mark.parametrize("spans", ["all", "none"])
def test_checks_go_on_with_and_without_spans(spans: str, instrument: Instrument, exported: Exported) -> None:
    """The time that calls take adds to the budget of checks whether or not they have spans."""
    instrument(spans=spans, check_budget=1.0, queue_size=1)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((2, 3), np.float32)})
    assert not nonfinite(exported)
    large = np.full((1_000_000, 3), np.nan, np.float32)
    for _ in range(4):
        session.run(None, {"x": large})
        exported.raw_metrics()
    assert nonfinite(exported)
