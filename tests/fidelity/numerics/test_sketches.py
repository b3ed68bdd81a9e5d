"""The few numbers of a tensor by which a change of the data is found."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from otel_quantmon.fidelity.numerics.sketches import first_items, input_sketch, output_sketch
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts


@settings(deadline=None)
@given(scores=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=50))
def test_margin_and_entropy_of_any_scores_are_in_range(scores: list[float]) -> None:
    """The margin from 0 to 1, the entropy up to that of equal scores."""
    sketch = output_sketch(np.array([scores], np.float32), decides=True)
    assert sketch is not None
    assert -1e-9 <= sketch["margin"] <= 1.0
    assert -1e-9 <= sketch["entropy"] <= math.log(len(scores)) + 1e-9


def test_scores_are_read_as_probabilities_where_they_are_some() -> None:
    """And as logits otherwise, with the same answer for the same distribution."""
    shares = np.array([[0.7, 0.2, 0.1]])
    expected = {"margin": pytest.approx(0.5), "entropy": pytest.approx(0.8018, abs=1e-4)}
    assert output_sketch(shares, decides=True) == expected
    assert output_sketch(np.log(shares) + 3.0, decides=True) == expected


def test_scores_in_codes_are_scores() -> None:
    """An integer model's classes: by its quantization parameters, without which integers may be anything."""
    codes = np.array([[127 - 25, 127 - 229, -128]], np.int8)
    facts = TensorFacts("scores", "int8", (1, 3), QuantizationParameters((1 / 256,), (-128,), "int8"))
    found = output_sketch(codes, facts, decides=True)
    assert found == {"margin": pytest.approx(0.8, abs=0.01), "entropy": pytest.approx(0.33, abs=0.02)}
    assert set(output_sketch(codes, None, decides=True) or ()) == {"p05", "p50", "p95", "high", "spread"}


@pytest.mark.parametrize("scores", [[0.5, math.nan], [math.inf, 0.0]])
def test_scores_that_are_not_finite_have_no_margin(scores: list[float]) -> None:
    """They give NaN, so that a detector passes them over."""
    found = output_sketch(np.array([scores]), decides=True)
    assert found is not None
    assert all(map(math.isnan, found.values()))


def test_other_outputs_have_quantiles() -> None:
    """Of the finite values; state that is fed back is no score, and one number is itself."""
    values = np.arange(101, dtype=np.float32)[None]
    expected = {"p05": 5.0, "p50": 50.0, "p95": 95.0, "high": 100.0, "spread": pytest.approx(29.15, abs=0.01)}
    assert output_sketch(values, decides=False) == expected
    assert output_sketch(np.array([[3]], np.uint8), decides=True) == {"p50": 3.0}
    assert output_sketch(np.array([], np.float32), decides=True) is None
    assert output_sketch(np.array(["text"]), decides=True) is None


def test_an_input_has_range_mean_and_spread() -> None:
    """A ramp of 0 to 3 along the only axis, and one number, which leans nowhere."""
    found = input_sketch(np.array([[0.0, 1.0, 2.0, 3.0]]))
    unit = math.sqrt(1.25)
    assert found == {
        "low": 0.0,
        "high": 3.0,
        "mean": 1.5,
        "spread": pytest.approx(unit),
        "rough": pytest.approx(1.0 / unit),
        "lean 1": pytest.approx(-2.0 / unit),
    }
    assert input_sketch(np.array([7], np.int32)) == {"low": 7.0, "high": 7.0, "mean": 7.0, "spread": 0.0}
    assert input_sketch(np.array([math.nan])) is None


def _floats(name: str, *shape: int | None) -> TensorFacts:
    return TensorFacts(name, "float32", shape)


def _cut(x: TensorFacts, given: tuple[int, ...], y: TensorFacts, made: tuple[int, ...]) -> tuple[Any, Any]:
    """Shapes of what is sketched of a call with an input and an output of these shapes."""
    inputs, outputs = first_items(
        {"x": np.zeros(given, np.float32)}, {"y": np.zeros(made, np.float32)}, {"x": x, "y": y}
    )
    return inputs["x"].shape, outputs["y"].shape


