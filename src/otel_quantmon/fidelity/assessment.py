"""What samples show of one model: its distance from float, and its inputs' range."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic, perf_counter, perf_counter_ns, thread_time_ns
from typing import Any, Protocol

from otel_quantmon import semconv
from otel_quantmon.detection.model_streams import ModelStreams
from otel_quantmon.fidelity.numerics.comparison import Comparison
from otel_quantmon.fidelity.numerics.speedup import speedup
from otel_quantmon.fidelity.numerics.tensor_checks import TensorCheck, check_tensor
from otel_quantmon.fidelity.sample import CaptureBudget, Sample, SampledCalls
from otel_quantmon.fidelity.signals import BURST, Signals
from otel_quantmon.fidelity.windows import FidelityWindow, Thresholds, Window
from otel_quantmon.guard import guarded
from otel_quantmon.models.formats.facts import TensorFacts
from otel_quantmon.models.identity import Model
from otel_quantmon.process.worker import worker
from otel_quantmon.telemetry.context import linked
from otel_quantmon.telemetry.instruments import Attributes
from otel_quantmon.telemetry.providers import Providers

__all__ = ["Assessment", "Comparer", "outcome_of"]

_logger = logging.getLogger("otel_quantmon")

# Until a comparison is asked for again that could not be made: a caller that fails, or that overflows what is
# bounded, is not to pay for copies at each of its calls.
_AFTER_MISS = 1.0

# Samples of so many bytes are checked together, so many seconds after the first of them. One check by itself takes
# longer, since its code is in no cache; and in a burst of calls the next one, of a model that takes less time than a
# check, would have to wait for the interpreter.
_SMALL = 65_536
_TOGETHER = 0.25

# Samples of each output and input that the gauges are taken from.
_WINDOW = 100

# Runs of the model and of its reference that the speed-up is taken from; even, so that pairs of rounds stay together.
_ROUNDS = 256


class Comparer(Protocol):
    """What compares samples with a reference."""

    def submit(self, sample: Sample) -> None:
        """Compare ``sample`` in the background, and release it."""


class Assessment:
    """The samples of all loaded models that share a series.

    Args:
        attributes: Attributes of the series.
        model: A model of the series.
        providers: Where results are reported.
        capture: Bytes that all samples may hold.
        queue_limit: Samples that may wait to be checked.
        streams: Streams of the model, for detection.

    Attributes:
        attributes, capture: As given.
        outputs: Windows by source of the reference and name of the output.
        clipping: Windows of the clip ratio by input.
        thresholds: Thresholds of the model's baseline by output.
        median_norms: Norms of the reference's outputs in the baseline, by output.
        tokens: One for each comparison that is due.
        signals: Signals that go to detection.
    """

    def __init__(
        self,
        attributes: Attributes,
        model: Model,
        providers: Providers,
        capture: CaptureBudget,
        queue_limit: int,
        streams: ModelStreams,
    ) -> None:
        self._providers = providers
        self.attributes = attributes
        self._queue_limit = queue_limit
        self._facts = _tensor_facts(model)
        self._calls: weakref.WeakSet[SampledCalls] = weakref.WeakSet()
        self._comparer: weakref.ref[Comparer] | None = None
        self._source: semconv.ReferenceSource = "shadow"
        self.capture = capture
        self._waiting = 0
        self._small: list[Sample] = []
        self._small_until = 0.0
        self._lock = threading.RLock()
        self._reference_seconds: deque[float] = deque(maxlen=_ROUNDS)
        self._quantized_seconds: deque[float] = deque(maxlen=_ROUNDS)
        self.outputs: dict[tuple[semconv.ReferenceSource, str], FidelityWindow] = {}
        self.clipping: dict[str, Window] = {}
        self.thresholds: dict[str, Thresholds] = {}
        self.median_norms: dict[str, float] = {}
        self.tokens: deque[object] = deque(maxlen=1)
        self.signals = Signals(streams, attributes, providers.events)

    @property
    def facts(self) -> tuple[TensorFacts, ...]:
        """Of the model's inputs and outputs."""
        return tuple(self._facts.values())

    @property
    def speedup(self) -> float | None:
        """See `otel_quantmon.fidelity.numerics.speedup.speedup`."""
        # The reference's worker adds meanwhile, and a copy is one step.
        return speedup(tuple(self._reference_seconds), tuple(self._quantized_seconds))

    @property
    def model_name(self) -> str:
        """Name of the series' model."""
        return str(self.attributes[semconv.MODEL_NAME])

    def watch(self, calls: SampledCalls) -> None:
        """Take samples of ``calls`` from now on."""
        with self._lock:
            self._calls.add(calls)

    def compare_with(self, comparer: Comparer, source: semconv.ReferenceSource) -> None:
        """Give samples to ``comparer``, for as long as it lives; ``source`` says what they are compared with."""
        self._comparer = weakref.ref(comparer)
        self._source = source

    def adopt(self, thresholds: dict[str, Thresholds], median_norms: dict[str, float]) -> None:
        """Compare replays with a baseline from now on; both by output."""
        with self._lock:
            self.thresholds, self.median_norms = thresholds, median_norms

    def demand(self, after: float = 0.0) -> None:
        """Ask for one comparison, of whichever call comes next in ``after`` seconds."""
        if after > 0:
            # Not to keep alive a model that goes meanwhile.
            later = weakref.WeakMethod(self.demand)
            worker.submit(lambda: (demand := later()) and demand(), after)
            return
        self.tokens.append(object())
        for calls in self._live_calls():
            calls.ask_for_sample()

    def count(self, outcome: semconv.ReferenceOutcome, source: semconv.ReferenceSource | None = None) -> None:
        """Count an evaluation by what became of it; without ``source`` one of what samples are compared with."""
        attributes = {
            **self.attributes,
            semconv.REFERENCE_SOURCE: source or self._source,
            semconv.REFERENCE_OUTCOME: outcome,
        }
        self._providers.instruments.reference_evaluations.add(1, attributes)

    def missed(self, outcome: semconv.ReferenceOutcome | None = None) -> None:
        """Take note that a comparison that was asked for is not made, and ask again in a while."""
        if outcome is not None:
            self.count(outcome)
        self.demand(_AFTER_MISS)

    def compared(
        self, comparisons: list[Comparison], source: semconv.ReferenceSource, sample: Sample | None = None
    ) -> None:
        """Take what a comparison with the reference gave; ``span`` is that of the call."""
        context = linked(None if sample is None else sample.span)
        self.count(outcome_of(comparisons), source)
        for one in comparisons:
            if one.reason is not None:
                continue
            window = self.outputs.get((source, one.output))
            if window is None:
                window = self.outputs[source, one.output] = FidelityWindow(_WINDOW)
            window.add(one.measures, one.disagreement)
            # Labels are equal or not: they have no distance.
            if one.measures is not None:
                error = one.measures.relative_error
                attributes = {
                    **self.attributes,
                    semconv.OUTPUT_NAME: semconv.bounded(one.output),
                    semconv.REFERENCE_SOURCE: source,
                }
                self._providers.instruments.output_error.record(error, attributes, context)
            self.signals.place(self.model_name, source, one.output, window)
            if source == "golden":
                self.signals.golden(one, self.thresholds)
            else:
                self.signals.shadow(one, None if sample is None else sample.call)

    def replayed(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Take a case of a golden baseline: a remote reference is sent it, since all hosts have the same inputs."""
        comparer = self._comparer() if self._comparer is not None else None
        if comparer is None or self._source != "remote":
            return
        sample = Sample(check=False, compare=True)
        sample.golden = True
        sample.inputs, sample.outputs = dict(inputs), dict(outputs)
        comparer.submit(sample)

    def timed(self, reference: Sequence[float], quantized: Sequence[float]) -> None:
        """Take the seconds of runs that were made in turns, as many of each."""
        self._reference_seconds.extend(reference)
        self._quantized_seconds.extend(quantized)
        found = speedup(reference, quantized)
        if found is not None:
            self.signals.streams.read("speedup", "", found, perf_counter())

    def check_closely(self, now: float) -> None:
        """Check one call after the other for a burst, unless that has been done lately."""
        if self.signals.begin_checks(now):
            for calls in self._live_calls():
                calls.check_closely(BURST)

    def look_closer(self, now: float) -> None:
        """Compare each call for a burst of evaluations, unless that has been done lately."""
        comparer = self._comparer() if self._comparer is not None else None
        if comparer is not None and self.signals.begin_burst(now):
            self.demand()

    def show_anomaly(self, kind: semconv.AnomalyType) -> None:
        """Have the next call of each method show an anomaly in its span."""
        for calls in self._live_calls():
            calls.show_anomaly(kind)

    def after_fork(self) -> None:
        """In a child: what the parent has measured is the parent's to report, and its samples are not here."""
        self._lock = threading.RLock()
        self._waiting = 0
        self._small = []
        self._reference_seconds.clear()
        self._quantized_seconds.clear()
        self.outputs, self.clipping = {}, {}
        self.signals.after_fork()
        for calls in self._live_calls():
            calls.forget_checks()
        if self._comparer is not None and self._comparer() is not None:
            self.demand()

    def _live_calls(self) -> list[SampledCalls]:
        # A set that a thread adds to cannot be iterated.
        with self._lock:
            return list(self._calls)

    def take(self, sample: Sample) -> None:
        """Check ``sample`` in the background, and have it compared."""
        with self._lock:
            full = self._waiting >= self._queue_limit
            if not full:
                self._waiting += 1
        if full:
            self.release(sample)
            if sample.compare:
                self.missed("dropped_queue")
            return
        if sample.urgent or sample.compare or sample.size > _SMALL:
            worker.submit(lambda: self._process(sample))
            return
        now = monotonic()
        with self._lock:
            # The time is for a job that was never submitted, since a handler of a signal raised in between.
            first = not self._small or now > self._small_until
            if first:
                self._small_until = now + 2 * _TOGETHER
            self._small.append(sample)
        if first:
            worker.submit(self.check_waiting, _TOGETHER, flushed=True)

    def check_waiting(self) -> None:
        """Check the small samples that wait for each other; on the worker's thread."""
        with self._lock:
            small, self._small = self._small, []
        for sample in small:
            # The others have bytes to give back, whatever becomes of one.
            with guarded:
                self._process(sample)

    def _process(self, sample: Sample) -> None:
        try:
            # Also what is only to be compared: the copies are there, and int8 hides what went in.
            self._check(sample)
        finally:
            with self._lock:
                self._waiting -= 1
            comparer = self._comparer() if self._comparer is not None else None
            if sample.compare and comparer is not None:
                comparer.submit(sample)
            else:
                self.release(sample)
                if sample.compare:
                    self.count("dropped_shutdown")

    def release(self, sample: Sample) -> None:
        """Let go of the tensors of ``sample``."""
        self.capture.give_back(sample.size)
        sample.clear()

    def _check(self, sample: Sample) -> None:
        streams, now = self.signals.streams, perf_counter()
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
                    streams.read("clipping", name, check.clip_ratio, now, sample.call)
        self.signals.data(
            dict(_arrays(sample.inputs)),
            dict(_arrays(sample.outputs)),
            self._facts,
            now,
            sample.call,
            sample.pair,
        )
        bad_in, bad_out = _nonfinite(inputs), _nonfinite(outputs)
        # Int8 hides bad input: what went in as NaN may come out as an ordinary number.
        self._count_nonfinite("input", "propagated" if bad_out else "masked", bad_in)
        self._count_nonfinite("output", "propagated" if bad_in else "generated", bad_out)
        streams.read("nonfinite", "", float(bool(bad_in or bad_out)), now, sample.call)
        # Of the two the smaller: the thread may have had to wait, and its clock is coarse on some systems.
        spent = min(perf_counter_ns() - began, max(thread_time_ns() - began_cpu, 1)) + sample.copying
        for calls in self._live_calls():
            calls.learn_check_cost(spent)

    def _count_nonfinite(
        self, direction: semconv.TensorDirection, outcome: semconv.NonfiniteOutcome, count: int
    ) -> None:
        if count:
            attributes = {
                **self.attributes,
                semconv.TENSOR_DIRECTION: direction,
                semconv.NONFINITE_OUTCOME: outcome,
            }
            self._providers.instruments.tensor_nonfinite.add(count, attributes)


def _tensor_facts(model: Model) -> dict[str, TensorFacts]:
    """Return the facts of each input and output: by the runtime, or by the file if only that has the quantization."""
    loaded, file = model.loaded, model.facts
    found = {tensor.name: tensor for tensor in (*loaded.inputs, *loaded.outputs)}
    for tensor in (*file.inputs, *file.outputs):
        if tensor.name not in found or found[tensor.name].quantization is None:
            found[tensor.name] = tensor
    return found


def _arrays(values: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in values.items() if hasattr(value, "dtype")]


def _nonfinite(checks: dict[str, TensorCheck | None]) -> int:
    return sum(1 for check in checks.values() if check is not None and check.nonfinite)


def outcome_of(comparisons: list[Comparison]) -> semconv.ReferenceOutcome:
    """Return what became of an evaluation, by its best output."""
    reasons = {one.reason for one in comparisons}
    if None in reasons:
        return "evaluated"
    if "degenerate" in reasons:
        return "degenerate"
    return "nonfinite" if "non_finite" in reasons else "incomparable"
