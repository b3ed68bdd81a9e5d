"""A histogram that takes many values at once.

The OpenTelemetry API records one value a call, and the SDK's `Histogram.record` costs about 11 µs with five
attributes (70 µs where the model has driven it out of the CPU's caches), most of it to find the aggregation that the
attributes stand for: more than a small quantized model takes to run. Here that search is done once for a batch, and
the batch goes to the aggregation as a whole. Where the aggregation counts in the boundaries that the instrument
was made with, not even the values have to be kept: they are counted into the same buckets as they come, and the
counts are handed over at a collection.

The way there leads through private parts of the SDK, so it is taken only where it is proven: before its first use
in a process, the same values go all ways into throw-away providers, on another thread than the application's, and
until the collected points are found equal every value goes through the public `record`. A histogram that is not the
SDK's never leaves the public way.
"""

from __future__ import annotations

import logging
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from time import time_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.util.types import Attributes

from otel_quantmon.telemetry import fresh_start
from otel_quantmon.telemetry.bucket_counts import BucketCounts
from otel_quantmon.telemetry.proof import Job, Proof

__all__ = ["BulkHistogram", "BulkPoint"]

_logger = logging.getLogger("otel_quantmon")


# Values that a point records at once. More of them cost little less each.
_PIECE = 256


class _Value:
    """All that an aggregation reads of a measurement which cannot become an exemplar."""

    __slots__ = ("value",)

    value: float


def _at_once(job: Job) -> object:
    return job()


class BulkHistogram:
    """Wraps ``histogram`` (of the SDK, a proxy for one, or any other) with ways to record many values.

    Args:
        histogram: The instrument.
        boundaries: Boundaries that it was made with.
        in_background: A function that runs a job on another thread than the application's, for the proof; by default
            at once.
        per_unit: Whole numbers in one unit of the instrument, such as 10**9 for one that is fed nanoseconds and
            records seconds. Each boundary has to be a whole number of them.

    Attributes:
        takes_counts: True once it is known that the instrument counts in ``boundaries`` and in nothing else.
    """

    __slots__ = ("_in_background", "boundaries", "bounds", "histogram", "per_unit", "takes_counts")

    def __init__(
        self,
        histogram: Histogram,
        boundaries: Sequence[float] = (),
        per_unit: int = 1,
        in_background: Callable[[Job], object] = _at_once,
    ) -> None:
        self._in_background = in_background
        self.histogram = histogram
        self.boundaries = tuple(boundaries)
        self.per_unit = per_unit
        self.bounds = [round(bound * per_unit) for bound in boundaries]
        self.takes_counts = False

    def value(self, number: int) -> float:
        """Return what the instrument records for ``number``; whole where the instrument's values are."""
        return number if self.per_unit == 1 else number / self.per_unit

    def point(self, attributes: Attributes) -> BulkPoint:
        """Return the point of ``attributes``, for whole numbers."""
        return BulkPoint(self, attributes)

    def record_many(self, values: Sequence[float], attributes: Attributes) -> None:
        """Record ``values``, finite and not negative.

        Raises:
            Exception: Whatever the histogram of a third party raises.
        """
        if not values:
            return
        # Of any histogram, also one whose exemplar filter wants every value: it too begins anew in a forked child.
        if not fresh_start.proof.given:
            fresh_start.proof.ask(self._in_background)
        real = _sdk_histogram(self.histogram)
        if real is not None and not _proof.given:
            _proof.ask(self._in_background)
        if real is None or not _proof.given:
            _record_singly(self.histogram, values, attributes)
            return
        if len(values) < 3:
            _record_singly(self.histogram, values, attributes)
        else:
            _record_in_bulk(real, values, attributes)
        self.takes_counts = all(_counts_in(self.boundaries, match) for match in _view_matches(real))

    def record_counts(self, bucket_counts: BucketCounts, attributes: Attributes) -> None:
        """Record what ``bucket_counts`` has counted, of which it is empty then. Only where `takes_counts`."""
        if bucket_counts.number:
            _record_counts(self, _sdk_histogram(self.histogram), bucket_counts, attributes)


