"""The measures of one output, against exact arithmetic."""

from __future__ import annotations

import math
import sys

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_quantmon.fidelity.numerics import measures as module
from otel_quantmon.fidelity.numerics.measures import SQNR_LIMIT, Measures, measure, top1_noise

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=5)
ROUNDING = 1e-13
"""Of float64 sums over the few elements of these examples."""


def finite(dtype):
    """Every finite value of a type, denormals and the largest included."""
    return hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)


@st.composite
def pairs(draw, *dtypes):
    """(q, f) of one shape, each of one of the types."""
    shape = draw(SHAPES)
    chosen = [draw(st.sampled_from(dtypes)) for _ in "qf"]
    return tuple(draw(hnp.arrays(dtype, shape, elements=finite(dtype))) for dtype in chosen)


def exact(q, f):
    """Norm, relative error, cosine and largest error in 2,200 bits; float64 spans fewer."""
    with mpmath.workprec(2200):
        qs, fs = ([mpmath.mpf(float(x)) for x in side.ravel()] for side in (q, f))
        norm_q, norm_f = (mpmath.sqrt(mpmath.fsum(x * x for x in side)) for side in (qs, fs))
        differences = [a - b for a, b in zip(qs, fs, strict=True)]
        norm_d = mpmath.sqrt(mpmath.fsum(x * x for x in differences))
        inner = mpmath.fsum(a * b for a, b in zip(qs, fs, strict=True))
        return (
            norm_f,
            norm_d / norm_f if norm_f else None,
            inner / (norm_q * norm_f) if norm_q and norm_f else None,
            max(abs(x) for x in differences),
        )


def close(actual, expected, relative=ROUNDING, absolute=0.0):
    """`actual` is `expected`, or the largest float64 where that overflows."""
    if expected >= sys.float_info.max:
        return actual == sys.float_info.max
    return abs(actual - expected) <= relative * abs(expected) + absolute


@settings(max_examples=200, deadline=None)
@given(pairs(np.float64, np.float32, np.float16))
def test_measures_equal_exact_arithmetic_over_the_whole_range_of_every_float_type(pair):
    """From denormals to the largest float64, no sum overflows, vanishes or loses digits."""
    q, f = pair
    norm, relative, cosine, largest = exact(q, f)
    result = measure([(q, f)])
    # Denormal results have fewer digits than ROUNDING asks for.
    assert close(result.reference_norm, norm, absolute=5e-324)
    # Elements are scaled together, so a difference hundreds of decades below the largest of them is a denormal then.
    magnitude = max((float(np.max(np.abs(x))) for x in (q, f) if x.size), default=0.0)
    assert close(result.max_abs_error, largest, absolute=max(5e-324, magnitude * 2e-323))
    if relative is not None:
        assert close(result.relative_error, relative, absolute=1e-120)
        if relative > 0:
            expected = min(SQNR_LIMIT, max(-SQNR_LIMIT, float(-20 * mpmath.log10(relative))))
            assert result.sqnr == pytest.approx(expected, abs=1e-9)
    if cosine is not None:
        assert result.cosine_similarity == pytest.approx(float(cosine), abs=1e-13)
    assert all(
        math.isfinite(value) for value in (result.relative_error, result.sqnr, result.cosine_similarity)
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    exponents=st.tuples(st.integers(-149, 120), st.integers(-149, 120)),
    noise=st.sampled_from([0.0, 1e-7, 1e-2, 1.0]),
    constant=st.booleans(),
)
def test_large_float32_blocks_keep_four_digits(seed, exponents, noise, constant):
    """Block sums in float32 cost under 1e-4, for constants too, whose rounding errors all add up."""
    rng = np.random.default_rng(seed)
    elements = module.FAST_BLOCK + 2 * module.PART + 123
    base = np.full(elements, rng.random()) if constant else rng.standard_normal(elements)
    with np.errstate(over="ignore", under="ignore"):
        f = np.ldexp(base, exponents[0]).astype(np.float32)
        q = (f + np.ldexp(noise * base[::-1], exponents[noise == 1.0]).astype(np.float32)).astype(np.float32)
    wide_f, wide_q = f.astype(np.float64), q.astype(np.float64)
    norm, error = float(np.linalg.norm(wide_f)), float(np.linalg.norm(wide_q - wide_f))
    result = measure([(q, f)])
    assert result.elements == elements
    assert result.reference_norm == pytest.approx(norm, rel=1e-4)
    assert result.max_abs_error == pytest.approx(float(np.max(np.abs(wide_q - wide_f))), rel=1e-6)
    if norm:
        assert result.relative_error == pytest.approx(error / norm, rel=2e-4)
        cosine = float(wide_f @ wide_q) / norm / (float(np.linalg.norm(wide_q)) or 1.0)
        assert result.cosine_similarity == pytest.approx(cosine, abs=1e-4)


