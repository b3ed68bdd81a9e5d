"""A float reference beside a model: sampled calls are run through it, as often as its cost allows."""

from __future__ import annotations

import logging
import os
import re
import threading
import weakref
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from otel_quantmon.probe.sampling import Sample
from otel_quantmon.probe.worker import reference_worker
from otel_quantmon.reference.client import ReferenceProcess
from otel_quantmon.reference.evaluation import Task

if TYPE_CHECKING:
    from otel_quantmon.probe.fidelity import Fidelity
    from otel_quantmon.probe.model import Model
    from otel_quantmon.settings import Settings

__all__ = ["METADATA_KEY", "References", "Shadow", "reference_of"]

_logger = logging.getLogger("otel_quantmon")

METADATA_KEY = "quantmon.reference"
"""Key of a model's own metadata that names its reference, relative to the model's folder."""

# Ends of a quantized model's file name that its float original does not have.
_QUANTIZED_SUFFIX = re.compile(
    r"[._-](int8|uint8|int4|uint4|q4|q8|quant|quantized|quantised|qdq|qoperator|static|dynamic|fp16|float16|half)"
    r"([._-](int8|uint8|int4|quant|quantized|quantised|static|dynamic|qdq))*$",
    re.IGNORECASE,
)

# An error will be there the next time as well, mostly; and it may be a file that is being replaced.
_AFTER_ERROR = 30.0
_MOST_ERRORS = 3

# Reasons that lie in the two models, not in what they were given.
_MISFITS = ("unmatched", "kind", "shape", "dtype", "quantization", "sparse")

# Warnings that are told apart, so that sessions made and dropped by the thousand do not repeat them.
_MOST_WARNINGS = 1000


def reference_of(model: Model, *, discover: bool) -> str | None:
    """Path of the float reference of ``model``: from the settings, its metadata, or, when asked, by name."""
    if model.settings.reference is not None:
        return model.settings.reference
    folder = Path(model.path).parent if model.path else None
    named = model.facts.metadata.get(METADATA_KEY)
    if named and (folder is not None or os.path.isabs(named)):
        return str((folder or Path()) / named)
    if not discover or model.path is None:
        return None
    path = Path(model.path)
    stem = _QUANTIZED_SUFFIX.sub("", path.stem)
    for candidate in (path.with_name(stem + path.suffix), path.with_name(f"{stem}_float{path.suffix}")):
        if candidate != path and candidate.is_file():
            return str(candidate)
    return None


class References:
    """The reference's process, and how its budget is shared."""

    def __init__(self, settings: Settings) -> None:
        self._budget = settings.reference_budget
        self.timeout = settings.reference_timeout
        self._discovery = settings.reference_discovery
        self.process = ReferenceProcess(self._budget, self.timeout)
        self._shadows: weakref.WeakSet[Shadow] = weakref.WeakSet()
        self._warned: set[str] = set()
        self._most_waiting = settings.reference_queue
        self._waiting = 0
        self._lock = threading.Lock()

    def shadow(self, fidelity: Fidelity, model: Model) -> Shadow | None:
        """The shadow of ``model``; None if it has no reference, or one that cannot be used."""
        reference = reference_of(model, discover=self._discovery)
        # Without a budget nothing is ever due.
        if reference is None or not self._budget:
            return None
        if model.facts.stateful:
            self.warn(
                f"model {model.name!r} keeps state between its calls, so single calls cannot be compared with the "
                f"reference {reference!r}; record a baseline instead (quantmon baseline record)"
            )
            return None
        if not os.path.isfile(reference):
            self.warn(
                f"model {model.name!r}: there is no reference {reference!r}; monitoring goes on without"
            )
            fidelity.count("failed")
            return None
        shadow = Shadow(fidelity, model, reference, self)
        self._shadows.add(shadow)
        weakref.finalize(shadow, reference_worker.submit, self._close_if_unused).atexit = False
        return shadow

    def warn(self, message: str) -> None:
        """Log ``message``, once."""
        if message not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(message)
            _logger.warning("%s", message)

    def enter(self) -> bool:
        """Let one more sample wait or be evaluated; False if there are too many."""
        with self._lock:
            free = self._waiting < self._most_waiting
            self._waiting += free
        return free

    def leave(self) -> None:
        """Take note that a sample has been evaluated."""
        with self._lock:
            self._waiting -= 1

    @property
    def share(self) -> float:
        """Of one core, for each model that has a reference."""
        return self._budget / max(1, len(self._shadows))

    def abandon(self) -> None:
        """In a child after fork: the process is the parent's."""
        self._lock = threading.Lock()
        self._waiting = 0
        self.process.abandon()

    def _close_if_unused(self) -> None:
        if not self._shadows:
            self.process.close()


class Shadow:
    """Compares sampled calls of one model with its reference.

    Args:
        fidelity: of the model: asked for samples, given the results.
        model: whose calls they are.
        reference: path of the float model.
        references: all models' process and budget.
    """

    def __init__(self, fidelity: Fidelity, model: Model, reference: str, references: References) -> None:
        self._fidelity = fidelity
        self._references = references
        self._name = model.name
        self._reference = reference
        self._quantized = model.path
        self._mapping = model.settings.reference_mapping
        self._errors = 0

    def submit(self, sample: Sample) -> None:
        """Compare ``sample`` in the background."""
        if self._references.enter():
            reference_worker.submit(lambda: self._compare(sample))
        else:
            self._fidelity.release(sample)
            self._fidelity.missed("dropped_queue")

    def _compare(self, sample: Sample) -> None:
        began = monotonic()
        task = Task(
            model=self._name,
            reference=self._reference,
            quantized=self._quantized,
            mapping=self._mapping,
            inputs=sample.inputs,
            outputs=sample.outputs,
            facts=self._fidelity.facts,
            median_norms=self._fidelity.median_norms,
            seconds=self._references.timeout,
        )
        try:
            evaluation = self._references.process.evaluate(task)
        finally:
            self._fidelity.release(sample)
            self._references.leave()
        # As often as the cost allows, the copies on the caller's thread included.
        pause = (evaluation.cpu_seconds + sample.copying * 1e-9) / self._references.share - (
            monotonic() - began
        )
        if evaluation.error is None:
            self._errors = 0
            self._fidelity.compared(evaluation.comparisons, "shadow", sample.span)
            self._fidelity.timed(evaluation.reference_seconds, evaluation.quantized_seconds)
            for one in evaluation.comparisons:
                if one.reason in _MISFITS:
                    self._references.warn(
                        f"model {self._name!r}: output {one.output!r} cannot be compared with its reference "
                        f"{self._reference!r}: {one.detail}"
                    )
        else:
            self._errors += 1
            self._fidelity.count("failed")
            pause = max(pause, _AFTER_ERROR)
            if self._errors in (1, _MOST_ERRORS):
                _logger.warning(
                    "model %r cannot be compared with its reference %r%s: %s",
                    self._name,
                    self._reference,
                    "" if self._errors == 1 else f" ({_MOST_ERRORS} times now, it is not tried again)",
                    evaluation.error,
                )
            if self._errors >= _MOST_ERRORS:
                return
        self._fidelity.demand(max(0.001, pause))
