"""What samples tell of one model: its distance from float, its inputs' range, and when either is anomalous."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from statistics import median
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from otel_quantmon import semconv
from otel_quantmon.formats.facts import TensorFacts
from otel_quantmon.monitors.anomalies import Anomalies, Limit
from otel_quantmon.monitors.comparison import Comparison
from otel_quantmon.monitors.fidelity import FidelityWindow, Thresholds, Window
from otel_quantmon.monitors.inputs import TensorCheck, check_tensor
from otel_quantmon.probe.golden import Golden
from otel_quantmon.probe.sampling import Sample, Sampler
from otel_quantmon.probe.worker import worker

if TYPE_CHECKING:
    from otel_quantmon.probe.lane import Lane
    from otel_quantmon.probe.model import Model
    from otel_quantmon.probe.observer import Observer
    from otel_quantmon.probe.probe import Probe
    from otel_quantmon.probe.series import Series

__all__ = ["Fidelity"]

_logger = logging.getLogger("otel_quantmon")

# Until a comparison is asked for again that could not be made: a caller that fails, or that overflows what is
# bounded, is not to pay for copies at each of its calls.
_AFTER_MISS = 1.0

# Samples of each output and input that the gauges are taken from.
_WINDOW = 100


class Fidelity:
    """The samples of all loaded models that share a series.

    Attributes:
        outputs: windows by source of the reference and name of the output.
        clipping: windows of the clip ratio by input.
        thresholds: by output, those of the model's baseline.
        median_norms: of the reference's outputs in the baseline, by output.
        tokens: one for each comparison that is due.
        anomalies: states of the model's signals.
        golden: replays the baseline, None without one.
    """

    def __init__(self, observer: Observer, series: Series, model: Model) -> None:
        self._observer = observer
        self._series = weakref.ref(series)
        self._attributes = series.attributes
        self._facts = _tensor_facts(model)
        self._lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._waiting = 0
        self._lock = threading.Lock()
        self._reference_seconds: deque[float] = deque(maxlen=_WINDOW)
        self._quantized_seconds: deque[float] = deque(maxlen=_WINDOW)
        self.outputs: dict[tuple[semconv.ReferenceSource, str], FidelityWindow] = {}
        self.clipping: dict[str, Window] = {}
        self.thresholds: dict[str, Thresholds] = {}
        self.median_norms: dict[str, float] = {}
        self.tokens: deque[object] = deque(maxlen=1)
        self.anomalies = Anomalies()
        self.golden: Golden | None = None

    @property
    def facts(self) -> tuple[TensorFacts, ...]:
        """Of the model's inputs and outputs."""
        return tuple(self._facts.values())

    @property
    def speedup(self) -> float | None:
        """Median time of the reference over that of the quantized model; None until both have been timed."""
        if not (self._reference_seconds and self._quantized_seconds):
            return None
        quantized = median(tuple(self._quantized_seconds))
        return median(tuple(self._reference_seconds)) / quantized if quantized else None

    def sampler(self, lane: Lane) -> Sampler | None:
        """A sampler for ``lane``; None if its method's tensors cannot be read."""
        with self._lock:
            self._lanes.add(lane)
        if lane.method.read_inputs is None or lane.method.read_outputs is None:
            return None
        return Sampler(lane, self._observer.capture, self.tokens, self._take, self.missed)

    def replay(self, probe: Probe) -> None:
        """Hold ``probe`` against the golden baseline from now on, if it has one and may spend time on it."""
        path, series = probe.model.settings.baseline, self._series()
        if path is None or series is None or not self._observer.settings.reference_budget:
            return
        with self._lock:
            if self.golden is None:
                self.golden = Golden(self._observer, series, self, path)
        self.golden.add(probe)

    def adopt(self, thresholds: dict[str, Thresholds], median_norms: dict[str, float]) -> None:
        """Judge by a baseline from now on; both by output."""
        with self._lock:
            if thresholds != self.thresholds:
                self.anomalies.forget("relative_error")
            self.thresholds, self.median_norms = thresholds, median_norms

    def demand(self, after: float = 0.0) -> None:
        """Ask for one comparison, of whichever call comes next in ``after`` seconds."""
        if after > 0:
            # Not to keep alive a model that goes meanwhile.
            later = weakref.WeakMethod(self.demand)
            worker.submit(lambda: (demand := later()) and demand(), after)
            return
        self.tokens.append(object())
        for lane in self._live_lanes():
            lane.careful = True

    def count(self, outcome: semconv.ReferenceOutcome, source: semconv.ReferenceSource = "shadow") -> None:
        """Count an evaluation by what became of it."""
        attributes = {
            **self._attributes,
            semconv.REFERENCE_SOURCE: source,
            semconv.REFERENCE_OUTCOME: outcome,
        }
        self._observer.instruments.reference_evaluations.add(1, attributes)

    def missed(self, outcome: semconv.ReferenceOutcome | None = None) -> None:
        """Take note that a comparison that was asked for is not made, and ask again in a while."""
        if outcome is not None:
            self.count(outcome)
        self.demand(_AFTER_MISS)

    def compared(
        self, comparisons: list[Comparison], source: semconv.ReferenceSource, span: SpanContext | None = None
    ) -> None:
        """Take what a comparison with the reference gave; ``span`` is that of the call."""
        context = Context() if span is None else set_span_in_context(NonRecordingSpan(span), Context())
        self.count(_outcome(comparisons), source)
        for one in comparisons:
            measures = one.measures
            if one.reason is not None or measures is None:
                continue
            window = self.outputs.get((source, one.output))
            if window is None:
                window = self.outputs[source, one.output] = FidelityWindow(_WINDOW)
            window.add(measures)
            attributes = {
                **self._attributes,
                semconv.OUTPUT_NAME: one.output,
                semconv.REFERENCE_SOURCE: source,
            }
            self._observer.instruments.output_error.record(measures.relative_error, attributes, context)
            thresholds = self.thresholds.get(one.output, _FIXED)
            enter = thresholds.relative_error
            name = f"{source} {one.output}"
            self.judge("relative_error", name, measures.relative_error, Limit(enter, enter * 0.8, 3))
            if measures.disagreement is not None:
                self.judge("disagreement", name, measures.disagreement)

    def timed(self, reference: float | None, quantized: float | None) -> None:
        """Take the seconds that one run of each took under equal conditions."""
        if reference is not None:
            self._reference_seconds.append(reference)
        if quantized is not None:
            self._quantized_seconds.append(quantized)

    def judge(self, kind: semconv.AnomalyType, of: str, value: float, limit: Limit | None = None) -> None:
        """Take a value of a signal, and report it if with it the signal becomes anomalous."""
        with self._lock:
            entered = self.anomalies.update(kind, of, value, limit)
        if not entered:
            return
        attributes = {**self._attributes, semconv.ANOMALY_TYPE: kind}
        self._observer.instruments.anomalies.add(1, attributes)
        model = self._attributes[semconv.MODEL_NAME]
        _logger.warning("model %r: %s is anomalous%s, at %.4g", model, kind, f" on {of}" if of else "", value)
        for lane in self._live_lanes():
            lane.anomaly = kind
            lane.careful = True

    def after_fork(self) -> None:
        """In a child: what the parent has measured is the parent's to report, and its samples are not here."""
        self._lock = threading.Lock()
        self._waiting = 0
        self._reference_seconds.clear()
        self._quantized_seconds.clear()
        self.outputs, self.clipping = {}, {}
        self.anomalies = Anomalies()
        series = self._series()
        if series is not None and series.shadow is not None:
            self.demand()

    def _live_lanes(self) -> list[Lane]:
        # A set that a thread adds to cannot be iterated.
        with self._lock:
            return list(self._lanes)

    def _take(self, sample: Sample) -> None:
        with self._lock:
            full = self._waiting >= self._observer.settings.reference_queue
            if not full:
                self._waiting += 1
        series = self._series()
        if full or series is None:
            self.release(sample)
            if sample.compare:
                self.missed("dropped_queue" if full else "dropped_shutdown")
            return
        worker.submit(lambda: self._look_at(sample, series))

    def _look_at(self, sample: Sample, series: Series) -> None:
        try:
            if sample.check:
                self._check(sample)
        finally:
            with self._lock:
                self._waiting -= 1
            if sample.compare and series.shadow is not None:
                series.shadow.submit(sample)
            else:
                self.release(sample)

    def release(self, sample: Sample) -> None:
        """Let go of the tensors of ``sample``."""
        self._observer.capture.give_back(sample.size)
        sample.clear()

    def _check(self, sample: Sample) -> None:
        began, began_cpu = perf_counter_ns(), thread_time_ns()
        inputs = {name: check_tensor(value, self._facts.get(name)) for name, value in _arrays(sample.inputs)}
        outputs = {
            name: check_tensor(value, self._facts.get(name)) for name, value in _arrays(sample.outputs)
        }
        for name, check in inputs.items():
            if check is not None and check.clip_ratio is not None:
                window = self.clipping.get(name)
                if window is None:
                    window = self.clipping[name] = Window(_WINDOW)
                window.add(check.clip_ratio)
                # Black and white are the end codes of a sound image: only where floats lie is known of what range.
                if sample.inputs[name].dtype.kind not in "iu":
                    self.judge("clipping", name, check.clip_ratio)
        bad_in, bad_out = _nonfinite(inputs), _nonfinite(outputs)
        # Int8 hides bad input: what went in as NaN may come out as an ordinary number.
        self._count_nonfinite("input", "propagated" if bad_out else "masked", bad_in)
        self._count_nonfinite("output", "propagated" if bad_in else "generated", bad_out)
        self.judge("nonfinite", "", float(bool(bad_in or bad_out)))
        # Of the two the smaller: the thread may have had to wait, and its clock is coarse on some systems.
        spent = min(perf_counter_ns() - began, max(thread_time_ns() - began_cpu, 1)) + sample.copying
        for lane in self._live_lanes():
            if lane.sampler is not None:
                lane.sampler.spent(spent)

    def _count_nonfinite(
        self, direction: semconv.TensorDirection, outcome: semconv.NonfiniteOutcome, count: int
    ) -> None:
        if count:
            attributes = {
                **self._attributes,
                semconv.TENSOR_DIRECTION: direction,
                semconv.NONFINITE_OUTCOME: outcome,
            }
            self._observer.instruments.tensor_nonfinite.add(count, attributes)


_FIXED = Thresholds()


def _tensor_facts(model: Model) -> dict[str, TensorFacts]:
    """What is known of each input and output: by the runtime, and with its quantization if only the file tells it."""
    loaded, file = model.loaded, model.facts
    told = {tensor.name: tensor for tensor in (*loaded.inputs, *loaded.outputs)}
    for tensor in (*file.inputs, *file.outputs):
        if tensor.name not in told or told[tensor.name].quantization is None:
            told[tensor.name] = tensor
    return told


def _arrays(values: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in values.items() if hasattr(value, "dtype")]


def _nonfinite(checks: dict[str, TensorCheck | None]) -> int:
    return sum(1 for check in checks.values() if check is not None and check.nonfinite)


def _outcome(comparisons: list[Comparison]) -> semconv.ReferenceOutcome:
    """What became of an evaluation, by its best output."""
    reasons = {one.reason for one in comparisons}
    if None in reasons:
        return "evaluated"
    if "degenerate" in reasons:
        return "degenerate"
    return "nonfinite" if "non_finite" in reasons else "incomparable"