class BulkPoint:
    """One point of a `BulkHistogram`. Not thread-safe."""

    __slots__ = ("_attributes", "_bucket_counts", "_histogram")

    def __init__(self, histogram: BulkHistogram, attributes: Attributes) -> None:
        self._histogram = histogram
        self._attributes = attributes
        self._bucket_counts = BucketCounts(histogram.bounds)

    def add(self, numbers: list[int]) -> None:
        """Take ``numbers``, not negative, out of the list: count them if that will do until `report`, else record them.

        Raises:
            Exception: Whatever the histogram of a third party raises, here and in `report`.
        """
        histogram = self._histogram
        if histogram.takes_counts:
            self._bucket_counts.add(numbers)
        # In pieces, so that a handler of a signal that raises meanwhile costs no more than one.
        while numbers:
            piece = [histogram.value(number) for number in numbers[:_PIECE]]
            del numbers[:_PIECE]
            histogram.record_many(piece, self._attributes)

    def report(self, exemplars: Iterable[tuple[int, Context]] = ()) -> None:
        """Record what was counted, and ``exemplars``, each linked to the span of its context."""
        for number, context in exemplars:
            self._histogram.histogram.record(self._histogram.value(number), self._attributes, context)
        bucket_counts, self._bucket_counts = self._bucket_counts, BucketCounts(self._histogram.bounds)
        self._histogram.record_counts(bucket_counts, self._attributes)


# With no span in it, so that an exemplar filter that asks for a sampled span passes these over.
_NO_SPAN = Context()
_EXPLICIT = "_ExplicitBucketHistogramAggregation"
# Of the point that takes what is past the SDK's cardinality limit.
_OVERFLOW = {"otel.metric.overflow": True}


def _sdk_histogram(histogram: Histogram) -> Any:
    # The API hands out a proxy until a provider is set; what it forwards to is then in this attribute.
    real: Any = getattr(histogram, "_real_instrument", None) or histogram
    if not type(real).__module__.startswith("opentelemetry.sdk.metrics"):
        return None
    sdk_config = real._measurement_consumer._sdk_config
    # A filter other than these two may want exemplars of values without a span.
    if type(sdk_config.exemplar_filter).__name__ not in (
        "TraceBasedExemplarFilter",
        "AlwaysOffExemplarFilter",
    ):
        return None
    return real


def _record_in_bulk(histogram: Any, values: Sequence[float], attributes: Attributes) -> None:
    # The public call makes the aggregation exist, and shows whether the instrument is enabled.
    histogram.record(values[0], attributes, _NO_SPAN)
    enabled = getattr(histogram, "_is_enabled", None)
    if enabled is not None and not enabled():
        return
    rest = sorted(values[1:])
    for match in _view_matches(histogram):
        wanted = _attributes_in_view(match, attributes)
        # Held throughout: with delta temporality a collection throws the aggregations away under this lock.
        with match._lock:
            aggregation = _find(match, wanted)
            if aggregation is not None:
                _aggregate(aggregation, rest)
                continue
        # The series' own point is not there: beyond the cardinality limit, or collected away a moment ago.
        for value in rest:
            match.consume_measurement(_measurement(histogram, value, attributes), False)


def _record_counts(
    histogram: BulkHistogram, real: Any, bucket_counts: BucketCounts, attributes: Attributes
) -> None:
    value = histogram.value
    # As in `_record_in_bulk`.
    real.record(value(bucket_counts.take()), attributes, _NO_SPAN)
    enabled = getattr(real, "_is_enabled", None)
    if enabled is not None and not enabled():
        return
    for match in _view_matches(real):
        wanted = _attributes_in_view(match, attributes)
        rest = bucket_counts.copy()
        while rest.number:
            with match._lock:
                aggregation = _find(match, wanted) or _find(match, _OVERFLOW)
                if aggregation is not None and _counts_in(histogram.boundaries, match):
                    if type(aggregation).__name__ == _EXPLICIT:
                        _merge(
                            aggregation, rest.buckets, value(rest.total), value(rest.least), value(rest.most)
                        )
                    break
            # A reader has collected the point away just now, or one was added that counts in another way.
            match.consume_measurement(_measurement(real, value(rest.take()), attributes), False)


def _aggregate(aggregation: Any, ordered: Sequence[float]) -> None:
    if type(aggregation).__name__ != _EXPLICIT:
        value = _Value()
        for value.value in ordered:
            aggregation.aggregate(value, False)
        return
    # A bucket holds what is above the bound before it and not above its own.
    below = [bisect_right(ordered, bound) for bound in aggregation._boundaries]
    counts = [upper - lower for lower, upper in zip([0, *below], [*below, len(ordered)], strict=True)]
    if ordered:
        _merge(aggregation, counts, sum(ordered), ordered[0], ordered[-1])


def _merge(aggregation: Any, counts: Sequence[int], total: float, least: float, most: float) -> None:
    with aggregation._lock:
        before = aggregation._value or aggregation._get_empty_bucket_counts()
        # Not in a loop, see `Watchdog`.
        aggregation._value = list(map(operator.add, before, counts))
        aggregation._sum += total
        if aggregation._record_min_max:
            aggregation._min = min(aggregation._min, least)
            aggregation._max = max(aggregation._max, most)


