"""Recording many values at once gives the points that recording them one by one gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    Histogram,
    MeterProvider,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource, ResourceDetector

from otel_quantmon.telemetry import bulk_histogram as bulk
from otel_quantmon.telemetry.bulk_histogram import BulkHistogram
from otel_quantmon.telemetry.proof import Job, Proof

Batches = Sequence[tuple[dict[str, Any], list[float]]]
Record = Callable[[BulkHistogram, list[float], dict[str, Any]], None]

# No zeros: the SDK's exponential histogram cannot merge a collection of zeros alone with a later one, not by
# `record` either.
VALUES = st.one_of(
    st.floats(1e-9, 100),
    st.sampled_from([0.001, 0.1, 1.0, 5.0, 10.0, 10000.0, 1e6]),
    st.integers(1, 2000),
)
ATTRIBUTES = st.fixed_dictionaries(
    {"model": st.sampled_from("ab")}, optional={"error": st.sampled_from("xy")}
)
BATCHES = st.lists(st.tuples(ATTRIBUTES, st.lists(VALUES, max_size=20)), max_size=6)

SHAPES: dict[str, list[View]] = {
    "explicit": [],
    "exponential": [View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation(max_size=8))],
    "no_min_max": [
        View(
            instrument_name="h",
            aggregation=ExplicitBucketHistogramAggregation(boundaries=[0.5], record_min_max=False),
        )
    ],
    "no_buckets": [View(instrument_name="h", aggregation=ExplicitBucketHistogramAggregation(boundaries=[]))],
    "some_attributes": [View(instrument_name="h", attribute_keys={"error"})],
    "no_attributes": [View(instrument_name="h", attribute_keys=set())],
    "dropped": [View(instrument_name="h", aggregation=DropAggregation())],
    "twice": [
        View(instrument_name="h", name="first", attribute_keys={"model"}),
        View(instrument_name="h", name="second", aggregation=ExponentialBucketHistogramAggregation()),
    ],
}


def one_by_one(histogram: BulkHistogram, values: list[float], attributes: dict[str, Any]) -> None:
    for value in values:
        histogram.histogram.record(value, attributes, Context())


def at_once(histogram: BulkHistogram, values: list[float], attributes: dict[str, Any]) -> None:
    histogram.record_many(values, attributes)


def points(reader: InMemoryMetricReader) -> list[Any]:
    """All points, but for sums, which depend on the order, and times."""
    data = reader.get_metrics_data()
    if data is None:
        return []
    found: list[Any] = []
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        shapes = ("bucket_counts", "explicit_bounds", "scale", "zero_count")
        found += [
            (
                metric.name,
                sorted(point.attributes.items()),
                point.count,
                point.min,
                point.max,
                pytest.approx(point.sum, rel=1e-12),
                [getattr(point, shape, None) for shape in shapes],
                _filled(getattr(point, "positive", None)),
            )
            for point in metric.data.data_points
        ]
    return sorted(found, key=lambda point: (point[0], point[1]))


def _filled(buckets: Any) -> dict[int, int]:
    """An exponential histogram's buckets by index; how many empty ones lie around depends on the order."""
    if buckets is None:
        return {}
    return {buckets.offset + i: count for i, count in enumerate(buckets.bucket_counts) if count}


def collected(
    record: Record, batches: Batches, views: list[View], temporality: AggregationTemporality, **options: Any
) -> list[Any]:
    """What two readers see, one that collects after every batch and one that collects at the end."""
    often, once = (InMemoryMetricReader({Histogram: temporality}) for _ in range(2))
    provider = MeterProvider([often, once], views=views, shutdown_on_exit=False, **options)
    histogram = BulkHistogram(provider.get_meter("m").create_histogram("h"))
    seen: list[Any] = []
    for attributes, values in batches:
        record(histogram, values, attributes)
        seen.append(points(often))
    seen.append(points(once))
    provider.shutdown()
    return seen


def test_the_sdk_installed_here_is_proven() -> None:
    """Without this every other test would only compare the public way with itself."""
    assert bulk._bulk_is_proven()


@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None, max_examples=25)
@given(batches=BATCHES)
def test_points_equal_those_of_record(
    shape: str, temporality: AggregationTemporality, batches: Batches
) -> None:
    """For both kinds of histogram, several readers, delta temporality, and views that drop, rename and select."""
    views = SHAPES[shape]
    assert collected(at_once, batches, views, temporality) == collected(
        one_by_one, batches, views, temporality
    )


