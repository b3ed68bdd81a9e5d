"""A forked child counts from zero: what the SDK has taken in before the fork is its parent's to report.

The SDK has no public way to give up its points, so they are taken away through private parts of it.
As with recording in bulk that is only done where it is proven, before it is needed: that points taken away in a
throw-away provider leave what is recorded later, and nothing else. Another thread proves it; a process that forks
before that thread has come to it proves it itself, in the parent, since the child may find locks of the SDK held.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from otel_quantmon.telemetry.proof import Proof

__all__ = ["forget_points", "proof"]

_logger = logging.getLogger("otel_quantmon")


def forget_points(instruments: Iterable[Any]) -> None:
    """Have the SDK's points of ``instruments`` begin anew. For a child after fork, in which no other thread is."""
    if proof.given:
        for instrument in instruments:
            _forget(instrument)


def _forget(instrument: Any) -> None:
    real = getattr(instrument, "_real_instrument", None) or instrument
    if not type(real).__module__.startswith("opentelemetry.sdk.metrics"):
        return
    for storage in tuple(real._measurement_consumer._reader_storages.values()):
        for match in storage._instrument_view_instrument_matches.get(real, ()):
            # Not under the match's lock: a thread that is not here may have held it.
            match._attributes_aggregation = {}


def _is_proven() -> bool:
    try:
        return _collected(forget=True) == _collected(forget=False)
    except Exception:
        _logger.debug("points cannot be taken away with this OpenTelemetry SDK", exc_info=True)
        return False


proof = Proof(lambda: _is_proven())  # noqa: PLW0108  as it is when it is asked for


def _collected(*, forget: bool) -> list[tuple[Any, ...]]:
    """The points of two recordings, of which the first was forgotten, or was never made."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource

    reader = InMemoryMetricReader()
    # Without a resource, the detectors of resources would run, of which some ask the network.
    provider = MeterProvider([reader], resource=Resource.get_empty(), shutdown_on_exit=False)
    try:
        meter = provider.get_meter("otel_quantmon.check")
        counter, histogram = meter.create_counter("counter"), meter.create_histogram("histogram")
        if forget:
            for name in ("kept", "gone"):
                counter.add(3, {"a": name})
                histogram.record(3.0, {"a": name})
            reader.get_metrics_data()
            for instrument in (counter, histogram):
                _forget(instrument)
        counter.add(1, {"a": "kept"})
        histogram.record(1.0, {"a": "kept"})
        data: Any = reader.get_metrics_data()
        return [
            (
                metric.name,
                dict(point.attributes),
                getattr(point, "value", None),
                getattr(point, "count", None),
                getattr(point, "sum", None),
                getattr(point, "max", None),
            )
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
            for point in metric.data.data_points
        ]
    finally:
        provider.shutdown()