@pytest.mark.parametrize("value", [3e38, 1e-42, 1e-25])
def test_a_block_whose_float32_sums_fail_is_summed_in_float64(value):
    """Squares near either end of float32 do not reach the result as infinity or zero."""
    f = np.full(2 * module.FAST_BLOCK, value, np.float32)
    q = f * np.float32(0.5)
    result = measure([(q, f)])
    assert result.reference_norm == pytest.approx(float(f[0]) * math.sqrt(f.size), rel=1e-12)
    assert result.relative_error == pytest.approx(float(f[0] - q[0]) / float(f[0]), rel=1e-12)


def test_several_tensors_are_measured_as_one():
    """A sequence of tensors has the norm of all its elements, and the rows of each."""
    rng = np.random.default_rng(1)
    f = rng.standard_normal((6, 5))
    q = f + rng.standard_normal((6, 5))
    whole, parts = measure([(q, f)]), measure([(q[:2], f[:2]), (q[2:], f[2:])])
    assert parts.relative_error == pytest.approx(whole.relative_error, rel=1e-14)
    assert (parts.rows, parts.flips, parts.elements) == (whole.rows, whole.flips, whole.elements)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nonfinite_elements_are_counted_and_left_out_of_every_measure(data):
    """NaN and Inf count where the two differ, and the rest is measured as if they were not there."""
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=1, max_side=12))
    any_value = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([math.nan, math.inf, -math.inf]))
    q, f = (data.draw(hnp.arrays(np.float64, shape, elements=any_value)) for _ in "qf")
    both = np.isfinite(q) & np.isfinite(f)
    result = measure([(q, f)])
    assert result.elements == np.count_nonzero(both)
    same = (q == f) | (np.isnan(q) & np.isnan(f))
    assert result.nonfinite_mismatches == np.count_nonzero(~both & ~same)
    if both.any():
        clean = measure([(q[both], f[both])])
        assert result.relative_error == pytest.approx(clean.relative_error, rel=1e-14)
        assert result.max_abs_error == clean.max_abs_error
        assert result.cosine_similarity == pytest.approx(clean.cosine_similarity, abs=1e-15)


def test_a_nonfinite_element_in_a_large_block_does_not_spread():
    """One NaN in a block that would be summed in float32 costs that element and no other."""
    f = np.ones(2 * module.FAST_BLOCK, np.float32)
    q = f.copy()
    q[7] = np.nan
    result = measure([(q, f)])
    assert (result.nonfinite_mismatches, result.elements, result.relative_error) == (1, f.size - 1, 0.0)


def rows_and_flips(q, f):
    result = measure([(np.asarray(q, np.float32), np.asarray(f, np.float32))])
    return result.rows, result.flips


def test_a_flip_counts_only_where_the_reference_tells_the_two_classes_apart():
    """A margin below 2**10 eps of the row's magnitude is another order of additions, not a preference."""
    noise = top1_noise(np.dtype(np.float32))
    assert noise == pytest.approx(1.22e-4, rel=1e-2)
    assert rows_and_flips([[0, 1, 0]], [[1, 0, 0]]) == (1, 1)
    assert rows_and_flips([[0, 1, 0]], [[1, 1 - noise / 2, 0]]) == (1, 0)
    assert rows_and_flips([[0, 1, 0]], [[1, 1 - noise * 2, 0]]) == (1, 1)
    # The magnitude is that of the row, not of its top: -0.001 against -0.002 is noise beside -40.
    assert rows_and_flips([[-40, 1, 0]], [[-40, -2e-3, -1e-3]]) == (1, 0)
    # A flip to a class the reference rejects counts, however close the reference's first two are.
    assert rows_and_flips([[0, 0, 1]], [[1, 1 - noise / 2, 0]]) == (1, 1)


