"""Where the rooms meet, once for each pair of providers: what is loaded, what waits, what is reported."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from time import perf_counter
from typing import Any

from otel_quantmon import semconv
from otel_quantmon.detection.kept import KeptBaselines
from otel_quantmon.detection.life_cycle import ObservedCall
from otel_quantmon.detection.monitor import Monitor
from otel_quantmon.fidelity.assessment import Assessment
from otel_quantmon.fidelity.golden import Golden
from otel_quantmon.fidelity.remote.sending import Remote
from otel_quantmon.fidelity.sample import CaptureBudget
from otel_quantmon.fidelity.shadow import References
from otel_quantmon.hooks import AnomalyHook, SampleHook
from otel_quantmon.models.graph_health import is_plain, is_worse, lost_provider, may_saturate
from otel_quantmon.models.identity import Model
from otel_quantmon.models.names import Content, Names
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.probe.probe import Probe
from otel_quantmon.probe.sampling import LeastChecks, Sampler
from otel_quantmon.probe.span_content import show_late
from otel_quantmon.process.host import cpu_isa
from otel_quantmon.process.registry import register
from otel_quantmon.process.worker import worker
from otel_quantmon.recording.gauges import Gauges
from otel_quantmon.recording.judging import Judging
from otel_quantmon.recording.recorder import Recorder
from otel_quantmon.recording.series import Series, SeriesKey, attributes_of
from otel_quantmon.settings import REMOTE, Settings
from otel_quantmon.telemetry.api import MeterProvider, SpanContext, TracerProvider
from otel_quantmon.telemetry.instruments import Attributes
from otel_quantmon.telemetry.providers import Providers

__all__ = ["OTHER", "Pipeline", "pipeline_of", "pipelines"]

_logger = logging.getLogger("otel_quantmon")

# Names come and go with the models; so many warnings are enough.
_MOST_WARNED = 1000

OTHER = "other"
"""Name that the models past ``max_models`` share."""


class Pipeline:
    """Observes models and reports them to one pair of providers, None for the global ones.

    Attributes:
        providers: Where all is reported.
        recorder: Recorder of all calls.
        settings: Settings of the process.
        capture, references: What bounds samples and comparisons.
        remote: Ways out for samples whose reference is elsewhere.
        names: Names of the models, each of one content.
        monitor: Monitor that judges all that is observed.
        judging: Has it judged, and reports what was found.
        load_overhead, collect_overhead: Nanoseconds spent beside the loading of models, and in collections.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        settings: Settings,
        logger_provider: Any = None,
    ) -> None:
        self.load_overhead = 0
        self.collect_overhead = 0
        self.monitor = Monitor(settings.false_alarms)
        # A model may have something to report before its first call.
        self._with_facts: weakref.WeakKeyDictionary[Model, Series] = weakref.WeakKeyDictionary()
        self.settings = settings
        self.capture = CaptureBudget(settings.capture_bytes)
        self._least_checks = LeastChecks()
        self.references = References(settings, self._needs_references)
        self.remote = Remote(settings, lambda: self.providers, self.references.warn)
        self._lock = threading.RLock()
        self._probes: weakref.WeakValueDictionary[int, Probe] = weakref.WeakValueDictionary()
        self._series: weakref.WeakValueDictionary[SeriesKey, Series] = weakref.WeakValueDictionary()
        self.names = Names()
        self._names: set[str] = set()
        # By name and runtime, what ran last and where: no more of them than names.
        self._ran_on: dict[tuple[str, str], tuple[Content, str]] = {}
        self._warned: set[str] = set()
        self.recorder = Recorder(
            lambda: self.providers, limit=settings.queue_size, check_budget=settings.check_budget
        )
        kept = None if settings.baseline_state is None else KeptBaselines(settings.baseline_state, cpu_isa())
        self.judging = Judging(
            self.recorder,
            self.monitor,
            lambda: self.providers,
            self.live_series,
            settings.judgement_interval,
            kept,
            show=self._show,
            inquiry_timeout=settings.reference_timeout,
        )
        self.recorder.taken = self.judging.arm
        self.providers = Providers(
            tracer_provider, meter_provider, Gauges(self).measure, worker.submit, logger_provider
        )

    def _needs_references(self) -> bool:
        """Return False once no observed model has a reference, or the SDK's provider of meters has been shut down."""
        if self.providers.shut_down():
            return False
        return any(calls.series.comparer is not None for probe in self.probes() for calls in probe.calls())

    def fork_lock(self) -> Any:
        """See `Registered`."""
        return self.recorder.lock

    def exit_timeout(self) -> float | None:
        """See `Registered`."""
        return self.settings.exit_timeout if self._used() else None

    def exporting(self) -> list[Any]:
        """See `Registered`."""
        return self.providers.exporting()

    def add(self, probe: Probe) -> None:
        """Report ``probe`` for as long as it lives."""
        with self._lock:
            self._probes[id(probe)] = probe
        self.monitor.loaded()
        if probe.model.replaced:
            self._fact(probe.model, "model_changed", "")

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
        if may_saturate(model.facts, cpu_isa()) and self._warns_of(model.name):
            _logger.warning(
                "model %r multiplies uint8 activations with int8 weights, which can saturate on this CPU (%s) "
                "unless it was quantized with reduce_range; quantize so, or to int8 activations",
                model.name,
                cpu_isa(),
            )

    def _warns_of(self, name: str) -> bool:
        """Return True the first time for each of the first names."""
        if name in self._warned or len(self._warned) >= _MOST_WARNED:
            return False
        self._warned.add(name)
        return True

    def fell_back(self, model: Model, wanted: str, got: str) -> None:
        """Report that ``model`` runs on another execution provider than it did or should."""
        self._fact(model, "fallback", wanted)
        _logger.warning("model %r runs on %s instead of %s", model.name, got, wanted)

    def moved(self, model: Model, before: str) -> None:
        """Report that ``model`` runs on another execution provider than ``before``, if it has lost by that."""
        name, runtime, _, provider = self.key(model)
        if is_worse(provider, before, model.loaded.requested):
            self.fell_back(model, before, provider)
        elif name != OTHER:
            self._regained(name, runtime)
        if name != OTHER:
            # What was said is not to be found out again at the first call.
            self._ran_on[name, runtime] = model.content, provider

    def _regained(self, name: str, runtime: str) -> None:
        for series in self.live_series():
            if series.key[:2] == (name, runtime):
                series.streams.over("fallback", perf_counter())

    def _compare_provider(self, model: Model) -> None:
        """Report a provider on which the model ran when it was loaded before, and which it has lost since."""
        name, runtime, _, provider = self.key(model)
        if name == OTHER:
            return
        content, before = self._ran_on.get((name, runtime), (model.content, provider))
        self._ran_on[name, runtime] = model.content, provider
        if before == provider or not content.same(model.content, read=False):
            return
        # Where the application asks for the plain one alone, nothing was lost.
        if is_plain(provider) and (not model.loaded.requested or before in model.loaded.requested):
            self.fell_back(model, before, provider)
        elif not is_plain(provider):
            self._regained(name, runtime)

    def _show(self, series: Series, kind: semconv.AnomalyType, call: ObservedCall) -> SpanContext | None:
        """Make a root span of ``call``, whose anomaly was found when it was over, if the model's calls may have one."""
        states = [
            state
            for probe in self.probes()
            for state in list(probe.states.values())
            if state is not None and state.series is series and state.span_mode in ("auto", "all")
        ]
        if not states or not self.providers.spans.recording():
            return None
        return show_late(states[0], kind, call.end - call.duration, call.end)

    def _fact(self, model: Model, kind: semconv.AnomalyType, of: str) -> None:
        series = self.series(model)
        with self._lock:
            self._with_facts[model] = series
        series.streams.fact(kind, of, 1.0, perf_counter())
        self.judging.arm()

    def hook(self, on_anomaly: AnomalyHook | None, on_sample: SampleHook | None) -> Callable[[], None]:
        """Have hooks called in the background, until the function that is returned is called."""
        if on_anomaly is not None:
            self.judging.hooks.append(on_anomaly)
        if on_sample is not None:
            self.remote.hooks.append(on_sample)
        self.remote.users += 1

        def unhook() -> None:
            if on_anomaly is not None:
                self.judging.hooks.remove(on_anomaly)
            if on_sample is not None:
                self.remote.hooks.remove(on_sample)
            self.remote.users -= 1

        return unhook

    def series(self, model: Model) -> Series:
        """Return the series of ``model``, shared with the models of the same attributes."""
        key = self.key(model)
        with self._lock:
            series = self._series.get(key)
            if series is None:
                settings = model.settings
                streams = self.monitor.streams(
                    key[0], kinds=settings.anomalies, least=settings.anomaly_change
                )
                series = self._series[key] = Series(key, model, streams)
            series.add(model)
            return series

    def begin(self, probe: Probe, state: CallState) -> None:
        """Record the calls of ``state``, and sample them, from now on."""
        self.recorder.add(state)
        self.judging.arm()
        model, method = state.model, state.method
        # Not sooner: an interpreter has its delegate once its tensors are allocated.
        self._compare_provider(model)
        assessment = self._assessment(model, state.series)
        assessment.watch(state)
        if method.read_inputs is not None and method.read_outputs is not None:
            state.sampler = Sampler(
                state,
                model,
                method,
                self.capture,
                assessment.tokens,
                assessment.take,
                assessment.missed,
                self._least_checks,
            )
            state.sampler.check()
            if state.series.comparer is not None:
                assessment.demand()
        if model.settings.baseline is not None and self.settings.reference_budget:
            self._golden(model.settings.baseline, assessment, state.series).add(probe)

    def _assessment(self, model: Model, series: Series) -> Assessment:
        found = series.assessment
        if found is not None:
            return found
        made = Assessment(
            series.attributes,
            model,
            self.providers,
            self.capture,
            self.settings.reference_queue,
            series.streams,
        )
        with self._lock:
            if series.assessment is None:
                series.assessment = made
            found = series.assessment
        if found is made:
            # Not under the lock: it may log.
            if model.settings.reference == REMOTE:
                series.comparer = self.remote.reference(made, model)
            else:
                series.comparer = self.references.shadow(made, model)
        return found

    def _golden(self, path: str, assessment: Assessment, series: Series) -> Golden:
        reference = weakref.ref(series)

        def calls() -> int | None:
            found = reference()
            return None if found is None else found.calls

        def adopt_latency(mean: float, moved: tuple[int | None, int, int]) -> None:
            found = reference()
            if found is not None:
                with self.recorder.lock:
                    found.latency.adopt(mean, moved)

        with self._lock:
            if series.golden is None:
                series.golden = Golden(
                    path,
                    assessment,
                    self.settings,
                    idle=lambda: self.providers.idle() or self.providers.shut_down(),
                    calls=calls,
                    adopt_latency=adopt_latency,
                )
            return series.golden

    def key(self, model: Model) -> SeriesKey:
        """Return the key of the series of ``model``."""
        name = model.name
        # Names come from files and buffers, so only a limit keeps the number of series bounded.
        if name not in self._names:
            with self._lock:
                if name in self._names or len(self._names) < self.settings.max_models:
                    self._names.add(name)
                else:
                    name = OTHER
        return name, model.loaded.runtime, model.facts.scheme, model.loaded.provider

    def loaded(self, model: Model, seconds: float, error_type: str | None, overhead: int) -> None:
        """Record that ``model`` took ``seconds`` to load, and the observation ``overhead`` nanoseconds."""
        attributes: Attributes = attributes_of(self.key(model))
        if error_type is not None:
            attributes[semconv.ERROR_TYPE] = error_type
        self.providers.instruments.load_duration.record(seconds, attributes)
        self.load_overhead += overhead

    def _used(self) -> bool:
        return self.load_overhead > 0 or self.recorder.used()

    def before_fork(self) -> None:
        """See `Registered`."""
        if self._used():
            self.providers.instruments.prepare_to_forget()

    def after_fork(self) -> None:
        """In a child: forget what the parent reports, and what threads held that are not here."""
        self._lock = threading.RLock()
        self.load_overhead = self.collect_overhead = 0
        self.judging.after_fork()
        self.providers.after_fork()
        self.recorder.forget()
        self.providers.instruments.forget()
        self.capture.reset()
        self.references.abandon()
        self.remote.after_fork()
        for series in self.live_series():
            series.inquiry = None
            if series.assessment is not None:
                series.assessment.after_fork()
            if series.golden is not None:
                series.golden.after_fork()
        for probe in self.probes():
            probe.model.reset_lock()


