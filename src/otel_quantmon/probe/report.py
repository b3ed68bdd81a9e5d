"""What is read at a collection, metric by metric."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter_ns
from typing import TYPE_CHECKING

from otel_quantmon import semconv
from otel_quantmon.monitors.measures import decibels
from otel_quantmon.probe.process import cpu_isa, resident_memory
from otel_quantmon.probe.series import attributes_of
from otel_quantmon.probe.worker import worker
from otel_quantmon.telemetry.instruments import Attributes, Measurements

if TYPE_CHECKING:
    from otel_quantmon.monitors.fidelity import FidelitySummary
    from otel_quantmon.monitors.latency import LatencySummary
    from otel_quantmon.probe.observer import Observer
    from otel_quantmon.probe.series import Series, SeriesKey

__all__ = ["Report"]

_CALLS_TO_JUDGE_GROWTH = 1000


class Report:
    """Reads the current points of every observed metric from ``observer``."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
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
            semconv.METRIC_INPUT_CLIP_RATIO: self._clip_ratio,
            semconv.METRIC_SPEEDUP: self._speedup,
            semconv.METRIC_EXECUTION_PROVIDER_NODES: self._nodes,
            semconv.METRIC_QUANTIZATION_UNFUSED_NODES: self._unfused_nodes,
            semconv.METRIC_OVERHEAD_DURATION: self._overhead,
        }

    def measure(self, metric: semconv.Metric) -> Measurements:
        """The points of ``metric`` after everything that waits has been recorded; none if it has none."""
        started = perf_counter_ns()
        recorder = self._observer.recorder
        points: Measurements = []
        with recorder.lock:
            recorder.drain()
            if metric in self._points:
                points = list(self._points[metric]())
        self._observer.collect_overhead += perf_counter_ns() - started
        return points

    def _active(self) -> Measurements:
        active: dict[SeriesKey, int] = {}
        for probe in self._observer.probes():
            for lane in list(probe.lanes.values()):
                if lane is not None:
                    key = lane.series.key
                    active[key] = active.get(key, 0) + len(lane.in_flight)
        for key, count in active.items():
            yield count, attributes_of(key)

    def _window_duration(self) -> Measurements:
        for series, summary in self._summaries():
            yield summary.mean, {**series.attributes, semconv.STATISTIC: "mean"}
            yield summary.p50, {**series.attributes, semconv.STATISTIC: "p50"}
            yield summary.p95, {**series.attributes, semconv.STATISTIC: "p95"}
            yield summary.p99, {**series.attributes, semconv.STATISTIC: "p99"}

    def _drift(self) -> Measurements:
        for series, summary in self._summaries():
            if summary.drift is not None:
                if series.fidelity is not None:
                    series.fidelity.judge("latency_drift", "", summary.drift)
                yield summary.drift, series.attributes

    def _summaries(self) -> Iterator[tuple[Series, LatencySummary]]:
        now = perf_counter_ns()
        for series in self._observer.live_series():
            summary = series.latency.summary(now)
            if summary is not None:
                yield series, summary

    def _info(self) -> Measurements:
        seen: set[tuple[object, ...]] = set()
        for probe in self._observer.probes():
            model = probe.model
            facts = model.facts
            optional = {
                semconv.MODEL_DIGEST: model.digest,
                semconv.MODEL_FORMAT: facts.format,
                semconv.MODEL_VERSION: model.version,
                semconv.RUNTIME_VERSION: model.loaded.runtime_version,
                semconv.QUANTIZATION_WEIGHT_TYPE: facts.weight_type,
                semconv.QUANTIZATION_ACTIVATION_TYPE: facts.activation_type,
                semconv.CPU_ISA: cpu_isa(),
            }
            key = self._observer.key(model)
            # What tells one model from another would give each of those past ``max_models`` a series after all.
            known = {n: value for n, value in optional.items() if value is not None and key[0] == model.name}
            attributes = {**attributes_of(key), **known}
            point = tuple(attributes.items())
            if model.settings.enabled and point not in seen:
                seen.add(point)
                yield 1, {**attributes}

    def _memory_usage(self) -> Measurements:
        usage: dict[tuple[SeriesKey, semconv.MemoryType], int] = {}

        def add(key: SeriesKey, kind: semconv.MemoryType, size: int | None) -> None:
            if size is not None:
                usage[key, kind] = usage.get((key, kind), 0) + size

        for probe in self._observer.probes():
            if probe.model.settings.enabled:
                key = self._observer.key(probe.model)
                add(key, "model_file", probe.model.facts.size)
                add(key, "tensor_arena", probe.model.facts.arena)
                add(key, "load_rss", probe.load_rss)
        for series in self._observer.live_series():
            add(series.key, "io", series.io_bytes)
        for (key, kind), size in usage.items():
            yield size, {**attributes_of(key), semconv.MEMORY_TYPE: kind}
        if usage:
            yield resident_memory(), {semconv.MEMORY_TYPE: "process_rss"}

    def _memory_allocated(self) -> Measurements:
        for key, total in self._observer.recorder.allocated.items():
            yield total, attributes_of(key)

    def _memory_growth(self) -> Measurements:
        for series in self._observer.live_series():
            series.growth.observe(series.calls, resident_memory())
            slope = series.growth.slope()
            if slope is not None:
                # Over fewer calls, what a process allocates once looks like growth with each of them.
                if series.fidelity is not None and series.calls >= _CALLS_TO_JUDGE_GROWTH:
                    series.fidelity.judge("memory_growth", "", slope)
                yield slope, series.attributes

    def _overhead(self) -> Measurements:
        recorder = self._observer.recorder
        spent: dict[semconv.OverheadRoom, float] = {
            "call": recorder.calls_overhead,
            "drain": recorder.drain_overhead,
            "collect": self._observer.collect_overhead,
            "load": self._observer.load_overhead,
            "worker": worker.busy,
        }
        for room, nanoseconds in spent.items():
            yield nanoseconds * 1e-9, {semconv.OVERHEAD_ROOM: room}

    def _relative_error(self) -> Measurements:
        for attributes, summary in self._fidelity():
            error = summary.relative_error
            if error is not None:
                yield error.last, {**attributes, semconv.STATISTIC: "last"}
                yield error.mean, {**attributes, semconv.STATISTIC: "mean"}
                yield error.maximum, {**attributes, semconv.STATISTIC: "max"}

    def _sqnr(self) -> Measurements:
        # Of the mean error, so that the two gauges tell the same: a mean of decibels would be another mean.
        for attributes, summary in self._fidelity():
            if summary.relative_error is not None:
                yield decibels(summary.relative_error.mean), attributes

    def _cosine_similarity(self) -> Measurements:
        return (
            (s.cosine_similarity.mean, attributes)
            for attributes, s in self._fidelity()
            if s.cosine_similarity is not None
        )

    def _disagreement(self) -> Measurements:
        return (
            (s.disagreement.mean, attributes)
            for attributes, s in self._fidelity()
            if s.disagreement is not None
        )

    def _fidelity(self) -> Iterator[tuple[Attributes, FidelitySummary]]:
        for series in self._observer.live_series():
            if series.fidelity is not None:
                # list() of a dict is one step, so a comparison that adds an output meanwhile does no harm.
                for (source, output), window in list(series.fidelity.outputs.items()):
                    named: Attributes = {semconv.OUTPUT_NAME: output, semconv.REFERENCE_SOURCE: source}
                    yield {**series.attributes, **named}, window.summary()

    def _clip_ratio(self) -> Measurements:
        for series in self._observer.live_series():
            if series.fidelity is not None:
                for name, window in list(series.fidelity.clipping.items()):
                    statistic = window.statistic()
                    if statistic is not None:
                        yield statistic.mean, {**series.attributes, semconv.INPUT_NAME: name}

    def _speedup(self) -> Measurements:
        for series in self._observer.live_series():
            speedup = series.fidelity.speedup if series.fidelity is not None else None
            if speedup is not None:
                yield speedup, series.attributes

    def _nodes(self) -> Measurements:
        for probe in self._observer.probes():
            if probe.health is not None:
                attributes = attributes_of(self._observer.key(probe.model))
                # The same graph in each of the sessions that share these attributes: the last one's will do.
                for provider, count in probe.health.nodes.items():
                    yield count, {**attributes, semconv.EXECUTION_PROVIDER: provider}

    def _unfused_nodes(self) -> Measurements:
        for probe in self._observer.probes():
            if probe.health is not None and probe.health.unfused is not None:
                yield probe.health.unfused, attributes_of(self._observer.key(probe.model))
