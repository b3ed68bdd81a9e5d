"""A histogram that takes many values at once.

The OpenTelemetry API records one value a call, and the SDK's `Histogram.record` costs about 11 µs with five
attributes, most of it to find the aggregation that the attributes stand for: more than a small quantized model
takes to run. Here that search is done once for a batch, and the batch goes to the aggregation as a whole, at about
0.2 µs a value.

The way there leads through private parts of the SDK, so it is taken only where it is proven: before its first use
in a process, the same values go both ways into two throw-away providers, and unless the collected points are equal
(or if anything at all raises) every value goes through the public `record`. A histogram that is not the SDK's
never leaves the public way.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.util.types import Attributes

__all__ = ["BulkHistogram"]

_logger = logging.getLogger("otel_quantmon")


class _Value:
    """All that an aggregation reads of a measurement which cannot become an exemplar."""

    __slots__ = ("value",)

    value: float


class BulkHistogram:
    """Wraps ``histogram`` (of the SDK, a proxy for one, or any other) with `record_many`."""

    __slots__ = ("histogram",)

    def __init__(self, histogram: Histogram) -> None:
        self.histogram = histogram

    def record_many(
        self, values: Sequence[float], attributes: Attributes, exemplars: Iterable[tuple[float, Context]] = ()
    ) -> None:
        """Record ``values`` (finite, not negative) and, linked to the span of their context, ``exemplars``.

        Raises:
            Exception: whatever the histogram of a third party raises.
        """
        for value, context in exemplars:
            self.histogram.record(value, attributes, context)
        if not values:
            return
        real = _sdk_histogram(self.histogram)
        if real is None or len(values) < 3 or not _bulk_is_proven():
            for value in values:
                self.histogram.record(value, attributes, _NO_SPAN)
            return
        _record_in_bulk(real, values, attributes)


# With no span in it, so that an exemplar filter that asks for a sampled span passes these over.
_NO_SPAN = Context()


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
    # The public call makes the aggregation exist, and tells a disabled instrument from an enabled one.
    histogram.record(values[0], attributes, _NO_SPAN)
    enabled = getattr(histogram, "_is_enabled", None)
    if enabled is not None and not enabled():
        return
    rest = sorted(values[1:])
    for match in _view_matches(histogram):
        wanted = _attributes_in_view(match, attributes)
        # Held throughout: with delta temporality a collection throws the aggregations away under this lock.
        with match._lock:
            aggregation = None
            for aggregation in match._attributes_aggregation.values():
                if aggregation._attributes == wanted:
                    _aggregate(aggregation, rest)
                    break
            else:
                aggregation = None
        if aggregation is None:
            _consume_one_by_one(match, histogram, rest, attributes)


def _aggregate(aggregation: Any, ordered: Sequence[float]) -> None:
    if type(aggregation).__name__ != "_ExplicitBucketHistogramAggregation":
        value = _Value()
        for value.value in ordered:
            aggregation.aggregate(value, False)
        return
    # A bucket holds what is above the bound before it and not above its own.
    below = [bisect_right(ordered, bound) for bound in aggregation._boundaries]
    counts = [upper - lower for lower, upper in zip([0, *below], [*below, len(ordered)], strict=True)]
    with aggregation._lock:
        before = aggregation._value or aggregation._get_empty_bucket_counts()
        aggregation._value = [old + new for old, new in zip(before, counts, strict=True)]
        aggregation._sum += sum(ordered)
        if aggregation._record_min_max:
            aggregation._min = min(aggregation._min, ordered[0])
            aggregation._max = max(aggregation._max, ordered[-1])


def _view_matches(histogram: Any) -> Iterator[Any]:
    storages = tuple(histogram._measurement_consumer._reader_storages.values())
    return chain.from_iterable(storage._get_or_init_view_instrument_match(histogram) for storage in storages)


def _attributes_in_view(match: Any, attributes: Attributes) -> dict[str, Any]:
    keys = match._view._attribute_keys
    return {key: value for key, value in (attributes or {}).items() if keys is None or key in keys}


def _consume_one_by_one(match: Any, histogram: Any, values: Sequence[float], attributes: Attributes) -> None:
    # The series' own point is not there: beyond the cardinality limit, or collected away a moment ago.
    from time import time_ns

    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    for value in values:
        match.consume_measurement(Measurement(value, time_ns(), histogram, _NO_SPAN, attributes), False)


@cache
def _bulk_is_proven() -> bool:
    """True if on this SDK a batch gives the same points as `record`, for both kinds of histogram."""
    try:
        return _collected(in_bulk=True) == _collected(in_bulk=False)
    except Exception:
        _logger.debug("recording in bulk is not possible with this OpenTelemetry SDK", exc_info=True)
        return False


def _collected(*, in_bulk: bool) -> list[tuple[Any, ...]]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

    reader = InMemoryMetricReader()
    views = [View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider(metric_readers=[reader], views=views, shutdown_on_exit=False)
    # On the default boundaries, between them and beyond; sums of powers of two are exact in any order.
    values = [0.0, 5.0, 10.0, 10000.0, *(2.0**k for k in range(-8, 18))]
    points: list[tuple[Any, ...]] = []
    try:
        for name in ("explicit", "exponential"):
            histogram = provider.get_meter("otel_quantmon.check").create_histogram(name)
            for attributes in ({"a": "1", "b": "2"}, {"a": "2"}):
                if in_bulk:
                    _record_in_bulk(histogram, values, attributes)
                else:
                    for value in values:
                        histogram.record(value, attributes, _NO_SPAN)
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