# The meter of a provider calls the pipeline for as long as the provider lives, and cannot be made to stop: a
# pipeline is therefore found again when instrumentation is switched on again, never made twice.
_pipelines: list[Pipeline] = []
_pipelines_lock = threading.RLock()


def pipeline_of(
    tracer_provider: TracerProvider | None,
    meter_provider: MeterProvider | None,
    settings: Settings,
    logger_provider: Any = None,
) -> Pipeline:
    """Return the pipeline for these providers; ``settings`` size its queue and its series if it is new.

    Events go to the provider of loggers that was given last.
    """
    with _pipelines_lock:
        pipeline = _known(tracer_provider, meter_provider)
        if pipeline is None:
            pipeline = Pipeline(tracer_provider, meter_provider, settings, logger_provider)
            _pipelines.append(pipeline)
            register(pipeline)
        elif logger_provider is not None:
            # Not a second pipeline: its gauges would be lost to the same meters.
            pipeline.providers.events.logger_provider = logger_provider
        return pipeline


def _known(tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> Pipeline | None:
    for pipeline in _pipelines:
        providers = pipeline.providers
        if providers.tracer_provider is tracer_provider and providers.meter_provider is meter_provider:
            return pipeline
    return None


def pipelines() -> list[Pipeline]:
    """All that were ever made in this process."""
    return list(_pipelines)
