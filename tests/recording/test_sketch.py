"""A sketch tells of its numbers what they are, within its stated error, however they came together."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.recording.sketch import FINEST_SCALE, Sketch

# Whole nanoseconds from 0 to days, such as the durations of calls; and floats of any size with their edges.
DURATIONS = st.integers(0, 10**15)
FLOATS = st.one_of(
    st.floats(0, 1e300),
    st.integers(-1074, 996).map(lambda power: math.ldexp(1.0, power)),
    st.sampled_from([0.0, 5e-324, sys.float_info.min, 1e300]),
)
SIZES = st.integers(2, 400)
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=5)


def sketch_of(values: Sequence[float], size: int = 320) -> Sketch:
    sketch = Sketch(size)
    sketch.add(values)
    return sketch


def merged(*sketches: Sketch) -> Sketch:
    """One that all others were merged into, one after another; they stay as they are."""
    into = Sketch(10**6)
    for sketch in sketches:
        into.merge(sketch)
    return into


def bounds_of(wire: dict[str, Any]) -> list[tuple[float, float, int]]:
    """Each bucket's lower and upper bound as the data model defines them, and its count."""
    width = 2.0 ** -wire["scale"]
    return [
        (2.0 ** (index * width), 2.0 ** ((index + 1) * width), count)
        for index, count in enumerate(wire["bucket_counts"], wire["offset"])
    ]


@given(values=st.lists(DURATIONS, min_size=1), shares=SHARES)
def test_a_quantile_is_within_the_stated_error_of_a_number_that_was_counted(
    values: list[int], shares: list[float]
) -> None:
    """Against the inverted empirical distribution, at whatever scale the spread of the numbers allows."""
    sketch = sketch_of(values)
    exact = np.quantile(values, shares, method="inverted_cdf")
    assert sketch.quantiles(*shares) == pytest.approx(exact, rel=sketch.relative_error * (1 + 1e-9), abs=0)


@given(values=st.lists(FLOATS, min_size=1), shares=SHARES, size=SIZES)
def test_so_it_is_for_floats_of_any_size(values: list[float], shares: list[float], size: int) -> None:
    """Also in few buckets; numbers below the normal ones are taken for the least of those."""
    sketch = sketch_of(values, size)
    normal = [max(value, sys.float_info.min) if value else value for value in values]
    exact = np.quantile(normal, shares, method="inverted_cdf")
    found = [max(value, sys.float_info.min) if value else value for value in sketch.quantiles(*shares)]
    assert found == pytest.approx(exact, rel=sketch.relative_error * (1 + 1e-9), abs=0)
    wire = sketch.to_wire()
    assert len(wire["bucket_counts"]) <= size


@given(batches=st.lists(st.lists(DURATIONS, max_size=40), max_size=8))
def test_number_sum_and_extremes_are_exact(batches: list[list[int]]) -> None:
    """In whatever batches the numbers came."""
    sketch = Sketch()
    for batch in batches:
        sketch.add(batch)
    values = [value for batch in batches for value in batch]
    wire = sketch.to_wire()
    assert (sketch.count, sketch.total) == (len(values), sum(values))
    assert (sketch.least, sketch.most) == (min(values, default=0), max(values, default=0))
    assert wire["count"] == wire["zero_count"] + sum(wire["bucket_counts"]) == len(values)
    assert wire["zero_count"] == values.count(0)


@given(
    values=st.lists(st.integers(-40, 40).map(lambda power: 2.0**power) | st.integers(1, 10**6)),
    size=SIZES,
)
def test_buckets_are_those_of_the_data_model(values: list[float], size: int) -> None:
    """Upper bounds are inclusive, powers of two lie exactly on them, and the scale is no coarser than need be."""
    wire = sketch_of(values, size).to_wire()
    for lower, upper, count in bounds_of(wire):
        assert count == sum(lower * (1 + 1e-12) < value <= upper * (1 + 1e-12) for value in values)
    if wire["scale"] < FINEST_SCALE:
        finer = 2.0 ** (wire["scale"] + 1)
        indices = [math.ceil(math.log2(value) * finer - 1e-9) - 1 for value in values]
        assert max(indices) - min(indices) >= size


@given(batches=st.lists(st.lists(FLOATS, max_size=20), max_size=5), size=SIZES, late=st.integers(2, 400))
def test_merging_is_to_count_everything_in_one(batches: list[list[float]], size: int, late: int) -> None:
    """Buckets, scale, number and extremes of the merged sketch are those of the union, in the smaller size."""
    smaller = min([size] + [late] * (len(batches) > 1))
    parts = [sketch_of(batch, size if i == 0 else late) for i, batch in enumerate(batches)]
    whole = sketch_of([value for batch in batches for value in batch], smaller if batches else 320)
    found, expected = merged(*parts).to_wire(), whole.to_wire()
    assert found.pop("sum") == pytest.approx(expected.pop("sum"), rel=1e-9)
    assert found == expected


@given(one=st.lists(DURATIONS), other=st.lists(DURATIONS), third=st.lists(DURATIONS), size=SIZES)
def test_merging_is_commutative_and_associative(
    one: list[int], other: list[int], third: list[int], size: int
) -> None:
    """Sketches of many hosts may be merged in any order and in groups: sums of whole numbers are equal too."""
    a, b, c = sketch_of(one, size), sketch_of(other), sketch_of(third, size + 1)
    expected = merged(a, b, c).to_wire()
    assert merged(c, b, a).to_wire() == expected
    assert merged(merged(a, b), c).to_wire() == expected
    assert merged(a, merged(b, c)).to_wire() == expected


