"""What of a sample is judged: data and results, but not the state that a model hands on to itself."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from otel_quantmon.detection.model_streams import ModelStreams
from otel_quantmon.detection.monitor import Monitor
from otel_quantmon.fidelity.numerics.comparison import compare
from otel_quantmon.fidelity.signals import Signals
from otel_quantmon.fidelity.windows import Thresholds
from otel_quantmon.models.formats.facts import TensorFacts


def signals() -> tuple[Signals, ModelStreams]:
    streams = Monitor(1.0).streams("model")
    return Signals(streams, {}, cast("Any", None)), streams


def read(streams: ModelStreams) -> set[tuple[str, str]]:
    """Types and parts of what waits to be judged."""
    return {(reading.kind, reading.of) for reading in streams._readings}


X, H = np.ones((1, 8, 3), np.float32), np.ones((2, 1, 4), np.float32)
Y = np.full((1, 5), 0.2, np.float32)


def test_state_beside_a_result_is_not_judged() -> None:
    """It adds up over all calls before: of a voice detector that runs for minutes it is four times as large later on,
    with nothing wrong. Its distance from float is measured, for the metric.
    """
    one, streams = signals()
    one.data({"x": X, "h": H}, {"y": Y, "hn": 2 * H}, {}, 1.0, None)
    for comparison in compare({"y": Y, "hn": 2 * H}, {"y": Y, "hn": H}, inputs={"x": X, "h": H}):
        assert comparison.measures is not None
        one.shadow(comparison, None)
    assert read(streams) == {
        ("input_distribution", "x"),
        ("output_distribution", "y"),
        ("relative_error", "y"),
        ("cosine", "y"),
        ("disagreement", "y"),
    }


def test_outputs_that_all_look_like_inputs_are_judged() -> None:
    """As of a model that improves two pictures: they may be results."""
    one, streams = signals()
    one.data({"a": X, "b": H}, {"c": X, "d": H}, {}, 1.0, None)
    for comparison in compare({"c": X, "d": H}, {"c": X, "d": H}, inputs={"a": X, "b": H}):
        one.shadow(comparison, None)
    assert {("output_distribution", "c"), ("relative_error", "c"), ("cosine", "d")} <= read(streams)


def test_the_second_of_a_pair_only_tells_how_much_calls_are_alike() -> None:
    """It is no observation of its own, since it may be the same once more."""
    one, streams = signals()
    pair = object()
    for _ in range(2):
        one.data({"x": X}, {"y": Y}, {}, 1.0, None, pair)
    assert len(streams._readings) == 2
    one.data({"x": X}, {"y": Y}, {}, 1.0, None, object())
    assert len(streams._readings) == 4


@pytest.mark.parametrize(("before", "after"), [(1, 16), (16, 1)])
def test_another_batch_size_is_no_change_of_the_data(before: int, after: int) -> None:
    """Normal noise in batches of one size and then of another: the extremes of 16 items lie farther out than those of
    one, and what is watched is the same.
    """
    one, streams = signals()
    facts = {"x": TensorFacts("x", "float32", (None, 10)), "y": TensorFacts("y", "float32", (None, 1))}
    noise = np.random.default_rng(0)
    found = []
    for call in range(900):
        x = noise.normal(size=(before if call < 600 else after, 10)).astype(np.float32)
        one.data({"x": x}, {"y": 2 * x[:, :1]}, facts, float(call), None)
        found += streams.judge(float(call), 0)
    assert not found


def test_another_length_is_no_change_of_the_data() -> None:
    """Sound of one length and then of twice as much: extremes and the grid that is looked at would show it."""
    one, streams = signals()
    facts = {"x": TensorFacts("x", "float32", (1, None))}
    noise = np.random.default_rng(0)
    found = []
    for call in range(900):
        x = noise.normal(size=4000 if call < 600 else 8000)
        x = np.convolve(x, np.ones(20) / 20, "same")[None] * noise.lognormal(0, 0.5)
        one.data({"x": x.astype(np.float32)}, {}, facts, float(call), None)
        found += streams.judge(float(call), 0)
    assert not found


@pytest.mark.parametrize(("error", "worse"), [(0.08 + 1e-6, False), (0.0802, True)])
def test_rounding_of_the_largest_recorded_error_is_not_past_it(error: float, worse: bool) -> None:
    """Which the threshold may be: another host gives it but for its rounding, and that is no fact to tell."""
    recorded = Thresholds.of_baseline([0.01] * 7 + [0.08], [0.9999] * 8)
    assert recorded.relative_error == 0.08
    one, _ = signals()
    f = np.ones((1, 100))
    (comparison,) = compare({"y": f * (1 + error)}, {"y": f})
    one.golden(comparison, {"y": recorded})
    assert one.replayed() is worse
