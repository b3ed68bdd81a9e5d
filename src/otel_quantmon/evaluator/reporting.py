"""The series of the models whose samples are evaluated, reported and judged as in the process of an application."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any, cast

from otel_quantmon import semconv
from otel_quantmon.detection.monitor import Monitor
from otel_quantmon.evaluator.fleet.report import Fleet
from otel_quantmon.fidelity.assessment import Assessment, outcome_of
from otel_quantmon.fidelity.numerics.comparison import Comparison
from otel_quantmon.fidelity.remote.record import SampleRecord
from otel_quantmon.fidelity.sample import CaptureBudget, Sample
from otel_quantmon.guard import guarded
from otel_quantmon.models.description import LoadedModel
from otel_quantmon.models.identity import Model
from otel_quantmon.process.worker import worker
from otel_quantmon.recording.gauges import Gauges, ReportedModel
from otel_quantmon.recording.judging import Judging
from otel_quantmon.recording.recorder import Recorder
from otel_quantmon.recording.series import Series, SeriesKey, attributes_of
from otel_quantmon.settings import Settings
from otel_quantmon.telemetry.api import MeterProvider
from otel_quantmon.telemetry.context import span_context
from otel_quantmon.telemetry.instruments import Measurements
from otel_quantmon.telemetry.providers import Providers

__all__ = ["Reporting"]

# Of all that share the name, past as many models as are allowed: what a record says is not to make series without end.
_OTHER: SeriesKey = ("other", "other", "other", "other")


class Reporting:
    """Reports to one pair of providers, None for the global ones. For one thread, but for what a collection reads.

    Attributes:
        fleet: Part of this worker in the judgement of a fleet, None without one.
        recorder, monitor, load_overhead, collect_overhead: See `otel_quantmon.recording.gauges.Reports`.
    """

    def __init__(
        self, settings: Settings, meter_provider: MeterProvider | None = None, logger_provider: Any = None
    ) -> None:
        self._settings = settings
        self._series: dict[SeriesKey, tuple[Series, Assessment, Model]] = {}
        self.load_overhead = self.collect_overhead = 0
        self.monitor = Monitor(settings.false_alarms)
        self.recorder = Recorder(lambda: self._providers, limit=settings.queue_size, check_budget=0.0)
        self._judging = Judging(
            self.recorder,
            self.monitor,
            lambda: self._providers,
            self.live_series,
            settings.judgement_interval,
        )
        self._judge_at = 0.0
        self.fleet: Fleet | None = None
        self._gauges = Gauges(self)
        self._providers = Providers(None, meter_provider, self._measure, worker.submit, logger_provider)

    def join_fleet(self, path: Path, worker: str) -> None:
        """Take part in the judgement of the fleet whose state is at ``path``, as the worker of a name.

        Raises:
            EvaluatorError: The file cannot be used.
        """
        self.fleet = Fleet(path, worker, self._settings.false_alarms, lambda: self._providers)

    def _measure(self, metric: semconv.Metric) -> Measurements:
        if metric in semconv.FLEET_METRICS:
            return () if self.fleet is None else self.fleet.points(metric)
        return self._gauges.measure(metric)

    def probes(self) -> Sequence[ReportedModel]:
        """None: no model of an application is here."""
        return ()

    def live_series(self) -> list[Series]:
        """Those of all models that samples have come of."""
        return [series for series, _, _ in list(self._series.values())]

    def key(self, model: Model) -> SeriesKey:
        """Return what tells the series of ``model`` from others."""
        return next(key for key, (_, _, one) in list(self._series.items()) if one is model)

    def key_of(self, record: SampleRecord) -> SeriesKey:
        """Return what tells the series of a sample from others."""
        texts = (record.model, record.runtime, record.scheme, record.provider)
        key = cast("SeriesKey", tuple(map(semconv.bounded, texts)))
        return key if key in self._series or len(self._series) < self._settings.max_models else _OTHER

    def evaluated(self, record: SampleRecord, comparisons: list[Comparison]) -> None:
        """Report the evaluation of a sample, linked to the trace of its call.

        Of a golden baseline's case it only counts that there was one: it is no traffic.
        """
        if record.golden:
            self.count(self.key_of(record), outcome_of(comparisons))
            return
        sample = Sample(check=False, compare=True)
        sample.span = span_context(record.trace_id, record.span_id)
        # The clock of the service is another; what matters is the order in which samples come.
        sample.end = perf_counter_ns()
        self._assessment(self.key_of(record), record.digest).compared(comparisons, "remote", sample)

    def count(self, model: tuple[str, ...], outcome: semconv.ReferenceOutcome, count: int = 1) -> None:
        """Count samples of which there is nothing else to report.

        Args:
            model: Key of their series; empty where the samples could not be read.
            outcome: What became of them.
            count: Number of them.
        """
        attributes = attributes_of(cast("SeriesKey", model)) if model else {}
        self._providers.instruments.reference_evaluations.add(
            count,
            {**attributes, semconv.REFERENCE_SOURCE: "remote", semconv.REFERENCE_OUTCOME: outcome},
        )

    def judge(self, *, at_once: bool = False) -> None:
        """Judge what has come, if it is time."""
        now = monotonic()
        if at_once or now >= self._judge_at:
            self._judge_at = now + max(self._settings.judgement_interval, 1.0)
            # What is told goes through hooks and instruments, which may raise: samples are evaluated all the same.
            with guarded:
                self._judging.run(at_once=at_once)
            if self.fleet is not None:
                self.fleet.judge()

    def flush(self) -> None:
        """Have all exported."""
        for provider in self._providers.exporting():
            provider.force_flush()

    def _assessment(self, key: SeriesKey, digest: str | None) -> Assessment:
        found = self._series.get(key)
        if found is None:
            name, runtime, scheme, provider = key
            loaded = LoadedModel(
                runtime=cast("semconv.RuntimeName", runtime),
                runtime_version="",
                provider=provider,
                label=name,
            )
            model = Model(loaded, self._settings)
            model.content.digest = digest
            settings = self._settings.for_model(name, digest=digest)
            streams = self.monitor.streams(name, kinds=settings.anomalies, least=settings.anomaly_change)
            series = Series((name, runtime, scheme, provider), model, streams)
            assessment = Assessment(
                series.attributes, model, self._providers, CaptureBudget(0), 0, series.streams
            )
            series.assessment = assessment
            found = self._series[key] = series, assessment, model
        return found[1]
