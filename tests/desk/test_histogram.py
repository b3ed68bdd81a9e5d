"""Histograms as numbers: adding, subtracting, quantiles, and the test whether two differ."""

from __future__ import annotations

import math
from bisect import bisect_left
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.desk.histogram import Explicit, Exponential, Histogram, from_row
from otel_quantmon.desk.significance import compare

BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
VALUES = st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=200)
SCALES = st.integers(-2, 6)


def explicit(values: list[float]) -> Histogram:
    counts = [0] * (len(BOUNDS) + 1)
    for value in values:
        counts[bisect_left(BOUNDS, value)] += 1
    return Histogram(len(values), sum(values), min(values), max(values), Explicit(BOUNDS, tuple(counts)))


def exponential(values: list[float], scale: int) -> Histogram:
    """By the specification's own formula: bucket i holds base**i < value <= base**(i+1)."""
    counts: dict[int, int] = {}
    for value in values:
        index = math.ceil(math.log2(value) * 2.0**scale) - 1
        counts[index] = counts.get(index, 0) + 1
    buckets = Exponential(scale, 0, counts, {})
    return Histogram(len(values), sum(values), min(values), max(values), buckets)


@given(VALUES, VALUES)
def test_added_is_of_all_values(one: list[float], other: list[float]) -> None:
    """Two explicit histograms together are that of both lists; what was added is got back."""
    both = explicit(one) + explicit(other)
    whole = explicit(one + other)
    assert (both.count, both.min, both.max, both.buckets) == (
        whole.count,
        whole.min,
        whole.max,
        whole.buckets,
    )
    added = both.minus(explicit(one))
    assert added is not None
    assert added.buckets == explicit(other).buckets
    assert (explicit(one).minus(both) is None) == bool(other)


@given(VALUES, SCALES, VALUES, SCALES)
def test_exponential_histograms_are_added_at_the_coarser_scale(
    one: list[float], fine: int, other: list[float], coarse: int
) -> None:
    """As many values, in as many or fewer buckets, at the smaller scale."""
    both = (exponential(one, fine) + exponential(other, coarse)).buckets
    assert isinstance(both, Exponential)
    assert both.scale == min(fine, coarse)
    assert sum(both.positive.values()) == len(one) + len(other)
    expected = exponential(one + other, both.scale).buckets
    assert isinstance(expected, Exponential)
    # A value next to a bound may fall to either side of it, by the rounding of its logarithm.
    assert (
        sum(
            abs(both.positive.get(i, 0) - expected.positive.get(i, 0))
            for i in {*both.positive, *expected.positive}
        )
        <= 2
    )


@given(VALUES, st.floats(0.01, 0.99), st.booleans())
def test_a_quantile_is_in_the_bucket_of_the_value(values: list[float], share: float, fine: bool) -> None:
    """Between the bounds of the bucket that the value of that rank is in, and between the smallest and the largest."""
    found = exponential(values, 4) if fine else explicit(values)
    quantile = found.quantile(share)
    assert quantile is not None
    value = sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]
    assert found.buckets is not None
    assert any(
        low * 0.999 <= value <= high * 1.001 and low * 0.999 <= quantile <= high * 1.001
        for low, high, _ in found.buckets.edges()
    )
    assert min(values) <= quantile <= max(values)


def test_quantiles_of_a_smooth_distribution_are_close() -> None:
    """Over logarithms evenly spread values: within 1 % of the exact ones."""
    values = [10 ** (-3 + 2 * place / 9999) for place in range(10_000)]
    exact = quantiles(values, n=100)
    for percent in (50, 95, 99):
        assert explicit(values).quantile(percent / 100) == pytest.approx(exact[percent - 1], rel=0.01)


def test_without_buckets_there_is_no_quantile() -> None:
    """A count and a sum tell of none; nor does nothing."""
    assert Histogram(5, 1.0, 0.1, 0.3, None).quantile(0.5) is None
    assert Histogram(0, 0.0, None, None, None).quantile(0.5) is None


def test_buckets_that_do_not_fit_are_dropped_and_counts_are_not() -> None:
    """Other bounds, or another kind: no quantile, but the count is right."""
    both = explicit([0.003] * 3) + exponential([0.003] * 4, 3)
    assert (both.count, both.buckets) == (7, None)


