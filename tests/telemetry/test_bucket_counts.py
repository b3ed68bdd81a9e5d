"""Numbers that are counted as they come, and recorded later, give the points that recording each of them gives."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, ExponentialBucketHistogramAggregation, View

from otel_quantmon.telemetry.bucket_counts import BucketCounts
from otel_quantmon.telemetry.bulk_histogram import BulkHistogram

BOUNDS = [10, 20, 50, 1000]
NUMBERS = st.lists(st.one_of(st.integers(0, 2000), st.sampled_from(BOUNDS)), max_size=30)
BATCHES = st.lists(NUMBERS, max_size=6)


@given(batches=BATCHES)
def test_a_tally_knows_what_a_histogram_tells(batches: list[list[int]]) -> None:
    """Buckets with inclusive upper bounds, number, sum and extremes, in whatever batches the numbers came."""
    bucket_counts = BucketCounts(BOUNDS)
    for batch in batches:
        bucket_counts.add(batch.copy())
    numbers = [number for batch in batches for number in batch]
    expected = Counter(bisect_left(BOUNDS, number) for number in numbers)
    assert bucket_counts.buckets == [expected[bucket] for bucket in range(len(BOUNDS) + 1)]
    assert (bucket_counts.number, bucket_counts.total) == (len(numbers), sum(numbers))
    assert (bucket_counts.least, bucket_counts.most) == (min(numbers, default=0), max(numbers, default=0))


@given(numbers=NUMBERS)
def test_what_is_taken_lies_where_the_numbers_lay(numbers: list[int]) -> None:
    """The first is the least; each bucket is emptied, by numbers that belong into it and are within the extremes."""
    bucket_counts = BucketCounts(BOUNDS)
    bucket_counts.add(numbers.copy())
    copy = bucket_counts.copy()
    taken = [bucket_counts.take() for _ in numbers]
    assert bucket_counts.number == 0
    assert set(bucket_counts.buckets) == {0}
    assert taken[:1] == sorted(numbers)[:1]
    assert all(min(numbers) <= number <= max(numbers) for number in taken)
    again = BucketCounts(BOUNDS)
    again.add(taken.copy())
    assert again.buckets == copy.buckets


def points(reader: InMemoryMetricReader) -> list[Any]:
    """Every point with its attributes, counts, sum and extremes, whatever the kind of histogram."""
    data = reader.get_metrics_data()
    if data is None:
        return []
    return [
        (
            metric.name,
            dict(point.attributes),
            point.count,
            pytest.approx(point.sum, rel=1e-12),
            point.min,
            point.max,
            getattr(point, "bucket_counts", None) or point.scale,
        )
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
    ]


def reported(
    batches: Sequence[Sequence[int]],
    views: Sequence[View],
    temporality: AggregationTemporality,
    *,
    counted: bool,
) -> tuple[list[Any], bool]:
    """What two readers see after each batch of milliseconds and at the end; and whether it was counted first."""
    often, once = (InMemoryMetricReader({Histogram: temporality}) for _ in range(2))
    provider = MeterProvider([often, once], views=views, shutdown_on_exit=False)
    boundaries = [bound / 1000 for bound in BOUNDS]
    instrument = provider.get_meter("m").create_histogram("h", explicit_bucket_boundaries_advisory=boundaries)
    histogram = BulkHistogram(instrument, boundaries, 1000)
    point = histogram.point({"model": "a"})
    seen: list[Any] = []
    for batch in batches:
        if counted:
            point.add(batch.copy())
            point.report()
        else:
            for number in batch:
                instrument.record(number / 1000, {"model": "a"}, Context())
        seen.append(points(often))
    seen.append(points(once))
    provider.shutdown()
    return seen, histogram.takes_counts


@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
@pytest.mark.parametrize(
    ("views", "counts"),
    [
        ([], True),
        ([View(instrument_name="h", attribute_keys=set())], True),
        ([View(instrument_name="h", aggregation=DropAggregation())], True),
        ([View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation())], False),
    ],
    ids=["advised", "no_attributes", "dropped", "exponential"],
)
@settings(deadline=None, max_examples=20)
@given(batches=BATCHES)
def test_counts_give_the_points_of_record(
    views: list[View], counts: bool, temporality: AggregationTemporality, batches: list[list[int]]
) -> None:
    """In the advised buckets numbers are counted, elsewhere recorded; a reader sees the same, delta or cumulative."""
    # The exponential histogram of the SDK cannot merge zeros alone, not by `record` either.
    positive = [[1, 2, 3], *([number + 1 for number in batch] for batch in batches)]
    seen, counted = reported(positive, views, temporality, counted=True)
    assert counted is counts
    assert seen == reported(positive, views, temporality, counted=False)[0]


def test_a_point_that_a_reader_takes_away_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another reader's collection between the first value and the counts costs no count."""
    reader = InMemoryMetricReader({Histogram: AggregationTemporality.DELTA})
    provider = MeterProvider([reader], shutdown_on_exit=False)
    boundaries = [float(bound) for bound in BOUNDS]
    instrument: Any = provider.get_meter("m").create_histogram(
        "h", explicit_bucket_boundaries_advisory=boundaries
    )
    point = BulkHistogram(instrument, boundaries).point({})
    point.add([1, 2, 3])
    collected = [counts[2] for counts in points(reader)]
    point.add([4, 15, 2000])
    record = instrument.record

    def record_and_collect(*values: Any) -> None:
        record(*values)
        collected.extend(counts[2] for counts in points(reader))

    with monkeypatch.context() as race:
        race.setattr(instrument, "record", record_and_collect)
        point.report()
    collected.extend(counts[2] for counts in points(reader))
    assert collected == [3, 1, 2]
    provider.shutdown()