# By attributes: the key under which the SDK was found to keep their aggregation. To look through all of them for each
# model takes time that grows with the square of the number of models.
_keys: dict[frozenset[tuple[str, Any]], Any] = {}


def _find(match: Any, attributes: dict[str, Any]) -> Any:
    aggregations = match._attributes_aggregation
    wanted = frozenset(attributes.items())
    known = aggregations.get(_keys[wanted]) if wanted in _keys else None
    if known is not None and known._attributes == attributes:
        return known
    for key, aggregation in aggregations.items():
        if aggregation._attributes == attributes:
            _keys[wanted] = key
            return aggregation
    return None


def _counts_in(boundaries: Sequence[float], match: Any) -> bool:
    """Return True if a view's points need no more than how many values lie between ``boundaries``."""
    aggregation = match._aggregation
    name = type(aggregation).__name__
    return name == "_DropAggregation" or (name == _EXPLICIT and tuple(aggregation._boundaries) == boundaries)


def _view_matches(histogram: Any) -> Iterator[Any]:
    storages = tuple(histogram._measurement_consumer._reader_storages.values())
    return chain.from_iterable(storage._get_or_init_view_instrument_match(histogram) for storage in storages)


def _attributes_in_view(match: Any, attributes: Attributes) -> dict[str, Any]:
    keys = match._view._attribute_keys
    return {key: value for key, value in (attributes or {}).items() if keys is None or key in keys}


def _measurement(histogram: Any, value: float, attributes: Attributes) -> Any:
    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    return Measurement(value, time_ns(), histogram, _NO_SPAN, attributes)


def _bulk_is_proven() -> bool:
    """Return True if on this SDK values in bulk, and counts, give the same points as `record`."""
    try:
        return _collected(_record_singly) == _collected(_record_in_bulk) == _collected(_record_counted)
    except Exception:
        _logger.debug("recording in bulk is not possible with this OpenTelemetry SDK", exc_info=True)
        return False


_proof = Proof(lambda: _bulk_is_proven())  # noqa: PLW0108  as it is when it is asked for


# Values on the boundaries, between them and beyond; sums of powers of two are exact in any order.
_CHECK_BOUNDARIES = (0.0, 5.0, 10.0, 10000.0)
_CHECK_VALUES = (*_CHECK_BOUNDARIES, *(2.0**k for k in range(-8, 18)))
_CHECK_PER_UNIT = 2**8


def _record_singly(histogram: Any, values: Sequence[float], attributes: Attributes) -> None:
    for value in values:
        histogram.record(value, attributes, _NO_SPAN)


def _record_counted(histogram: Any, values: Sequence[float], attributes: Attributes) -> None:
    counting = BulkHistogram(histogram, _CHECK_BOUNDARIES, _CHECK_PER_UNIT)
    if not all(_counts_in(counting.boundaries, match) for match in _view_matches(histogram)):
        _record_in_bulk(histogram, values, attributes)
        return
    bucket_counts = BucketCounts(counting.bounds)
    bucket_counts.add([int(value * _CHECK_PER_UNIT) for value in values])
    _record_counts(counting, histogram, bucket_counts, attributes)


def _collected(record: Callable[[Any, Sequence[float], Attributes], None]) -> list[tuple[Any, ...]]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
    from opentelemetry.sdk.resources import Resource

    reader = InMemoryMetricReader()
    views = [View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider(
        metric_readers=[reader],
        # Without one, the detectors of resources would run, of which some ask the network.
        resource=Resource.get_empty(),
        views=views,
        shutdown_on_exit=False,
    )
    points: list[tuple[Any, ...]] = []
    try:
        for name in ("explicit", "exponential"):
            histogram = provider.get_meter("otel_quantmon.check").create_histogram(
                name, explicit_bucket_boundaries_advisory=_CHECK_BOUNDARIES
            )
            for attributes in ({"a": "1", "b": "2"}, {"a": "2"}):
                record(histogram, _CHECK_VALUES, attributes)
        data: Any = reader.get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points:
                counts = getattr(point, "bucket_counts", None) or (
                    point.scale,
                    tuple(point.positive.bucket_counts),
                )
                points.append(
                    (
                        metric.name,
                        dict(point.attributes),
                        point.count,
                        point.sum,
                        point.min,
                        point.max,
                        counts,
                    )
                )
    finally:
        provider.shutdown()
    return points
