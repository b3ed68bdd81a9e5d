"""What is read at a collection, metric by metric."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from time import perf_counter_ns
from typing import Protocol

from otel_quantmon import semconv
from otel_quantmon.detection.monitor import Monitor
from otel_quantmon.fidelity.numerics.measures import decibels
from otel_quantmon.fidelity.windows import FidelitySummary
from otel_quantmon.models.graph_health import GraphHealth
from otel_quantmon.models.identity import Model
from otel_quantmon.process.host import cpu_isa, resident_memory
from otel_quantmon.process.worker import worker
from otel_quantmon.recording.latency import LatencySummary
from otel_quantmon.recording.pending import PendingCalls
from otel_quantmon.recording.recorder import Recorder
from otel_quantmon.recording.series import Series, SeriesKey, point_attributes
from otel_quantmon.telemetry.instruments import Attributes, Measurements

__all__ = ["Gauges", "ReportedModel", "Reports"]

_MEAN, _P50, _P95, _P99 = ((semconv.STATISTIC, name) for name in ("mean", "p50", "p95", "p99"))


class _Collection(threading.local):
    """What the metrics of one collection share.

    Attributes:
        asked: Metrics that it has had.
        summaries: Summaries of the windows of all series that have one, None until a metric asks for them.
        resident: Bytes of the process, None likewise.
    """

    def __init__(self) -> None:
        self.asked: set[semconv.Metric] = set()
        self.summaries: list[tuple[Series, LatencySummary]] | None = None
        self.resident: int | None = None


# Bytes of models that one collection reads, some tenths of a second on the reader's thread.
_READ_AT_COLLECTION = 256 * 1024**2


class ReportedModel(Protocol):
    """A loaded model, as it is reported.

    Attributes:
        model: What is loaded.
        health: Health of its graph, None until that has been inspected.
        load_rss: Bytes by which the process grew while the model was loaded, None when that was not seen.
    """

    model: Model
    health: GraphHealth | None
    load_rss: int | None

    def calls(self) -> list[PendingCalls]:
        """Return the calls of each of its methods."""
        ...


class Reports(Protocol):
    """All that is reported.

    Attributes:
        recorder: Recorder of the calls.
        monitor: Monitor that judges.
        load_overhead, collect_overhead: Nanoseconds spent beside the loading of models, and in collections, where what
            drains counts for the recorder.
    """

    recorder: Recorder
    monitor: Monitor
    load_overhead: int
    collect_overhead: int

    def probes(self) -> Sequence[ReportedModel]:
        """Return the loaded models that are alive."""
        ...

    def live_series(self) -> list[Series]:
        """Return the series of models that are alive, or that have calls waiting."""
        ...

    def key(self, model: Model) -> SeriesKey:
        """Return the key of the series of ``model``."""
        ...


class Gauges:
    """Reads the current points of every observed metric from ``reports``."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._collection = _Collection()
        self._points = {
            semconv.METRIC_INFERENCE_ACTIVE: self._active,
            semconv.METRIC_INFERENCE_WINDOW_DURATION: self._window_duration,
            semconv.METRIC_INFERENCE_DURATION_DRIFT: self._drift,
            semconv.METRIC_MODEL_INFO: self._info,
            semconv.METRIC_MEMORY_USAGE: self._memory_usage,
            semconv.METRIC_MEMORY_ALLOCATED: self._memory_allocated,
            semconv.METRIC_MEMORY_GROWTH: self._memory_growth,
            semconv.METRIC_OUTPUT_RELATIVE_ERROR: self._relative_error,
            semconv.METRIC_OUTPUT_SQNR: self._sqnr,
            semconv.METRIC_OUTPUT_COSINE_SIMILARITY: self._cosine_similarity,
            semconv.METRIC_OUTPUT_DISAGREEMENT: self._disagreement,
            semconv.METRIC_ANOMALY_ACTIVE: self._anomaly_active,
            semconv.METRIC_INPUT_CLIP_RATIO: self._clip_ratio,
            semconv.METRIC_SPEEDUP: self._speedup,
            semconv.METRIC_EXECUTION_PROVIDER_NODES: self._nodes,
            semconv.METRIC_QUANTIZATION_UNFUSED_NODES: self._unfused_nodes,
            semconv.METRIC_OVERHEAD_DURATION: self._overhead,
        }

    def measure(self, metric: semconv.Metric) -> Measurements:
        """Return the points of ``metric``; none if it has none.

        What waited when its collection began has been recorded by then.
        """
        started = perf_counter_ns()
        drained = self._begin(metric)
        if metric is semconv.METRIC_MODEL_INFO:
            self._read_digests()
        # Those of a fleet are its judge's.
        points: Measurements = [] if metric in semconv.FLEET_METRICS else list(self._points[metric]())
        self._reports.collect_overhead += perf_counter_ns() - started - drained
        return points

    def _begin(self, metric: semconv.Metric) -> int:
        """Begin a collection if ``metric`` is the first that this thread asks for, or one that it has had.

        A collection calls back in one thread, for each metric once. Which comes first is up to the SDK, and it may
        give up on the way.

        Returns:
            Nanoseconds of it that count as draining.
        """
        drained = 0
        collection = self._collection
        if not collection.asked or metric in collection.asked:
            collection.asked.clear()
            collection.summaries = collection.resident = None
            drained = self._reports.recorder.drain()
        collection.asked.add(metric)
        return drained

    def _active(self) -> Measurements:
        active: dict[SeriesKey, int] = {}
        for probe in self._reports.probes():
            for calls in probe.calls():
                key = calls.series.key
                active[key] = active.get(key, 0) + len(calls.in_flight)
        for key, count in active.items():
            yield count, point_attributes(key)

    def _window_duration(self) -> Measurements:
        for series, summary in self._summaries():
            key = series.key
            yield summary.mean, point_attributes(key, _MEAN)
            yield summary.p50, point_attributes(key, _P50)
            yield summary.p95, point_attributes(key, _P95)
            yield summary.p99, point_attributes(key, _P99)

    def _drift(self) -> Measurements:
        for series, summary in self._summaries():
            if summary.drift is not None:
                yield summary.drift, series.attributes

    def _summaries(self) -> list[tuple[Series, LatencySummary]]:
        found = self._collection.summaries
        if found is None:
            found = self._collection.summaries = []
            now = perf_counter_ns()
            for series in self._reports.live_series():
                # For one after another: a caller that has to wait for the lock does not wait for all models.
                with self._reports.recorder.lock:
                    summary = series.latency.summary(now)
                if summary is not None:
                    found.append((series, summary))
        return found

    def _resident(self) -> int:
        if self._collection.resident is None:
            self._collection.resident = resident_memory()
        return self._collection.resident

    def _read_digests(self) -> None:
        """Read the digests that the worker has not come to: a short run has no later collection to report them."""
        left = _READ_AT_COLLECTION
        for probe in self._reports.probes():
            model = probe.model
            if model.settings.enabled and model.digest is None and not model.identified:
                left -= model.content.size or 0
                if left >= 0:
                    model.read_digest()

    def _info(self) -> Measurements:
        seen: set[tuple[SeriesKey, tuple[tuple[str, str | None], ...]]] = set()
        for probe in self._reports.probes():
            model = probe.model
            if not model.settings.enabled:
                continue
            key = self._reports.key(model)
            facts = model.facts
            # What distinguishes one model from another would give each of those past ``max_models`` a series after all.
            shown = (
                ()
                if key[0] != model.name
                else (
                    (semconv.MODEL_DIGEST, model.digest),
                    (semconv.MODEL_FORMAT, facts.format),
                    (semconv.MODEL_VERSION, model.version),
                    (semconv.RUNTIME_VERSION, model.loaded.runtime_version),
                    (semconv.QUANTIZATION_WEIGHT_TYPE, facts.weight_type),
                    (semconv.QUANTIZATION_ACTIVATION_TYPE, facts.activation_type),
                    (semconv.CPU_ISA, cpu_isa()),
                )
            )
            # Models with the same facts have one point.
            if (key, shown) not in seen:
                seen.add((key, shown))
                yield 1, point_attributes(key, *shown)

    def _memory_usage(self) -> Measurements:
        usage: dict[tuple[SeriesKey, semconv.MemoryType], int] = {}

        def add(key: SeriesKey, kind: semconv.MemoryType, size: int | None) -> None:
            if size is not None:
                usage[key, kind] = usage.get((key, kind), 0) + size

        for probe in self._reports.probes():
            if probe.model.settings.enabled:
                key = self._reports.key(probe.model)
                add(key, "model_file", probe.model.facts.size)
                add(key, "tensor_arena", probe.model.facts.arena)
                add(key, "load_rss", probe.load_rss)
        for series in self._reports.live_series():
            add(series.key, "io", series.io_bytes)
        for (key, kind), size in usage.items():
            yield size, point_attributes(key, (semconv.MEMORY_TYPE, kind))
        if usage:
            yield self._resident(), {semconv.MEMORY_TYPE: "process_rss"}

    def _memory_allocated(self) -> Measurements:
        # list() of a dict is one step, so a call that adds a key meanwhile does no harm.
        for key, total in list(self._reports.recorder.allocated.items()):
            yield total, point_attributes(key)

    def _memory_growth(self) -> Measurements:
        growths = self._reports.monitor.growths()
        for series in self._reports.live_series():
            slope = growths.get(series.key[0])
            if slope is not None:
                yield slope, series.attributes

    def _anomaly_active(self) -> Measurements:
        for series in self._reports.live_series():
            for kind, active in series.streams.active().items():
                yield int(active), point_attributes(series.key, (semconv.ANOMALY_TYPE, kind))
        growing = self._reports.monitor.growing()
        if growing is not None:
            # Of the process: whose calls memory follows, if any model's, is in the event.
            yield int(growing), {semconv.ANOMALY_TYPE: "memory_growth"}

    def _overhead(self) -> Measurements:
        recorder = self._reports.recorder
        spent: dict[semconv.OverheadPhase, float] = {
            "call": recorder.calls_overhead,
            "drain": recorder.drain_overhead,
            "collect": self._reports.collect_overhead,
            "load": self._reports.load_overhead,
            "worker": worker.busy,
        }
        for phase, nanoseconds in spent.items():
            yield nanoseconds * 1e-9, {semconv.OVERHEAD_PHASE: phase}

    def _relative_error(self) -> Measurements:
        for attributes, summary in self._assessment():
            error = summary.relative_error
            if error is not None:
                yield error.last, {**attributes, semconv.STATISTIC: "last"}
                yield error.mean, {**attributes, semconv.STATISTIC: "mean"}
                yield error.maximum, {**attributes, semconv.STATISTIC: "max"}

    def _sqnr(self) -> Measurements:
        # Of the mean error, so that the two gauges agree: a mean of decibels would be another mean.
        for attributes, summary in self._assessment():
            if summary.relative_error is not None:
                yield decibels(summary.relative_error.mean), attributes

    def _cosine_similarity(self) -> Measurements:
        return (
            (s.cosine_similarity.mean, attributes)
            for attributes, s in self._assessment()
            if s.cosine_similarity is not None
        )

    def _disagreement(self) -> Measurements:
        return (
            (s.disagreement.mean, attributes)
            for attributes, s in self._assessment()
            if s.disagreement is not None
        )

    def _assessment(self) -> Iterator[tuple[Attributes, FidelitySummary]]:
        for series in self._reports.live_series():
            if series.assessment is not None:
                # list() of a dict is one step, so a comparison that adds an output meanwhile does no harm.
                for (source, output), window in list(series.assessment.outputs.items()):
                    named = (semconv.OUTPUT_NAME, semconv.bounded(output)), (semconv.REFERENCE_SOURCE, source)
                    yield point_attributes(series.key, *named), window.summary()

    def _clip_ratio(self) -> Measurements:
        for series in self._reports.live_series():
            if series.assessment is not None:
                for name, window in list(series.assessment.clipping.items()):
                    statistic = window.statistic()
                    if statistic is not None:
                        named = semconv.INPUT_NAME, semconv.bounded(name)
                        yield statistic.mean, point_attributes(series.key, named)

    def _speedup(self) -> Measurements:
        for series in self._reports.live_series():
            speedup = series.assessment.speedup if series.assessment is not None else None
            if speedup is not None:
                yield speedup, series.attributes

    def _nodes(self) -> Measurements:
        for probe in self._reports.probes():
            if probe.health is not None:
                key = self._reports.key(probe.model)
                # The same graph in each of the sessions that share these attributes: the last one's will do.
                for provider, count in probe.health.nodes.items():
                    yield count, point_attributes(key, (semconv.EXECUTION_PROVIDER, provider))

    def _unfused_nodes(self) -> Measurements:
        for probe in self._reports.probes():
            if probe.health is not None and probe.health.unfused is not None:
                yield probe.health.unfused, point_attributes(self._reports.key(probe.model))
