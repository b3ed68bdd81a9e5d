"""What each kind of output is treated as, and why some give no sample."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_quantmon.fidelity.numerics.comparison import Match, compare, fed_back, match_outputs
from otel_quantmon.fidelity.numerics.dequantization import (
    NotComparableError,
    Reason,
    as_real,
    code_range,
    dequantize,
)
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts

ONE = np.ones((2, 3), np.float32)


def one(q, f, **options):
    """The comparison of a single output."""
    (result,) = compare({"y": q}, {"y": f}, **options)
    return result


def facts(dtype, scales=(0.5,), zero_points=(3,), axis=None):
    parameters = QuantizationParameters(scales, zero_points, dtype, axis)
    return {"y": TensorFacts("y", dtype, None, parameters)}


@settings(max_examples=80, deadline=None)
@given(
    codes=hnp.arrays(
        st.sampled_from([np.int8, np.uint8, np.int16]), hnp.array_shapes(max_dims=3, max_side=4)
    ),
    scale=st.floats(2**-20, 2**10, width=32),
    data=st.data(),
)
def test_codes_are_dequantized_as_the_operator_defines_it(codes, scale, data):
    """Codes become scale * (code - zero_point) in float32, per tensor or along any axis."""
    low, high = code_range(codes.dtype.name)
    axis = data.draw(st.one_of(st.none(), st.integers(0, codes.ndim - 1)))
    count = 1 if axis is None else codes.shape[axis]
    zero_points = data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
    scales = [float(np.float32(scale * (index + 1))) for index in range(count)]
    actual = dequantize(
        codes, QuantizationParameters(tuple(scales), tuple(zero_points), codes.dtype.name, axis)
    )
    for index, code in np.ndenumerate(codes):
        channel = 0 if axis is None or count == 1 else index[axis]
        expected = np.float32(int(code) - zero_points[channel]) * np.float32(scales[channel])
        assert actual[index] == expected
    assert actual.dtype == np.float32


def test_wide_codes_are_dequantized_in_float64():
    """int32 codes have more digits than float32."""
    codes = np.array([2**31 - 1, -(2**31)], np.int32)
    real = dequantize(codes, QuantizationParameters((0.25,), (1,), "int32"))
    assert real.tolist() == [(2**31 - 2) * 0.25, (-(2**31) - 1) * 0.25]


@pytest.mark.parametrize(
    ("scales", "zero_points", "axis"),
    [((0.5, 0.5), (0, 0), None), ((0.5, 0.5), (0, 0), 0), ((0.5,), (0, 0), None), ((0.0,), (0,), None),
     ((float("nan"),), (0,), None), ((0.5, 0.5, 0.5), (0, 0, 0), 5), ((), (), None)],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_a_reason(scales, zero_points, axis):
    """Damaged or mismatched parameters are counted, not raised and not broadcast."""
    result = one(
        np.ones((3, 2), np.int8), np.ones((3, 2), np.float32), facts=facts("int8", scales, zero_points, axis)
    )
    assert result.reason == "quantization"
    assert result.measures is None


def test_an_integer_output_is_measured_after_dequantization():
    """uint8 codes against the float reference give the error of the values they stand for."""
    result = one(np.array([[3, 5]], np.uint8), np.array([[0.0, 1.0]], np.float32), facts=facts("uint8"))
    assert result.reason is None
    assert result.measures.relative_error == 0.0


def test_bfloat16_is_read_from_its_own_type_and_from_its_bits():
    """Both are the upper half of a float32, whether ml_dtypes is there or the runtime gave uint16."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([1.0, -2.5, 3e38, 1e-40], ml_dtypes.bfloat16)
    expected = values.astype(np.float32)
    np.testing.assert_array_equal(as_real(values), expected)
    declared = TensorFacts("y", "bfloat16", None)
    np.testing.assert_array_equal(as_real(values.view(np.uint16), declared), expected)
    assert one(values.view(np.uint16), expected, facts={"y": declared}).measures.relative_error == 0.0


def test_4_bit_codes_are_dequantized_packed_in_their_type_or_not():
    """int4 of ml_dtypes and int8 holding 4-bit codes stand for the same values."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    codes = np.array([-8, 0, 7], np.int8)
    for array in (codes, codes.astype(ml_dtypes.int4)):
        assert as_real(array, facts("int4")["y"]).tolist() == [-5.5, -1.5, 2.0]


def test_float64_keeps_its_digits():
    """An error far below float32's resolution is measured when both models compute in float64."""
    f = np.array([1.0, 1e300])
    assert as_real(f) is f
    assert one(f * (1 + 2**-40), f).measures.relative_error == pytest.approx(2**-40)