@given(VALUES, SCALES)
def test_what_is_written_is_read(values: list[float], scale: int) -> None:
    """Both kinds, through the text that the store has."""
    for found, kind in ((explicit(values), "histogram"), (exponential(values, scale), "exponential")):
        assert found.buckets is not None
        row = {
            "count": found.count,
            "sum": found.sum,
            "min": found.min,
            "max": found.max,
            "buckets": found.buckets.to_json(),
        }
        assert from_row(row, kind, str(list(BOUNDS))) == found


def test_too_many_buckets_become_fewer() -> None:
    """Far apart at a fine scale: the scale falls until there are at most 320."""
    one = Exponential(20, 0, dict.fromkeys(range(0, 30_000, 40), 1), {})
    found = one + Exponential(20, 3, {-5: 1}, {})
    assert len(found.positive) <= 320
    assert sum(found.positive.values()) == 751
    assert found.zero == 3


@pytest.mark.parametrize(
    ("distance", "count", "p"),
    [
        # Critical values of the two-sample test for large samples: c(0.05) = 1.358, c(0.01) = 1.628.
        (1.358, 10_000_000, 0.05),
        (1.628, 10_000_000, 0.01),
    ],
)
def test_the_limit_distribution(distance: float, count: int, p: float) -> None:
    """The published critical values have their probabilities."""
    share = distance / math.sqrt(count / 2)
    moved = round(count * share)
    one = Histogram(count, 1.0, None, None, Explicit((1.0,), (count // 2, count // 2)))
    other = Histogram(count, 1.0, None, None, Explicit((1.0,), (count // 2 - moved, count // 2 + moved)))
    found = compare(one, other)
    assert found is not None
    assert found.distance == pytest.approx(share, rel=1e-3)
    assert found.p == pytest.approx(p, rel=0.02)


def test_the_test_agrees_with_an_implementation_by_others() -> None:
    """scipy's, on values that lie on the bounds, where nothing is lost to the buckets."""
    stats = pytest.importorskip("scipy.stats")
    one = [
        bound for bound, times in zip(BOUNDS, (40, 30, 20, 10, 5, 2, 1), strict=True) for _ in range(times)
    ]
    other = [
        bound for bound, times in zip(BOUNDS, (30, 30, 25, 15, 8, 2, 1), strict=True) for _ in range(times)
    ]
    found = compare(explicit(one), explicit(other))
    assert found is not None
    theirs = stats.ks_2samp(one, other, method="asymp")
    assert found.distance == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.06)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (exponential([0.001] * 1000, 3), exponential([0.1] * 1000, 3)),
        (exponential([0.001] * 1000, 5), exponential([0.0013] * 1000, 2)),
        (exponential([0.001] * 1000, 3), explicit([BOUNDS[-1]] * 1000)),
        (explicit([BOUNDS[0]] * 1000), exponential([1e9] * 1000, 0)),
    ],
)
def test_distributions_that_lie_apart_differ(one: Histogram, other: Histogram) -> None:
    """Also where no bound is of both: exponential histograms have buckets only where there are values."""
    for found in (compare(one, other), compare(other, one)):
        assert found is not None
        assert found.distance == 1.0
        assert found.p < 1e-100


def test_what_the_buckets_hide_is_not_compared() -> None:
    """A bound inside of a bucket that holds values says nothing; if there is no other, there is no test."""
    one = Histogram(10, 1.0, None, None, Explicit((1.0, 3.0), (0, 10, 0)))
    other = Histogram(10, 1.0, None, None, Explicit((2.0, 4.0), (0, 10, 0)))
    assert compare(one, other) is None
    # Below 1 there are values of the second one alone, and whether they are more than a half is not known.
    other = Histogram(10, 1.0, None, None, Explicit((1.0, 2.0, 4.0), (5, 0, 5, 0)))
    found = compare(one, other)
    assert found is not None
    assert found.distance == 0.5


@given(VALUES, VALUES, SCALES)
def test_the_distance_is_never_more_than_that_of_the_values(
    one: list[float], other: list[float], scale: int
) -> None:
    """So that the test errs towards no difference, whatever the two kinds of buckets are."""
    exact = max(
        abs(
            sum(value <= bound for value in one) / len(one)
            - sum(value <= bound for value in other) / len(other)
        )
        for bound in [*one, *other]
    )
    found = compare(explicit(one), exponential(other, scale))
    assert found is None or found.distance <= exact + 1e-9


@given(VALUES)
def test_a_distribution_does_not_differ_from_itself(values: list[float]) -> None:
    """Distance 0, probability 1; and between kinds whose bounds differ there is no test."""
    assert compare(explicit(values), explicit(values)) == (0.0, 1.0)
    assert compare(explicit(values), Histogram(3, 1.0, None, None, None)) is None