@settings(deadline=None, max_examples=3)
@given(
    batches=st.lists(st.tuples(st.integers(0, 2100), st.lists(VALUES, min_size=3, max_size=5)), max_size=8)
)
def test_points_past_the_cardinality_limit_equal_those_of_record(
    batches: list[tuple[int, list[float]]],
) -> None:
    """Series that the SDK merges into its overflow point lose nothing there."""
    full = [({"series": str(i)}, [1.0]) for i in range(2000)]
    given = full + [({"series": str(i)}, values) for i, values in batches]

    def last(record: Record) -> Any:
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        histogram = BulkHistogram(provider.get_meter("m").create_histogram("h"))
        for attributes, values in given:
            record(histogram, values, attributes)
        seen = points(reader)
        provider.shutdown()
        return seen

    assert last(at_once) == last(one_by_one)


@pytest.mark.parametrize("exemplar_filter", [AlwaysOnExemplarFilter, AlwaysOffExemplarFilter])
def test_an_exemplar_filter_gets_what_it_asks_for(exemplar_filter: Any) -> None:
    """One that wants exemplars of values without a span gets them: such a histogram goes the public way."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], exemplar_filter=exemplar_filter(), shutdown_on_exit=False)
    BulkHistogram(provider.get_meter("m").create_histogram("h")).record_many([1.0, 6.0, 30.0], {})
    data = reader.get_metrics_data()
    assert data is not None
    point: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
    assert point.count == 3
    assert len(point.exemplars) == (3 if exemplar_filter is AlwaysOnExemplarFilter else 0)
    provider.shutdown()


def test_a_histogram_of_another_make_gets_every_value_by_record() -> None:
    """Nothing but the API is asked of it."""

    class Other(Histogram):  # type: ignore[misc]
        def __init__(self) -> None:
            self.values: list[float] = []

        def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
            self.values.append(amount)

    other = Other()
    BulkHistogram(other).record_many([3.0, 1.0, 2.0, 4.0], {})
    assert other.values == [3.0, 1.0, 2.0, 4.0]
    BulkHistogram(NoOpMeterProvider().get_meter("m").create_histogram("h")).record_many([1.0] * 5, {})


def test_an_sdk_on_which_the_proof_fails_goes_the_public_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that has moved its private parts costs time, not counts."""

    def moved(*_: Any) -> None:
        raise AttributeError("no such private part")

    monkeypatch.setattr(bulk, "_proof", Proof(bulk._bulk_is_proven))
    monkeypatch.setattr(bulk, "_record_in_bulk", moved)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    try:
        BulkHistogram(provider.get_meter("m").create_histogram("h")).record_many([1.0] * 10, {"a": "b"})
        assert points(reader)[0][2] == 10
    finally:
        provider.shutdown()


def test_the_sum_does_not_lose_what_is_small() -> None:
    """A million nanoseconds after a minute are still there."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    histogram = BulkHistogram(provider.get_meter("m").create_histogram("h"))
    values = [60.0] + [1e-9] * 100_000
    histogram.record_many(values, {})
    data = reader.get_metrics_data()
    assert data is not None
    point: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
    assert point.sum == pytest.approx(math.fsum(values), rel=1e-15)
    provider.shutdown()


class _Detector(ResourceDetector):
    """One that counts how often it is asked, as those of clouds ask the network."""

    asked = 0

    def detect(self) -> Resource:
        _Detector.asked += 1
        return Resource.get_empty()


def test_the_proof_asks_no_resource_detectors_and_keeps_no_caller_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a detector in the environment it is not run; until the proof was made elsewhere, values go the public
    way, and it is asked for once.
    """
    (tmp_path / "slow-1.dist-info").mkdir()
    entry = f"[opentelemetry_resource_detector]\nslow = {__name__}:_Detector\n"
    (tmp_path / "slow-1.dist-info" / "entry_points.txt").write_text(entry)
    (tmp_path / "slow-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "slow")
    reader, jobs = InMemoryMetricReader(), list[Job]()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    assert _Detector.asked == 1, "the SDK does not ask the detector of this test"
    monkeypatch.setattr(bulk, "_proof", Proof(bulk._bulk_is_proven))
    histogram = BulkHistogram(provider.get_meter("m").create_histogram("h"), (), 1, jobs.append)
    for _ in range(2):
        histogram.record_many([1.0] * 10, {})
    assert len(jobs) == 1
    assert not bulk._proof.given
    jobs.pop()()
    assert bulk._proof.given
    histogram.record_many([1.0] * 10, {})
    assert points(reader)[0][2] == 30
    assert _Detector.asked == 1
    provider.shutdown()