def test_8_bit_floats_are_widened():
    """The 8-bit floats of ml_dtypes are numbers like any other."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert as_real(np.array([0.5, -448], ml_dtypes.float8_e4m3fn)).tolist() == [0.5, -448.0]


def test_float16_is_measured_without_overflow():
    """The norm of float16 values near their largest exceeds float16 and is right all the same."""
    q = np.full(1000, 60000, np.float16)
    result = one(q, q.astype(np.float32) * 2)
    assert result.measures.relative_error == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("q", "f", "share"),
    [
        (np.array(["cat", "dog"], object), np.array(["cat", "cow"], object), 0.5),
        (np.array([b"a", b"b"]), np.array([b"a", b"b"]), 1.0),
        (np.array([True, False]), np.array([False, True]), 0.0),
        (np.array([3, 4, 5]), np.array([3, 4, 6], np.int32), 2 / 3),
        (["cat", "dog"], ["cat", "dog"], 1.0),
        ("cat", "dog", 0.0),
    ],
)
def test_labels_give_the_share_of_equal_ones(q, f, share):
    """Between strings, booleans, indices there is no distance, so there is no relative error of them."""
    result = one(q, f)
    assert (result.reason, result.measures) == (None, None)
    assert result.equal_share == pytest.approx(share)


class Sparse:
    dense_shape = (3, 3)


@pytest.mark.parametrize(
    ("q", "f", "reason"),
    [
        (np.ones((0, 3)), np.ones((0, 3)), "empty"),
        ([], [], "empty"),
        (None, None, "empty"),
        (None, ONE, "kind"),
        (ONE, [ONE], "kind"),
        (ONE, {"a": 1.0}, "kind"),
        (np.array(["a"]), np.array([1.0]), "kind"),
        (ONE, np.ones((3, 2)), "shape"),
        (ONE, np.ones((4, 3)), "shape"),
        ([ONE], [ONE, ONE], "shape"),
        ({"a": 1.0}, {"b": 1.0}, "shape"),
        (ONE.astype(np.complex64), ONE, "dtype"),
        (np.array([object()]), np.array([1.0]), "dtype"),
        (np.ones(2, np.int8), np.ones(2), "quantization"),
        (Sparse(), ONE, "sparse"),
        (np.full(2, np.nan), np.ones(2), "non_finite"),
        (ONE, np.zeros((2, 3)), "degenerate"),
    ],
)
def test_what_cannot_be_compared_has_its_reason(q, f, reason):
    """Each case of the closed list, none of which raises."""
    result = one(q, f)
    assert result.reason == reason
    assert result.detail
    assert reason in get_args(Reason)


def test_texts_against_codes_of_four_bits_are_of_two_kinds():
    """The types of ml_dtypes refuse to be compared with texts, where numpy's say that they differ."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert one(np.array(["a"]), np.array([1]).astype(ml_dtypes.int4)).reason == "kind"
    assert one(np.array([1]).astype(ml_dtypes.int4), np.array(["a"])).reason == "kind"


def test_a_mismatch_of_nonfinite_values_is_counted_even_without_a_sample():
    """A tensor gone all NaN is the worst case, and must not look like one that was never compared."""
    assert one(np.full(2, np.nan), np.ones(2)).measures.nonfinite_mismatches == 2


def test_a_reference_much_smaller_than_in_the_baseline_is_degenerate():
    """Under 1e-6 of its median norm, an output such as silence gives no relative error."""
    small = np.full(4, 1e-7)
    assert one(small, small, median_norms={"y": 1.0}).reason == "degenerate"
    assert one(small, small, median_norms={"y": 0.1}).reason is None
    assert one(small, small).reason is None


@pytest.mark.parametrize(
    ("q", "f"), [(1.5, np.float32(1.5)), (np.array(1.5), 1.5), (np.array([1.5]), np.array(1.5))]
)
def test_scalars_and_0_d_tensors_are_one_number(q, f):
    """They have a relative error and no top-1."""
    result = one(q, f)
    assert (result.measures.elements, result.measures.disagreement) == (1, None)


def test_dimensions_of_one_do_not_make_shapes_differ():
    """(1, 10, 1) of one converter against (10,) of the other has one row of ten classes."""
    values = np.arange(10.0)
    assert one(values.reshape(1, 10, 1), values).measures.rows == 1


def test_sequences_and_maps_are_measured_as_one_output():
    """ZipMap's list of maps has a row for each map, in the reference's order of keys."""
    q = [{"a": 0.1, "b": 0.9}, {"a": 0.4, "b": 0.6}]
    f = [{"b": 0.8, "a": 0.2}, {"b": 0.3, "a": 0.7}]
    result = one(q, f)
    assert (result.measures.rows, result.measures.flips) == (2, 1)
    tensors = one([ONE, ONE * 2], [ONE, ONE])
    assert tensors.measures.relative_error == pytest.approx(np.sqrt(0.5))
    assert one({"a": [ONE]}, {"a": [ONE]}).measures.relative_error == 0.0


def test_outputs_are_matched_by_mapping_then_name_then_position():
    """Names that agree win over positions, and a mapping over both."""
    outputs = {"a": ONE, "b": ONE, "Identity": ONE}
    references = {"b": ONE, "a": ONE, "dense/Softmax": ONE}
    assert match_outputs(outputs, references) == [
        Match("a", "a"),
        Match("b", "b"),
        Match("Identity", "dense/Softmax"),
    ]
    assert match_outputs({"a": ONE}, references, {"a": "b"}) == [Match("a", "b")]


