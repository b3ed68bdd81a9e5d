"""The instruments of the metrics, made once for each meter provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from opentelemetry.metrics import (
    CallbackOptions,
    Counter,
    Histogram,
    Meter,
    MeterProvider,
    NoOpCounter,
    NoOpHistogram,
    NoOpMeter,
    Observation,
    get_meter,
    get_meter_provider,
)
from opentelemetry.util.types import AttributeValue

from otel_quantmon import semconv
from otel_quantmon._version import __version__
from otel_quantmon.guard import guarded, internal_error
from otel_quantmon.telemetry import fresh_start
from otel_quantmon.telemetry.bulk_histogram import BulkHistogram
from otel_quantmon.telemetry.proof import Job

__all__ = ["Attributes", "Instruments", "Measurements"]

Attributes: TypeAlias = dict[str, AttributeValue]
Measurements: TypeAlias = Iterable[tuple[float, Attributes]]

_OBSERVED: tuple[semconv.Metric, ...] = tuple(
    metric
    for metric in vars(semconv).values()
    if isinstance(metric, semconv.Metric) and metric.instrument.startswith("observable_")
)


class Instruments:
    """Creates every instrument of `semconv` with ``meter_provider``, or the global one.

    Args:
        meter_provider: None for the global provider, also one that is set later.
        measure: A function that gives the current points of an observed metric; called at each collection, from the
            reader's thread. What is recorded during the call belongs to the same collection.
        in_background: A function that runs a job on another thread than the application's.

    Attributes:
        proxied: True if the instruments are the API's, in place of those of a provider that is not yet set.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None,
        measure: Callable[[semconv.Metric], Measurements],
        in_background: Callable[[Job], object],
    ) -> None:
        self._measure = measure
        self._meter: Meter
        self._in_background = in_background
        self._recorded: list[Histogram | Counter] = []
        try:
            self._meter = get_meter(
                semconv.SCOPE, __version__, meter_provider=meter_provider, schema_url=semconv.SCHEMA_URL
            )
        except Exception as error:  # noqa: BLE001  a provider that fails costs the metrics, and nothing else
            self._meter = _plain_meter(meter_provider, error)
        # The SDK runs callbacks in the order of creation and only then collects what was recorded.
        for metric in _OBSERVED:
            with guarded:
                getattr(self._meter, f"create_{metric.instrument}")(
                    metric.name,
                    callbacks=[self._callback(metric)],
                    unit=metric.unit,
                    description=metric.description,
                )
        self.duration = self._bulk(semconv.METRIC_INFERENCE_DURATION, 10**9)
        self.proxied = hasattr(self.duration.histogram, "_real_instrument")
        self.batch_size = self._bulk(semconv.METRIC_INFERENCE_BATCH_SIZE)
        self.load_duration = self._histogram(semconv.METRIC_MODEL_LOAD_DURATION)
        self.output_error = self._histogram(semconv.METRIC_OUTPUT_ERROR)
        self.tensor_nonfinite = self._counter(semconv.METRIC_TENSOR_NONFINITE)
        self.reference_evaluations = self._counter(semconv.METRIC_REFERENCE_EVALUATIONS)
        self.anomalies = self._counter(semconv.METRIC_ANOMALIES)
        self.spans_suppressed = self._counter(semconv.METRIC_SPANS_SUPPRESSED)

    def recording(self) -> bool:
        """Return False while what is recorded goes nowhere: no SDK, no provider yet, or one that is switched off."""
        histogram: Any = self.duration.histogram
        if self.proxied:
            # The API's proxy for an instrument forwards to this, once there is a provider.
            histogram = histogram._real_instrument
            if histogram is None:
                return False
        return type(histogram) is not NoOpHistogram

    def prepare_to_forget(self) -> None:
        """Before a fork: find out whether `forget` will do in the child, unless that is known."""
        if self.recording():
            fresh_start.proof.settle()

    def forget(self) -> None:
        """In a child after fork: begin anew with what is recorded, see `fresh_start`."""
        fresh_start.forget_points(self._recorded)

    def _bulk(self, metric: semconv.Metric, per_unit: int = 1) -> BulkHistogram:
        return BulkHistogram(self._histogram(metric), metric.boundaries or (), per_unit, self._in_background)

    def _histogram(self, metric: semconv.Metric) -> Histogram:
        made: Histogram = NoOpHistogram(metric.name)
        with guarded:
            made = self._meter.create_histogram(
                metric.name,
                unit=metric.unit,
                description=metric.description,
                explicit_bucket_boundaries_advisory=metric.boundaries,
            )
        self._recorded.append(made)
        return made

    def _counter(self, metric: semconv.Metric) -> Counter:
        made: Counter = NoOpCounter(metric.name)
        with guarded:
            made = self._meter.create_counter(metric.name, unit=metric.unit, description=metric.description)
        self._recorded.append(made)
        return made

    def _callback(self, metric: semconv.Metric) -> Callable[[CallbackOptions], list[Observation]]:
        def observe(_: CallbackOptions) -> list[Observation]:
            try:
                return [Observation(value, attributes) for value, attributes in self._measure(metric)]
            except Exception as error:  # noqa: BLE001  the guard of the project
                internal_error(error)
                return []

        return observe


def _plain_meter(provider: MeterProvider | None, error: Exception) -> Meter:
    """The meter of a provider that has failed with ``error``, asked for as the first releases of the API did."""
    try:
        return (provider or get_meter_provider()).get_meter(semconv.SCOPE, __version__)
    except Exception:  # noqa: BLE001  the first failure says more
        internal_error(error)
        return NoOpMeter(semconv.SCOPE)
