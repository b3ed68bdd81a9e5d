"""When a signal is anomalous: counted once, logged once, shown on the next call's span, and again the next time."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from formats.onnx_models import CONV_INPUT, quantized_conv_net
from onnx import helper
from runtimes.models import doubling, floats, model

from otel_quantmon import InferenceTimeoutError

from .waiting import anomalies, evaluate, outcomes, settle, until, warnings

Instrument = Callable[..., None]

# No root span unless something is notable.
QUIET = {"spans": "auto", "span_budget": 0.0}


def shown(exported: Exported) -> list[Any]:
    """The anomaly of each span."""
    return [(span.attributes or {}).get("quantmon.anomaly.type") for span in exported.raw_spans()]


@pytest.fixture
def square(tmp_path: Path) -> str:
    """``y = x * x``, as the reference of ``y = x + x``: equal where x is 2, far from it elsewhere."""
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    path = tmp_path / "square.onnx"
    path.write_bytes(
        model([node], inputs=[floats("x", "n", 3)], outputs=[floats("y", "n", 3)], name="square")
    )
    return str(path)


def test_an_error_that_stays_is_an_anomaly_once_and_one_that_comes_back_is_another(
    square: str, instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """Three bad samples count one anomaly, whatever follows; after three good ones, three bad ones count again."""
    instrument(reference={"*": square}, reference_budget=1.0, **QUIET)
    session = onnxruntime.InferenceSession(doubling())
    equal, apart = np.full((1, 3), 2, np.float32), np.full((1, 3), 3, np.float32)

    def compare(x: np.ndarray, count: int) -> dict[str, int]:
        evaluate(exported, lambda: session.run(None, {"x": x}), sum(outcomes(exported).values()) + count)
        return anomalies(exported)

    assert compare(equal, 3) == {}
    assert compare(apart, 2) == {}
    assert compare(apart, 1) == {"relative_error": 1}
    assert compare(apart, 3) == {"relative_error": 1}
    assert shown(exported) == ["relative_error"]
    assert compare(equal, 3) == {"relative_error": 1}
    assert compare(apart, 3) == {"relative_error": 2}
    session.run(None, {"x": equal})
    assert shown(exported) == ["relative_error"] * 2
    logged = warnings(caplog)
    assert len(logged) == 2
    assert all("relative_error is anomalous on shadow y" in message for message in logged)


def test_other_decisions_than_the_reference_are_an_anomaly(
    square: str, instrument: Instrument, exported: Exported
) -> None:
    """Outputs whose largest element is another one than the reference's are a disagreement."""
    instrument(reference={"*": square}, reference_budget=1.0, **QUIET)
    session = onnxruntime.InferenceSession(doubling())
    x = np.array([[-3, 1, 2]], np.float32)
    evaluate(exported, lambda: session.run(None, {"x": x}), 3)
    assert exported.point("quantmon.output.disagreement").value == 1.0
    assert anomalies(exported) == {"relative_error": 1, "disagreement": 1}


def test_inputs_outside_the_range_are_an_anomaly(
    tmp_path: Path, instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """Inputs a hundred times too large, in three checks in a row, are one anomaly of clipping."""
    instrument(check_budget=1.0, **QUIET)
    session = onnxruntime.InferenceSession(str(quantized_conv_net(tmp_path, "QDQ")))
    images = np.random.default_rng(6).uniform(-100, 300, size=(512, 1, 8, 8)).astype(np.float32)
    until(lambda: bool(anomalies(exported)), lambda: session.run(None, {CONV_INPUT: images}))
    session.run(None, {CONV_INPUT: images})
    assert anomalies(exported) == {"clipping": 1}
    assert shown(exported) == ["clipping"]
    (warning,) = warnings(caplog)
    assert f"clipping is anomalous on {CONV_INPUT}" in warning


def test_one_nan_is_an_anomaly(instrument: Instrument, exported: Exported) -> None:
    """The first check that meets a NaN counts, and the next call shows it, though nothing else asks for its span."""
    instrument(**QUIET)
    session = onnxruntime.InferenceSession(doubling())
    session.run(None, {"x": np.full((2, 3), np.nan, np.float32)})
    settle()
    assert not exported.raw_spans()
    session.run(None, {"x": np.ones((2, 3), np.float32)})
    session.run(None, {"x": np.ones((2, 3), np.float32)})
    assert anomalies(exported) == {"nonfinite": 1}
    assert shown(exported) == ["nonfinite"]


def test_calls_far_slower_than_the_baseline_are_an_anomaly(
    instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """A drift that the gauge reports in three collections in a row is one anomaly."""
    instrument(baseline_duration=1e-9, **QUIET)
    session = onnxruntime.InferenceSession(doubling())
    session.run(None, {"x": np.ones((2, 3), np.float32)})
    counted = [anomalies(exported) for _ in range(4)]
    assert counted == [{}, {}, {"latency_drift": 1}, {"latency_drift": 1}]
    assert exported.point("quantmon.inference.duration.drift").value > 0.5
    session.run(None, {"x": np.ones((2, 3), np.float32)})
    assert shown(exported) == ["latency_drift"]
    (warning,) = warnings(caplog)
    assert "latency_drift is anomalous, at" in warning


def test_timeouts_are_an_anomaly_until_calls_end_in_time_again(
    instrument: Instrument, exported: Exported
) -> None:
    """Timeouts count one anomaly however many they are; after a collection without one, the next counts again."""
    identity = np.eye(192, dtype=np.float32)
    names = ["x", *(f"t{i}" for i in range(1, 200)), "y"]
    chain = [helper.make_node("MatMul", [read, "identity"], [written]) for read, written in pairwise(names)]
    products = model(
        chain,
        inputs=[floats("x", "n", 192)],
        outputs=[floats("y", "n", 192)],
        name="products",
        constants={"identity": identity},
    )
    instrument(timeout=1.0, **QUIET)
    session = onnxruntime.InferenceSession(products)
    short, long = np.ones((1, 192), np.float32), np.ones((40_000, 192), np.float32)
    for count, x in ((0, short), (1, long), (1, long), (1, short), (2, long)):
        if x is long:
            with pytest.raises(InferenceTimeoutError):
                session.run(None, {"x": x})
        else:
            session.run(None, {"x": x})
        assert anomalies(exported).get("timeout", 0) == count
    assert shown(exported).count("timeout") >= 1


def test_memory_that_grows_with_the_calls_is_an_anomaly(instrument: Instrument, exported: Exported) -> None:
    """An application that keeps 64 KiB of each of a thousand calls and more is told of, once."""
    instrument(**QUIET)
    session = onnxruntime.InferenceSession(doubling())
    x = np.ones((2, 3), np.float32)
    kept: list[mmap.mmap] = []
    for _ in range(30):
        for _ in range(50):
            session.run(None, {"x": x})
            # Not from the heap, in which there may be room.
            kept.append(mmap.mmap(-1, 65536))
            kept[-1].write(b"x" * 65536)
        counted = anomalies(exported)
    assert exported.point("quantmon.memory.growth").value > 32768
    assert counted["memory_growth"] == 1