def test_a_position_is_no_match_when_shapes_or_counts_differ():
    """A guess that could pair the wrong tensors is refused, with what to do."""
    for outputs, references, mapping in (
        ({"x": ONE}, {"y": np.ones(5)}, {}),
        ({"x": ONE}, {"y": ONE, "z": ONE}, {}),
        ({"x": ONE}, {"y": ONE}, {"x": "gone"}),
    ):
        (result,) = compare(outputs, references, mapping=mapping)
        assert result.reason == "unmatched"
        assert "mapping" in result.detail


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**40), 2**40),
        st.floats(),
        st.text(max_size=3),
        hnp.arrays(
            st.sampled_from([np.float32, np.float16, np.int8, np.bool_, np.complex64, "U2"]),
            hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=2),
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(q=ANYTHING, f=ANYTHING)
def test_no_value_makes_a_comparison_raise(q, f):
    """Whatever two models put out, there is a sample or a reason, and never an exception."""
    result = one(q, f)
    has_sample = result.measures is not None or result.equal_share is not None
    assert has_sample if result.reason is None else result.reason in get_args(Reason)
    assert one(q, q).reason not in ("shape", "unmatched")


def test_the_error_carries_its_reason():
    """Callers that convert one array find the reason without parsing a message."""
    with pytest.raises(NotComparableError) as caught:
        as_real(np.ones(1, np.complex64))
    assert caught.value.reason == "dtype"


def test_the_disagreement_of_labels_is_the_share_that_differs():
    """One of four labels is another one; numbers disagree by their top-1, and what gave no sample does not."""
    assert one(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])).disagreement == 0.25
    assert one(np.array([["a"]]), np.array([["a"]])).disagreement == 0.0
    assert one(ONE * [1, 2, 3], ONE * [3, 2, 1]).disagreement == 1.0
    assert one(ONE, ONE * 0).disagreement is None


@pytest.mark.parametrize(
    ("shape", "then", "state"),
    [
        ((2, 1, 128), (2, 1, 128), True),
        ((1, 64), (1, 64), True),
        ((1, 8, 0, 64), (1, 8, 1, 64), True),
        ((1, 8, 5, 64), (1, 8, 4, 64), False),
        ((1, 8, 5, 64), (1, 8, 5, 65), False),
        ((1, 4, 5, 64), (1, 8, 6, 64), False),
        ((1, 64), (2, 64), False),
        ((), (), False),
    ],
)
def test_an_output_that_is_fed_back_is_known_by_an_input_like_it(
    shape: tuple[int, ...], then: tuple[int, ...], state: bool
):
    """State has the type and shape of an input beside the data; a cache of three dimensions or more may be longer."""
    inputs = {"x": np.zeros((1, 3), np.int64), "h": np.zeros(shape, np.float32)}
    outputs = {"y": np.zeros((1, 9), np.float32), "hn": np.zeros(then, np.float32)}
    assert fed_back(inputs, outputs) == ({"hn"} if state else set())
    # Another type is no state, and neither is anything of a model that takes or gives one tensor.
    assert fed_back(inputs, outputs | {"hn": outputs["hn"].astype(np.float64)}) == set()
    assert fed_back({"h": inputs["h"]}, outputs) == set()
    assert fed_back(inputs, {"hn": outputs["hn"]}) == set()


def test_state_is_marked_beside_results():
    """Its distance is measured all the same. Where all outputs look like an input they may be results."""
    inputs = {"x": np.zeros((1, 3), np.float32), "h": np.zeros((1, 8), np.float32)}
    outputs = {"y": np.ones((1, 2), np.float32), "hn": np.ones((1, 8), np.float32)}
    marked = [
        (one.output, one.state, one.measures is None) for one in compare(outputs, outputs, inputs=inputs)
    ]
    assert marked == [("y", False, False), ("hn", True, False)]
    pictures = {"a": np.ones((1, 3), np.float32), "b": np.ones((1, 8), np.float32)}
    assert [one.state for one in compare(pictures, pictures, inputs=inputs)] == [False, False]


def test_recurrent_state_has_no_top1():
    """Its numbers are measured, its rows are not counted as decisions; those of the result beside it are."""
    inputs = {"x": np.zeros((1, 5), np.float32), "h": np.zeros((2, 3), np.float32)}
    q = {"scores": np.array([[1.0, 2.0]], np.float32), "hn": ONE * np.float32([1, 2, 3])}
    f = {"scores": np.array([[2.0, 1.0]], np.float32), "hn": ONE * np.float32([3, 2, 1])}
    scores, state = compare(q, f, inputs=inputs)
    assert scores.disagreement == 1.0
    assert state.disagreement is None
    assert state.measures is not None
    assert state.measures.relative_error == pytest.approx(np.sqrt(8 / 14))
