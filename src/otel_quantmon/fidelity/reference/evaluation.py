"""One sampled call against its reference: in the reference's process, or in the application's if there is none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from otel_quantmon.fidelity.engines import Engine, EngineError, feed, open_engine
from otel_quantmon.fidelity.engines.batching import are_close, run_together
from otel_quantmon.fidelity.numerics.comparison import Comparison, compare
from otel_quantmon.fidelity.numerics.measures import Measures
from otel_quantmon.fidelity.numerics.speedup import time_in_turns
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts
from otel_quantmon.models.formats.source import Identity, identity_of

__all__ = ["Evaluation", "Evaluator", "Task", "unpacked_facts"]

# In every so many evaluations both models are timed: a median needs no more.
_TIME_EVERY = 16
# Processor seconds that this takes, as far as the fewest rounds allow, and rounds at most.
_TIMING = 0.04
_MOST_ROUNDS = 64

# A reference that takes more is first timed after a few comparisons.
_LONG = 0.05
_TIME_LONG_AT = 2

# A run that took less is not given a limit when it is made again: starting the timer would take as long.
_SHORT = 0.01

# Seconds after which a model that nobody has asked for is let go when another one is loaded: the application may have
# let go of it too, or it has another path in each release.
_UNUSED = 3600.0


class _Loaded(NamedTuple):
    """A model, and its file and those of its external data as they were when it was loaded."""

    engine: Engine
    files: dict[str, Identity | None]

    def is_current(self) -> bool:
        """Return False once another file is in the place of one. A file that is gone says nothing of a new one."""
        return all(identity_of(path) in (then, None) for path, then in self.files.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to compare.

    Attributes:
        model: Key of the quantized model.
        reference: Path of its reference.
        quantized: Path of the quantized model, to time it under the reference's conditions; None if there is none.
        mapping: Names in the quantized model to names in the reference.
        inputs, outputs: Tensors of the sampled call, by name.
        facts: Facts of these inputs and outputs.
        median_norms: Median norms of the reference's outputs in the baseline.
        seconds: Limit of one run.
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
        unpacked: dict[str, Any] = {
            **message,
            "facts": tuple(unpacked_facts(facts) for facts in message["facts"]),
        }
        return cls(**unpacked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What came of a task.

    Attributes:
        comparisons: One for each output; empty after an error.
        error: Text for people that says why there are no comparisons.
        cpu_seconds: Processor time that the whole evaluation took, loading left out.
        reference_seconds, quantized_seconds: Processor times of runs on one thread, in turns, as many of each; empty
            if they were not timed.
    """

    comparisons: list[Comparison] = field(default_factory=list[Comparison])
    error: str | None = None
    cpu_seconds: float = 0.0
    reference_seconds: list[float] = field(default_factory=list[float])
    quantized_seconds: list[float] = field(default_factory=list[float])

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
        clock: Clock of the processor time that evaluations take. A model runs on one thread, the calling one, so
            the load of the rest of the machine does not count.

        threads: Threads that one run may use.
        accelerated: True to run references on a GPU if there is one.

    Attributes:
        loading_seconds: Seconds by that clock, spent on loading models so far.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.thread_time,
        threads: int = 1,
        *,
        accelerated: bool = False,
    ) -> None:
        self._clock = clock
        self._threads = threads
        self._accelerated = accelerated
        self._apart: set[str] = set()
        self._proven: set[str] = set()
        self.loading_seconds = 0.0
        self._engines: dict[str, _Loaded] = {}
        self._asked_for: dict[str, float] = {}
        self._evaluated: dict[str, int] = {}

    def evaluate(self, task: Task) -> Evaluation:
        """Run the reference on a task's inputs and compare; an error is in the result."""
        count = self._evaluated[task.model] = self._evaluated.get(task.model, -1) + 1
        try:
            reference = self.engine(task.reference)
        except EngineError as error:
            return Evaluation(error=str(error))
        began, loading = self._clock(), self.loading_seconds
        reference_seconds, quantized_seconds = list[float](), list[float]()
        try:
            feeds = _feeds(task, reference)
            before = self._clock()
            results = reference.run(feeds, seconds=task.seconds)
            took = self._clock() - before
            comparisons = _compared(task, reference, results)
        except EngineError as error:
            return Evaluation(error=str(error), cpu_seconds=self._clock() - began)
        if task.quantized is not None and count % _TIME_EVERY == (_TIME_LONG_AT if took > _LONG else 0):
            # The application's file may have gone or been replaced meanwhile: that costs the times, no comparison.
            with suppress(EngineError):
                quantized = self.engine(task.quantized)
                own = feed(task.inputs, {one.name: one for one in task.facts}, quantized.inputs)
                limit = None if took < _SHORT else task.seconds
                until = time.monotonic() + task.seconds / 2
                reference_seconds, quantized_seconds = time_in_turns(
                    lambda _: reference.run(feeds, seconds=limit),
                    lambda _: quantized.run(own, seconds=limit),
                    self._clock,
                    _TIMING,
                    most=_MOST_ROUNDS,
                    proceed=lambda: time.monotonic() < until,
                )
        return Evaluation(
            comparisons=comparisons,
            cpu_seconds=self._clock() - began - (self.loading_seconds - loading),
            reference_seconds=reference_seconds,
            quantized_seconds=quantized_seconds,
        )

    def run_together(self, tasks: Sequence[Task]) -> list[Mapping[str, Any] | EngineError]:
        """Run the reference of all tasks on the inputs of each, at once where it takes batches.

        The first time that a reference is given several, each is run alone too: where that gives other outputs than
        the batch, as where the first dimension is one of time, it is never given a batch again.

        Returns:
            For each task the outputs, or what is wrong with it; for `compared`.
        """
        batch = None
        if len(tasks) > 1 and tasks[0].reference not in self._apart:
            batch = self._batch(tasks)
        return batch or [self._alone(task) for task in tasks]

    def compared(self, task: Task, results: Mapping[str, Any] | EngineError) -> Evaluation:
        """Compare a task with what `run_together` gave for it."""
        if isinstance(results, EngineError):
            return Evaluation(error=str(results))
        try:
            reference = self.engine(task.reference)
        except EngineError as error:
            return Evaluation(error=str(error))
        return Evaluation(comparisons=_compared(task, reference, results))

    def _alone(self, task: Task) -> Mapping[str, Any] | EngineError:
        try:
            reference = self.engine(task.reference)
            return reference.run(_feeds(task, reference), seconds=task.seconds)
        except EngineError as error:
            return error

    def _batch(self, tasks: Sequence[Task]) -> list[Mapping[str, Any] | EngineError] | None:
        path = tasks[0].reference
        try:
            reference = self.engine(path)
            feeds = [_feeds(task, reference) for task in tasks]
            results = run_together(reference, feeds, seconds=tasks[0].seconds * len(tasks))
            if results is not None and path not in self._proven:
                alone = [reference.run(one, seconds=tasks[0].seconds) for one in feeds]
                if not all(map(are_close, results, alone)):
                    results = None
                    self._apart.add(path)
                self._proven.add(path)
        except EngineError:
            # One of them is at fault: alone, each gets its own error.
            return None
        return None if results is None else [*results]

    def engine(self, path: str) -> Engine:
        """Return the model at ``path``, loaded at its first use, and again where another file has taken its place.

        Raises:
            EngineError: It cannot be loaded.
        """
        now = time.monotonic()
        loaded = self._engines.get(path)
        if loaded is None or not loaded.is_current():
            # Before another one is loaded: there is not memory for both everywhere.
            for other in [path, *(one for one, at in self._asked_for.items() if now - at > _UNUSED)]:
                self._forget(other)
            began = self._clock()
            try:
                loaded = self._engines[path] = self._load(path)
            finally:
                self.loading_seconds += self._clock() - began
        self._asked_for[path] = now
        return loaded.engine

    def _load(self, path: str) -> _Loaded:
        # Before it is read: what is written meanwhile is seen as another file.
        identity = identity_of(path)
        engine = open_engine(path, threads=self._threads, accelerated=self._accelerated)
        external = [os.path.join(os.path.dirname(path), one) for one in engine.facts.external]
        return _Loaded(engine, {path: identity, **{one: identity_of(one) for one in external}})

    def _forget(self, path: str) -> None:
        self._engines.pop(path, None)
        self._asked_for.pop(path, None)
        # Whether it takes batches is found out anew.
        self._apart.discard(path)
        self._proven.discard(path)


def _feeds(task: Task, reference: Engine) -> Mapping[str, Any]:
    return feed(task.inputs, {one.name: one for one in task.facts}, reference.inputs, task.mapping)


def _compared(task: Task, reference: Engine, results: Mapping[str, Any]) -> list[Comparison]:
    return compare(
        task.outputs,
        results,
        inputs=task.inputs,
        facts={tensor.name: tensor for tensor in task.facts},
        reference_facts={tensor.name: tensor for tensor in reference.outputs},
        mapping=task.mapping,
        median_norms=task.median_norms,
    )


def unpacked_facts(message: dict[str, Any]) -> TensorFacts:
    """Return the facts of a tensor from a message, which has them as `dataclasses.asdict` gives them."""
    shape, parameters = message["shape"], message["quantization"]
    quantization = None
    if parameters is not None:
        scales, zero_points = tuple(parameters["scales"]), tuple(parameters["zero_points"])
        quantization = QuantizationParameters(scales, zero_points, parameters["dtype"], parameters["axis"])
    return TensorFacts(
        message["name"], message["dtype"], None if shape is None else tuple(shape), quantization
    )