@given(values=st.lists(st.integers(1, 10**12), min_size=1), size=st.integers(2, 60))
def test_one_scale_down_merges_two_neighbours(values: list[int], size: int) -> None:
    """What was counted at the finest scale and then coarsened lies where the data model's pairs lie."""
    fine, coarse = sketch_of(values, 10**6).to_wire(), sketch_of(values, size).to_wire()
    down = fine["scale"] - coarse["scale"]
    pairs: Counter[int] = Counter()
    for index, count in enumerate(fine["bucket_counts"], fine["offset"]):
        pairs[index >> down] += count
    assert dict(enumerate(coarse["bucket_counts"], coarse["offset"])) == {
        index: pairs[index] for index in range(min(pairs), max(pairs) + 1)
    }


@given(values=st.lists(FLOATS), size=SIZES)
def test_what_was_sent_is_what_is_read(values: list[float], size: int) -> None:
    """Through JSON and back, nothing has changed, and merging goes on from there."""
    sketch = sketch_of(values, size)
    wire = json.loads(json.dumps(sketch.to_wire()))
    again = Sketch.from_wire(wire, size)
    assert again.to_wire() == wire == sketch.to_wire()
    again.add([1.0])
    sketch.add([1.0])
    assert again.to_wire() == sketch.to_wire()


def test_a_point_of_the_sdk_is_read_and_coarsened() -> None:
    """The SDK starts at scale 20; its buckets of a few durations are these here, merged."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

    values = [0.0, 1.5, 1.7, 2.0, 3.0, 3.0, 4.0, 5.5]
    reader = InMemoryMetricReader()
    views = [View(instrument_name="d", aggregation=ExponentialBucketHistogramAggregation())]
    histogram = MeterProvider([reader], views=views).get_meter("t").create_histogram("d")
    for value in values:
        histogram.record(value)
    data: Any = reader.get_metrics_data()
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert point.scale > FINEST_SCALE
    read = Sketch.from_wire(
        {
            "count": point.count,
            "sum": point.sum,
            "min": point.min,
            "max": point.max,
            "scale": point.scale,
            "zero_count": point.zero_count,
            "offset": point.positive.offset,
            "bucket_counts": list(point.positive.bucket_counts),
        }
    )
    assert read.to_wire() == sketch_of(values).to_wire()


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 21},
        {"scale": -11},
        {"scale": True},
        {"scale": None},
        {"zero_count": -1, "count": 2},
        {"count": 4},
        {"sum": math.nan},
        {"sum": "3"},
        {"max": math.inf},
        {"min": 2.0},
        {"bucket_counts": [1, -1, 3]},
        {"bucket_counts": [1.0, 0, 2]},
        {"bucket_counts": {"0": 3}},
        {"offset": 10**9},
        {"offset": -(10**9)},
    ],
)
def test_what_is_no_sketch_is_refused(change: dict[str, Any]) -> None:
    """A stored or received sketch is input from outside."""
    wire = sketch_of([1, 1, 1]).to_wire()
    Sketch.from_wire(wire)
    with pytest.raises(ValueError):
        Sketch.from_wire(wire | change)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, -math.inf, 2**1030])
def test_a_number_that_is_none_leaves_the_sketch_as_it_was(bad: float) -> None:
    """The whole batch is refused, wherever in it the number lies."""
    sketch = sketch_of([1.0, 2.0])
    before = sketch.to_wire()
    for batch in ([bad], [bad, 3.0], [3.0, bad], [3.0, bad, 4.0]):
        with pytest.raises(ValueError):
            sketch.add(batch)
        assert sketch.to_wire() == before


def test_an_empty_sketch_has_no_quantiles() -> None:
    """And one of zeros alone has those."""
    with pytest.raises(ValueError):
        Sketch().quantiles(0.5)
    assert sketch_of([0, 0]).quantiles(0.0, 0.5, 1.0) == [0, 0, 0]


def test_a_sketch_of_one_bucket_is_refused() -> None:
    """Numbers below and above 1 never share a bucket."""
    with pytest.raises(ValueError):
        Sketch(1)


def test_the_stated_error_is_that_of_the_scale() -> None:
    """1.1% while the extremes lie within a factor of 1,000, then twice as much."""
    assert sketch_of([1, 1000]).relative_error == pytest.approx(0.01083, abs=1e-5)
    assert sketch_of([1, 2000]).relative_error == pytest.approx(0.02166, abs=1e-5)
    assert sketch_of([5e-324, 1e300], 2).relative_error == 1.0


@given(values=st.lists(st.integers(2**53, 2**60), min_size=1, max_size=30))
def test_whole_numbers_that_no_float_tells_apart_are_counted_once(values: list[int]) -> None:
    """Past 2**53 a number may be above the bound of the bucket that its float lies in."""
    wire = sketch_of(values).to_wire()
    assert wire["count"] == sum(wire["bucket_counts"]) == len(values)
    assert wire["sum"] == sum(values)
