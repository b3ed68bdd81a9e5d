"""Where the rooms meet, once for each pair of providers: what is loaded, what waits, what is reported."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from otel_quantmon import semconv
from otel_quantmon.monitors.graph import lost_provider, may_saturate
from otel_quantmon.probe.fidelity import Fidelity
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.model import Model
from otel_quantmon.probe.probe import Probe
from otel_quantmon.probe.process import cpu_isa
from otel_quantmon.probe.recorder import Recorder
from otel_quantmon.probe.report import Report
from otel_quantmon.probe.sampling import CaptureBudget
from otel_quantmon.probe.series import Series, SeriesKey, attributes_of
from otel_quantmon.probe.shadow import References
from otel_quantmon.settings import Settings
from otel_quantmon.telemetry.instruments import Attributes, Instruments
from otel_quantmon.telemetry.spans import Spans

__all__ = ["OTHER", "Observer", "observer_of", "observers"]

_logger = logging.getLogger("otel_quantmon")

OTHER = "other"
"""Name that the models past ``max_models`` share."""


class Observer:
    """Observes models and reports them to one pair of providers, None for the global ones.

    Attributes:
        providers: tracer provider and meter provider.
        spans, instruments, recorder: the ways out.
        settings: of the process.
        capture, references: what bounds samples and comparisons.
        queue_size: records that may wait in a lane.
        awaited: what the API has in place of the duration's histogram until there is a meter provider, where both
            providers are the global ones; else None.
        load_overhead, collect_overhead: nanoseconds spent beside the loading of models, and in collections.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None, settings: Settings
    ) -> None:
        self.providers = (tracer_provider, meter_provider)
        self.load_overhead = 0
        self.collect_overhead = 0
        self.settings = settings
        self.capture = CaptureBudget(settings.capture_bytes)
        self.references = References(settings)
        self._lock = threading.Lock()
        self._probes: weakref.WeakValueDictionary[int, Probe] = weakref.WeakValueDictionary()
        self._series: weakref.WeakValueDictionary[SeriesKey, Series] = weakref.WeakValueDictionary()
        self._names: set[str] = set()
        self._warned: set[str] = set()
        self.spans = Spans(tracer_provider)
        self.recorder = Recorder(lambda: self.instruments, settings.check_budget)
        self.queue_size = settings.queue_size
        self.instruments = Instruments(meter_provider, Report(self).measure)
        self.awaited: Any = None
        # The second is where the API keeps the other provider, in all releases so far.
        if self.instruments.proxied and self.spans.proxied and hasattr(trace, "_TRACER_PROVIDER"):
            self.awaited = self.instruments.duration.histogram

    def idle(self) -> bool:
        """True while there is nowhere to report to: no SDK, no provider yet, or both switched off."""
        return not (self.instruments.recording() or self.spans.recording())

    def add(self, probe: Probe) -> None:
        """Report ``probe`` for as long as it lives."""
        with self._lock:
            self._probes[id(probe)] = probe

    def probes(self) -> list[Probe]:
        """Those alive."""
        # The references are copied in one step; iterating the mapping would fail when a thread adds to it.
        return [probe for reference in self._probes.valuerefs() if (probe := reference()) is not None]

    def live_series(self) -> list[Series]:
        """Those of models that are alive, or that have records waiting."""
        return [series for reference in self._series.valuerefs() if (series := reference()) is not None]

    def inspected(self, model: Model) -> None:
        """Say once what is wrong with a graph that has been loaded."""
        loaded = model.loaded
        lost = lost_provider(loaded.requested, loaded.providers)
        if lost is not None and loaded.providers:
            self.fell_back(model, lost, loaded.provider)
        if may_saturate(model.facts, cpu_isa()) and model.name not in self._warned:
            self._warned.add(model.name)
            _logger.warning(
                "model %r multiplies uint8 activations with int8 weights, which can saturate on this CPU (%s) "
                "unless it was quantized with reduce_range; quantize so, or to int8 activations",
                model.name,
                cpu_isa(),
            )

    def fell_back(self, model: Model, wanted: str, got: str) -> None:
        """Report that ``model`` runs on another execution provider than it did or should."""
        self.instruments.anomalies.add(1, {**self.series(model).attributes, semconv.ANOMALY_TYPE: "fallback"})
        _logger.warning("model %r runs on %s instead of %s", model.name, got, wanted)

    def series(self, model: Model) -> Series:
        """The series of ``model``, shared with the models of the same attributes."""
        key = self.key(model)
        with self._lock:
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = Series(key, model.settings)
            return series

    def sample(self, lane: Lane) -> None:
        """Have calls of ``lane`` looked at, and compared with a reference if the model has one."""
        model, series = lane.model, lane.series
        with self._lock:
            if series.fidelity is None:
                series.fidelity = Fidelity(self, series, model)
                series.shadow = self.references.shadow(series.fidelity, model)
        lane.sampler = series.fidelity.sampler(lane)
        if lane.sampler is not None:
            lane.sampler.check()
            if series.shadow is not None:
                series.fidelity.demand()

    def key(self, model: Model) -> SeriesKey:
        """What tells the series of ``model`` from others."""
        name = model.name
        # Names come from files and buffers, so only a limit keeps the number of series bounded.
        with self._lock:
            if name not in self._names:
                if len(self._names) < self.settings.max_models:
                    self._names.add(name)
                else:
                    name = OTHER
        return name, model.loaded.runtime, model.facts.scheme, model.loaded.provider

    def loaded(self, model: Model, seconds: float, error_type: str | None, overhead: int) -> None:
        """Record that ``model`` took ``seconds`` to load, and the observation ``overhead`` nanoseconds."""
        attributes: Attributes = attributes_of(self.key(model))
        if error_type is not None:
            attributes[semconv.ERROR_TYPE] = error_type
        self.instruments.load_duration.record(seconds, attributes)
        self.load_overhead += overhead

    def after_fork(self) -> None:
        """In a child: forget what the parent reports, and what threads held that are not here."""
        self._lock = threading.Lock()
        self.load_overhead = self.collect_overhead = 0
        self.recorder.forget()
        self.capture.reset()
        self.references.abandon()
        for series in self.live_series():
            if series.fidelity is not None:
                series.fidelity.after_fork()
                if series.fidelity.golden is not None:
                    series.fidelity.golden.after_fork(series.calls)
        for probe in self.probes():
            probe.model.reset_lock()


# The meter of a provider calls the observer for as long as the provider lives, and cannot be told to stop: an
# observer is therefore found again when instrumentation is switched on again, never made twice.
_observers: list[Observer] = []


def observer_of(
    tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None, settings: Settings
) -> Observer:
    """The observer for these providers; ``settings`` size its queue and its series if it is new."""
    for observer in _observers:
        if observer.providers[0] is tracer_provider and observer.providers[1] is meter_provider:
            return observer
    observer = Observer(tracer_provider, meter_provider, settings)
    _observers.append(observer)
    return observer


def observers() -> list[Observer]:
    """All that were ever made in this process."""
    return list(_observers)