def test_rows_that_are_not_numbers_have_no_top_1_but_masked_classes_do_not_matter():
    """NaN, +Inf and mismatches take a row out; -Inf in both, the usual mask of logits, does not."""
    inf, nan = math.inf, math.nan
    assert rows_and_flips([[nan, 1]], [[0, 1]]) == (0, 0)
    assert rows_and_flips([[inf, 1]], [[inf, 1]]) == (0, 0)
    assert rows_and_flips([[-inf, 1]], [[0, 1]]) == (0, 0)
    assert rows_and_flips([[-inf, 1, 2], [1, nan, 0]], [[-inf, 2, 1], [1, 0, 0]]) == (1, 1)


@pytest.mark.parametrize("shape", [(), (4, 1), (0, 3)])
def test_without_an_axis_of_classes_there_are_no_rows(shape):
    """Scalars, columns and empty tensors have no top-1, which is not the same as one that never flips."""
    assert measure([(np.ones(shape), np.ones(shape))]).disagreement is None


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60), classes=st.integers(2, 40), block=st.integers(1, 200), seed=st.integers(0, 1000)
)
def test_flips_do_not_depend_on_where_blocks_end(rows, classes, block, seed):
    """Every row is looked at once, in blocks of any size, also one smaller than a row."""
    rng = np.random.default_rng(seed)
    q, f = rng.standard_normal((2, rows, classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        result = measure([(q, f)])
    assert (result.rows, result.flips) == (rows, np.count_nonzero(q.argmax(1) != f.argmax(1)))


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 500), most=st.integers(1, 40), block=st.integers(1, 64))
def test_beyond_the_limit_rows_are_taken_evenly_across_blocks(rows, most, block):
    """A sample of rows is every n-th one, with n odd, however the blocks fall."""
    f = np.tile([1.0, 0.0], (rows, 1))
    step = -(-rows // most) | 1
    q = f.copy()
    q[::step] = [0.0, 1.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(module, "MAX_ROWS", most)
        result = measure([(q, f)])
    assert result.rows == result.flips == -(-rows // step) <= most


def test_coarser_types_of_the_reference_decide_less():
    """A float16 reference adds its own rounding of two values, bfloat16 more; float64 resolves more."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    noises = [
        top1_noise(np.dtype(dtype)) for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
    ]
    assert noises == sorted(noises)
    assert len(set(noises)) == len(noises)


def test_zero_vectors_have_a_stated_result():
    """Against a zero reference nothing is relative, and no NaN comes of it."""
    zero, one = np.zeros(3), np.ones(3)
    assert measure([(zero, zero)]) == Measures(3, 0.0, 0.0, SQNR_LIMIT, 1.0, 0.0, 1, 0, 0)
    assert measure([(one, zero)]).relative_error == sys.float_info.max
    assert measure([(one, zero)]).sqnr == -SQNR_LIMIT
    assert measure([(zero, one)]).cosine_similarity == 0.0
    assert measure([]).elements == 0


def test_arrays_in_any_memory_order_are_measured_alike():
    """Transposed views and steps give what a contiguous copy gives."""
    rng = np.random.default_rng(3)
    q, f = rng.standard_normal((2, 8, 6)).transpose(0, 2, 1)[:, ::2]
    assert measure([(q, f)]) == measure([(q.copy(), f.copy())])


def test_inputs_are_left_as_they_were():
    """Measuring writes into neither array, also when non-finite values are masked."""
    q, f = np.array([[np.nan, 2.0], [0.0, 1.0]]), np.array([[-np.inf, 1.0], [1.0, 0.0]])
    before = q.copy(), f.copy()
    for array in (q, f):
        array.flags.writeable = False
    measure([(q, f)])
    np.testing.assert_array_equal(q, before[0])
    np.testing.assert_array_equal(f, before[1])


def test_arrays_of_two_shapes_are_refused():
    """Broadcasting would measure something nobody asked for."""
    with pytest.raises(ValueError, match="one shape"):
        measure([(np.ones((2, 3)), np.ones(3))])