def test_of_a_batch_the_first_item_is_sketched() -> None:
    """With a score or a label for each item; also of a model of one item that TFLite was told to take several of."""
    x = _floats("x", None, 3, 8)
    assert _cut(x, (16, 3, 8), _floats("y", None, 5), (16, 5)) == ((1, 3, 8), (1, 5))
    assert _cut(x, (16, 3, 8), _floats("y", None), (16,)) == ((1, 3, 8), (1,))
    assert _cut(_floats("x", 1, 8), (16, 8), _floats("y", 1, 5), (16, 5)) == ((1, 8), (1, 5))


@pytest.mark.parametrize(
    ("x", "given", "y", "made"),
    [
        (_floats("x", None), (16000,), _floats("y", None), (16000,)),
        (_floats("x", None, 80), (200, 80), _floats("y", 1, 5), (1, 5)),
        (_floats("x", None, 80), (200, 80), _floats("y", None, 30), (50, 30)),
        (_floats("x", 64, 64), (64, 64), _floats("y", 64, 64), (64, 64)),
        (_floats("x", 1, 3, 64, 64), (1, 3, 64, 64), _floats("y", None, 7), (12, 7)),
    ],
    ids=["sound", "one result", "fewer results", "fixed", "detections"],
)
def test_a_first_dimension_that_is_none_of_items_is_sketched_as_a_whole(
    x: TensorFacts, given: tuple[int, ...], y: TensorFacts, made: tuple[int, ...]
) -> None:
    """Samples of sound, frames, rows of a picture and the objects found in one: there is more in them than in one."""
    assert _cut(x, given, y, made) == (given, made)


def test_what_changes_with_the_length_is_left_out_of_a_sketch() -> None:
    """Extremes; and the roughness is that of neighbours in the data, whatever grid so long a tensor is looked at on."""
    facts = _floats("x", 1, None)
    short, long = (np.sin(np.arange(n, dtype=np.float32) / 5)[None] for n in (1000, 50_000))
    found, of_long = input_sketch(short, facts), input_sketch(long, facts)
    assert found is not None
    assert of_long is not None
    assert found.keys() == {"mean", "spread", "rough", "lean 1"}
    assert of_long["rough"] == pytest.approx(found["rough"], rel=0.05)
    assert "high" in (output_sketch(short, decides=False) or {})
    assert "high" not in (output_sketch(short, facts, decides=False) or {})
    long[0, ::2] = np.nan
    assert "rough" not in (input_sketch(long, facts) or {})


def _picture() -> Any:
    """Bright above, bluer to the right: float32 (1, 64, 48, 3)."""
    rows, columns = np.linspace(1, 0, 64)[:, None, None], np.linspace(0, 0.5, 48)[None, :, None]
    noise = np.random.default_rng(1).normal(0, 0.05, (64, 48, 3))
    return (rows + columns * np.array([0, 0, 1]) + noise).astype(np.float32)[None]


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda x: x[:, ::-1], "lean 1"),
        (lambda x: x[:, :, ::-1], "lean 2"),
        (lambda x: x[..., ::-1], "lean 3"),
        (lambda x: np.roll(x, 16, 1), "lean 1"),
        (lambda x: np.random.default_rng(2).permuted(x, axis=1), "rough"),
    ],
    ids=["upside down", "mirrored", "channels swapped", "shifted", "shuffled"],
)
def test_what_keeps_all_values_shows_in_where_they_are(change: Any, number: str) -> None:
    """The same pixels in other places: range, mean and spread hardly move, and one other number does."""
    before, after = input_sketch(_picture()), input_sketch(np.ascontiguousarray(change(_picture())))
    assert before is not None
    assert after is not None
    for same in ("mean", "spread"):
        assert after[same] == pytest.approx(before[same], rel=0.1)
    assert abs(after[number] - before[number]) > 0.3


@settings(deadline=None)
@given(
    array=arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.int32]),
        arrays.array_shapes(max_dims=4, max_side=40),
    )
)
def test_any_tensor_has_a_sketch_or_none(array: Any) -> None:
    """Without an error or a warning; halves are about two spreads apart at most, whatever the values are."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = input_sketch(array), output_sketch(array, decides=True)
        input_sketch(array, TensorFacts("x", "float32", None))
    if found is not None and 1e-6 < found["spread"] < 1e100:
        leans = [value for name, value in found.items() if name.startswith("lean")]
        assert all(abs(lean) <= 2.2 for lean in leans)
