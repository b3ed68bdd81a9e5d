"""One sampled call against its reference: in the reference's process, or in the application's if there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from otel_quantmon.engines import Engine, EngineError, feed, open_engine
from otel_quantmon.formats.facts import QuantizationParameters, TensorFacts
from otel_quantmon.monitors.comparison import Comparison, compare
from otel_quantmon.monitors.measures import Measures

__all__ = ["Evaluation", "Evaluator", "Task"]

# The quantized model runs beside its reference in every so many evaluations: a median needs no more.
_TIME_QUANTIZED_EVERY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to compare.

    Attributes:
        model: key of the quantized model.
        reference: path of its reference.
        quantized: path of the quantized model, to time it under the reference's conditions; None if there is none.
        mapping: names in the quantized model to names in the reference.
        inputs, outputs: of the sampled call, by name.
        facts: of these inputs and outputs.
        median_norms: of the reference's outputs in the baseline.
        seconds: limit of one run.
    """

    model: str
    reference: str
    quantized: str | None
    mapping: Mapping[str, str]
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    facts: tuple[TensorFacts, ...]
    median_norms: Mapping[str, float]
    seconds: float

    def packed(self) -> dict[str, Any]:
        """As a message."""
        return {
            "model": self.model,
            "reference": self.reference,
            "quantized": self.quantized,
            "mapping": dict(self.mapping),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "facts": [asdict(facts) for facts in self.facts],
            "median_norms": dict(self.median_norms),
            "seconds": self.seconds,
        }

    @classmethod
    def unpacked(cls, message: dict[str, Any]) -> Task:
        """From a message."""
        unpacked: dict[str, Any] = {**message, "facts": tuple(_facts(facts) for facts in message["facts"])}
        return cls(**unpacked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What came of a task.

    Attributes:
        comparisons: one for each output; empty after an error.
        error: why there are none, for people.
        cpu_seconds: processor time that the whole evaluation took, loading left out.
        reference_seconds, quantized_seconds: processor time of one run on one thread; None if it was not run.
    """

    comparisons: list[Comparison] = field(default_factory=list[Comparison])
    error: str | None = None
    cpu_seconds: float = 0.0
    reference_seconds: float | None = None
    quantized_seconds: float | None = None

    def packed(self) -> dict[str, Any]:
        """As a message."""
        return asdict(self)

    @classmethod
    def unpacked(cls, message: dict[str, Any]) -> Evaluation:
        """From a message."""
        comparisons: list[Comparison] = []
        for one in message["comparisons"]:
            measures = Measures(**one["measures"]) if one["measures"] else None
            unpacked: dict[str, Any] = {**one, "measures": measures}
            comparisons.append(Comparison(**unpacked))
        evaluation: dict[str, Any] = {**message, "comparisons": comparisons}
        return cls(**evaluation)


class Evaluator:
    """Holds the references that were needed so far, and compares with them.

    Args:
        clock: of the processor time that evaluations take.

    Attributes:
        loading_seconds: by that clock, spent on loading models so far.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self.loading_seconds = 0.0
        self._engines: dict[str, Engine] = {}
        self._evaluated: dict[str, int] = {}

    def evaluate(self, task: Task) -> Evaluation:
        """Run the reference on a task's inputs and compare; an error is told in the result."""
        try:
            reference = self._engine(task.reference)
            timed = self._timed(task)
        except EngineError as error:
            return Evaluation(error=str(error))
        began = self._clock()
        by_name = {tensor.name: tensor for tensor in task.facts}
        try:
            feeds = feed(task.inputs, by_name, reference.inputs, task.mapping)
            reference_seconds, results = _run(reference, feeds, task.seconds)
            comparisons = compare(
                task.outputs,
                results,
                facts=by_name,
                reference_facts={tensor.name: tensor for tensor in reference.outputs},
                mapping=task.mapping,
                median_norms=task.median_norms,
            )
        except EngineError as error:
            return Evaluation(error=str(error), cpu_seconds=self._clock() - began)
        quantized_seconds = None
        if timed is not None:
            # The application's file may have been replaced meanwhile: that costs the time, not the comparison.
            with suppress(EngineError):
                own = feed(task.inputs, by_name, timed.inputs)
                quantized_seconds, _ = _run(timed, own, task.seconds)
        return Evaluation(
            comparisons=comparisons,
            cpu_seconds=self._clock() - began,
            reference_seconds=reference_seconds,
            quantized_seconds=quantized_seconds,
        )

    def _engine(self, path: str) -> Engine:
        engine = self._engines.get(path)
        if engine is None:
            began = self._clock()
            try:
                engine = self._engines[path] = open_engine(path)
            finally:
                self.loading_seconds += self._clock() - began
        return engine

    def _timed(self, task: Task) -> Engine | None:
        count = self._evaluated[task.model] = self._evaluated.get(task.model, -1) + 1
        if task.quantized is None or count % _TIME_QUANTIZED_EVERY:
            return None
        try:
            return self._engine(task.quantized)
        except EngineError:
            return None


def _run(engine: Engine, feeds: dict[str, Any], seconds: float) -> tuple[float, dict[str, Any]]:
    # Processor time of this thread, on which an engine of one thread runs: other processes do not count.
    began = time.thread_time()
    results = engine.run(feeds, seconds=seconds)
    return time.thread_time() - began, results


def _facts(message: dict[str, Any]) -> TensorFacts:
    shape, parameters = message["shape"], message["quantization"]
    quantization = None
    if parameters is not None:
        scales, zero_points = tuple(parameters["scales"]), tuple(parameters["zero_points"])
        quantization = QuantizationParameters(scales, zero_points, parameters["dtype"], parameters["axis"])
    return TensorFacts(
        message["name"], message["dtype"], None if shape is None else tuple(shape), quantization
    )
