"""What one tensor shows without a reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_quantmon.fidelity.numerics.tensor_checks import TensorCheck, check_tensor
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts


def quantized(dtype="uint8", scales=(1 / 255,), zero_points=(0,), axis=None, declared="float32"):
    return TensorFacts("x", declared, None, QuantizationParameters(scales, zero_points, dtype, axis))


@settings(max_examples=150, deadline=None)
@given(
    values=hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(width=32)),
    scale=st.floats(2**-10, 8.0, width=32),
    zero_point=st.integers(-128, 127),
)
def test_a_clipped_value_is_one_that_the_quantizer_saturates(values, scale, zero_point):
    """The clip ratio is what rounding to codes and comparing with the ends of int8 gives, NaN aside."""
    check = check_tensor(values, quantized("int8", (scale,), (zero_point,)))
    wide = values.astype(np.float64)
    codes = wide / scale + zero_point
    # Within float32's rounding of the bound either answer is right.
    slack = 1e-5 * (1 + abs(zero_point) + 128)
    low, high = -128.5, 127.5
    least = np.count_nonzero((codes < low - slack) | (codes > high + slack)) / values.size
    most = np.count_nonzero((codes < low + slack) | (codes > high - slack)) / values.size
    assert least <= check.clip_ratio <= most
    assert check.nan == np.count_nonzero(np.isnan(values))
    assert check.infinite == np.count_nonzero(np.isinf(values))
    assert check.nonfinite == (not np.isfinite(values).all())
    finite = values[np.isfinite(values)]
    assert (check.minimum, check.maximum) == ((finite.min(), finite.max()) if finite.size else (None, None))


@pytest.mark.parametrize("factor", [1, 3, 100])
def test_scaled_input_is_clipped_by_as_much_as_it_leaves_the_range(factor):
    """The calibrated input clips nothing, its multiples exactly what numpy counts outside the range."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(5000).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    check = check_tensor(values * np.float32(factor), quantized("uint8", (scale,), (zero_point,)))
    bounds = (0.5 + zero_point) * -scale, (255.5 - zero_point) * scale
    expected = np.mean((values * factor < bounds[0]) | (values * factor > bounds[1]))
    assert check.clip_ratio == pytest.approx(expected, abs=1e-3)
    assert (check.clip_ratio == 0.0) == (factor == 1)


def test_the_ends_of_the_range_are_not_clipped_for_their_rounding():
    """White pixels at 1.0 against 255 * float32(1/255) are inside, whichever way the scale was rounded."""
    for scale in (np.nextafter(np.float32(1 / 255), np.float32(0)), np.float32(1 / 255)):
        assert check_tensor(np.ones(4, np.float32), quantized(scales=(float(scale),))).clip_ratio == 0.0


def test_integer_input_counts_the_codes_at_the_ends():
    """Where quantization happened before the model, saturation shows as codes at the ends of the type."""
    check = check_tensor(np.array([-128, -128, 0, 127, 126], np.int8))
    assert check == TensorCheck(5, minimum=-128.0, maximum=127.0, clip_ratio=3 / 5, range_use=1.0)
    nibbles = check_tensor(np.array([-8, 0, 3, 7], np.int8), quantized("int4", declared="int8"))
    assert nibbles.clip_ratio == 0.5
    assert check_tensor(np.array([0, 64], np.uint8)).range_use == pytest.approx(64 / 255)


def test_wide_integers_without_parameters_are_indices():
    """Token numbers have no range that they could leave."""
    check = check_tensor(np.array([0, 2**31 - 1], np.int32))
    assert (check.clip_ratio, check.range_use) == (None, None)
    assert (
        check_tensor(np.array([0, 2**15 - 1], np.int16), quantized("int16", declared="int16")).clip_ratio
        == 0.5
    )


def test_range_use_is_the_share_that_is_spanned():
    """Values in a quarter of the range use a quarter of the codes; values beyond it use no more than all."""
    facts = quantized(scales=(1 / 255,))
    assert check_tensor(np.array([0.25, 0.5], np.float32), facts).range_use == pytest.approx(0.25)
    assert check_tensor(np.array([-9, 9], np.float32), facts).range_use == 1.0
    assert check_tensor(np.array([5, 9], np.float32), facts).range_use == 0.0


def test_parameters_along_an_axis_apply_to_their_channel():
    """A value may be outside in one channel and inside in the next; range use is the mean of both."""
    values = np.array([[0.5, 0.5], [2.0, 2.0], [0.0, 0.0]], np.float32)
    check = check_tensor(values, quantized(scales=(1 / 255, 4 / 255), zero_points=(0, 0), axis=1))
    assert check.clip_ratio == pytest.approx(1 / 6)
    assert check.range_use == pytest.approx((1.0 + 0.5) / 2)
    values[0, 1] = np.nan
    assert (
        check_tensor(values, quantized(scales=(1 / 255, 4 / 255), zero_points=(0, 0), axis=1)).range_use
        == 0.75
    )


def test_without_parameters_only_what_needs_none_is_said():
    """Extremes and non-finite values are known, clipping is not; nor is it for parameters that do not fit."""
    values = np.array([1.0, np.nan, -np.inf], np.float32)
    expected = TensorCheck(3, nan=1, infinite=1, minimum=1.0, maximum=1.0)
    assert check_tensor(values) == expected
    assert check_tensor(values, quantized(scales=(1.0, 1.0), zero_points=(0, 0), axis=0)) == expected
    assert check_tensor(values, quantized("float8e4m3fn")) == expected


def test_infinite_values_are_outside_and_nan_is_not():
    """As numpy compares them; both are counted as non-finite besides."""
    check = check_tensor(np.array([np.inf, -np.inf, np.nan, 0.5], np.float32), quantized())
    assert (check.clip_ratio, check.infinite, check.nan) == (0.5, 2, 1)
    nothing = check_tensor(np.array([np.nan, np.inf], np.float32), quantized())
    assert (nothing.clip_ratio, nothing.range_use, nothing.minimum) == (0.5, None, None)


def test_narrow_floats_are_checked_like_float32():
    """float16 has bounds beyond its own largest value, bfloat16 comes in its own type or as bits."""
    check = check_tensor(np.array([60000, 1], np.float16), quantized("uint8", (1000.0,)))
    assert check.clip_ratio == 0.0
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([2.0, np.nan, 0.5], ml_dtypes.bfloat16)
    bits = values.view(np.uint16)
    assert check_tensor(values, quantized()) == check_tensor(bits, quantized(declared="bfloat16"))
    assert check_tensor(bits, quantized(declared="bfloat16")).clip_ratio == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "values", [np.array(["a"]), np.array(["a"], object), np.array([True]), np.ones(1, complex)]
)
def test_what_holds_no_numbers_has_no_check(values):
    """Strings, objects, booleans and complex numbers are left alone."""
    assert check_tensor(values) is None


@pytest.mark.parametrize("shape", [(), (0,), (0, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_scalars_and_empty_tensors_are_checked(shape, dtype):
    """Neither fails; an empty one has no extremes."""
    check = check_tensor(np.zeros(shape, dtype), quantized("int8", declared=np.dtype(dtype).name))
    assert check.elements == int(np.prod(shape))
    assert (check.minimum is None) == (check.elements == 0)
