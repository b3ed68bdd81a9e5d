"""The float models of a worker: which belongs to a sample, loaded when the first one comes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otel_quantmon.evaluator.source import EvaluatorError
from otel_quantmon.fidelity.engines import EngineError
from otel_quantmon.fidelity.reference.evaluation import Evaluation, Evaluator, Task
from otel_quantmon.fidelity.remote.record import SampleRecord
from otel_quantmon.settings import REMOTE, ModelSettings, Settings, read_settings

__all__ = ["FloatModels", "Run", "UnknownModelError", "read_models"]


class UnknownModelError(Exception):
    """No float model is named for the model of a sample."""


def read_models(path: str) -> Settings:
    """Return the settings of a file whose ``reference`` keys name the float models.

    Raises:
        EvaluatorError: It cannot be read, something in it is not accepted, or it names no float model that is there.
    """
    try:
        settings = read_settings(path)
    except ValueError as error:
        raise EvaluatorError(str(error)) from error
    sections = {
        name: section["reference"] for name, section in settings.models.items() if "reference" in section
    }
    named = {name: file for name, file in {**settings.reference, **sections}.items() if file != REMOTE}
    if not named:
        raise EvaluatorError(
            f'{path} names no float model: write sections, [models."name or glob"] with reference = "float.onnx"'
        )
    missing = [f"{name!r}: {file}" for name, file in named.items() if not os.path.isfile(file)]
    if missing:
        raise EvaluatorError(f"{path} names float models that are no files: {', '.join(missing)}")
    return settings


@dataclass(frozen=True, slots=True)
class Run:
    """A sample that its float model has been run on.

    Attributes:
        task: The sample.
        results: Outputs of the float model, or what is wrong with the sample.
    """

    task: Task
    results: Mapping[str, Any] | EngineError

    @property
    def size(self) -> int:
        """Bytes of the outputs."""
        if isinstance(self.results, EngineError):
            return 0
        return sum(getattr(value, "nbytes", 0) for value in self.results.values())


class FloatModels:
    """Runs samples through their float models. For one thread.

    Args:
        settings: Settings, see `read_models`.
        threads: Threads that one run may use.
    """

    def __init__(self, settings: Settings, threads: int) -> None:
        self._settings = settings
        # Nothing of an application's is in this process: what the machine has is the worker's.
        self._evaluator = Evaluator(threads=threads, accelerated=True)

    def of(self, record: SampleRecord) -> ModelSettings:
        """Return the settings of a sample's model.

        Raises:
            UnknownModelError: They name no float model.
        """
        found = self._settings.for_model(record.model, digest=record.digest)
        if found.reference is None or found.reference == REMOTE:
            digest = "no digest" if record.digest is None else f"digest {record.digest}"
            raise UnknownModelError(f"no float model is named for {record.model!r} ({digest})")
        return found

    def load(self, settings: ModelSettings) -> None:
        """Load the float model of models with these settings, unless it is loaded.

        Raises:
            EvaluatorError: It cannot be loaded, which is no fault of the samples.
        """
        reference = settings.reference or ""
        try:
            self._evaluator.engine(reference)
        except EngineError as error:
            raise EvaluatorError(f"the float model {reference} cannot be loaded: {error}") from error

    def run(self, settings: ModelSettings, records: Sequence[SampleRecord]) -> list[Run]:
        """Run samples of models with the same settings through their float model, at once where it is allowed.

        The float model is loaded, see `load`.
        """
        reference = settings.reference or ""
        tasks = [
            Task(
                model=record.model,
                reference=reference,
                quantized=None,
                mapping=settings.reference_mapping,
                inputs=record.inputs,
                outputs=record.outputs,
                facts=record.facts,
                median_norms={},
                seconds=self._settings.reference_timeout,
            )
            for record in records
        ]
        return list(map(Run, tasks, self._evaluator.run_together(tasks)))

    def compared(self, run: Run) -> Evaluation:
        """Compare a sample with what its float model made of it."""
        return self._evaluator.compared(run.task, run.results)
