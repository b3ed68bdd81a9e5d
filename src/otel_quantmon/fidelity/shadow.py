"""A float reference beside a model: sampled calls are run through it, as often as its cost allows."""

from __future__ import annotations

import logging
import os
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from time import monotonic

from otel_quantmon.fidelity.assessment import Assessment
from otel_quantmon.fidelity.reference.client import ReferenceProcess
from otel_quantmon.fidelity.reference.evaluation import Evaluation, Task
from otel_quantmon.fidelity.reference.layers import Entry, EntryTask
from otel_quantmon.fidelity.sample import Sample
from otel_quantmon.guard import pass_on
from otel_quantmon.models.formats.source import identity_of
from otel_quantmon.models.identity import Model
from otel_quantmon.process.worker import reference_worker
from otel_quantmon.settings import Settings

__all__ = ["METADATA_KEY", "References", "Shadow", "reference_of"]

_logger = logging.getLogger("otel_quantmon")

METADATA_KEY = "quantmon.reference"
"""Key of a model's own metadata that names its reference, a file beside the model."""

# Ends of a quantized model's file name that its float original does not have.
_QUANTIZED_SUFFIX = re.compile(
    r"[._-](int8|uint8|int4|uint4|q4|q8|quant|quantized|quantised|qdq|qoperator|static|dynamic|fp16|float16|half)"
    r"([._-](int8|uint8|int4|quant|quantized|quantised|static|dynamic|qdq))*$",
    re.IGNORECASE,
)

# Characters that are shown of a name that is not trusted.
_SHOWN = 40

# An error will be there the next time as well, mostly; and it may be a file that is being replaced.
_AFTER_ERROR = 30.0
_MOST_ERRORS = 3

# Seconds between two looks at whether the process is still needed, while it runs.
_LOOK_AFTER = 1.0

# Reasons that lie in the two models, not in what they were given.
_MISFITS = ("unmatched", "kind", "shape", "dtype", "quantization", "sparse")

# Warnings that are given once each, so that sessions made and dropped by the thousand do not repeat them.
_MOST_WARNINGS = 1000


def reference_of(
    model: Model,
    *,
    discover: bool,
    warn: Callable[[str], None] = lambda message: _logger.warning("%s", message),
) -> str | None:
    """Path of the float reference of ``model``: from the settings, its metadata, or, when asked, by name.

    Args:
        model: Model that has the reference.
        discover: True to look for a file beside it.
        warn: A function that is given a warning of metadata that is not followed.
    """
    if model.settings.reference is not None:
        return model.settings.reference
    named = model.facts.metadata.get(METADATA_KEY)
    if named and model.path is not None:
        beside = _beside(Path(model.path), named)
        if beside is not None:
            return str(beside)
        shown = repr(named) if len(named) <= _SHOWN else f"{named[:_SHOWN]!r}..."
        warn(
            f"model {model.name!r} names {shown} as its reference, which is no file beside it and is not loaded; "
            "name a reference in the settings"
        )
    if not discover or model.path is None:
        return None
    path = Path(model.path)
    stem = _QUANTIZED_SUFFIX.sub("", path.stem)
    for candidate in (path.with_name(stem + path.suffix), path.with_name(f"{stem}_float{path.suffix}")):
        if candidate != path and candidate.is_file():
            return str(candidate)
    return None


def _beside(path: Path, name: str) -> Path | None:
    """Return the file ``name`` in the folder of the model at ``path``; None if it is, or may lead, anywhere else.

    A model comes from outside: what it says of itself must not have another file opened.
    """
    if (
        name == ".."
        or name != PurePosixPath(name).name
        or name != PureWindowsPath(name).name
        or not name.isprintable()
    ):
        return None
    beside = path.with_name(name)
    try:
        # Folders of links, as caches of downloads have, lead for all their files to one other folder.
        near = {path.parent.resolve(), path.resolve().parent}
        return beside if beside.resolve().parent in near else None
    except (OSError, RuntimeError) as error:
        pass_on(error)
        return None


class References:
    """The reference's process, and how its budget is shared.

    Args:
        settings: Settings of the process.
        needed: True while a model that is observed has a reference, and there is somewhere to report to.

    Attributes:
        needed: As given.
    """

    def __init__(self, settings: Settings, needed: Callable[[], bool]) -> None:
        self.needed = needed
        self._looking = False
        self._budget = settings.reference_budget
        self.timeout = settings.reference_timeout
        self._discovery = settings.reference_discovery
        self.process = ReferenceProcess(self._budget, self.timeout)
        self._shadows: weakref.WeakSet[Shadow] = weakref.WeakSet()
        self._warned: set[str] = set()
        self._most_waiting = settings.reference_queue
        self._waiting = 0
        self._lock = threading.RLock()

    def shadow(self, assessment: Assessment, model: Model) -> Shadow | None:
        """Return the shadow of ``model``; None if it has no reference, or one that cannot be used."""
        reference = reference_of(model, discover=self._discovery, warn=self.warn)
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
            assessment.count("failed")
            return None
        shadow = Shadow(assessment, model, reference, self)
        assessment.compare_with(shadow, "shadow")
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

    def evaluate(self, task: Task) -> Evaluation:
        """Evaluate ``task``, and see to it that the process ends when nobody needs it any more."""
        try:
            return self.process.evaluate(task)
        finally:
            if not self._looking:
                self._looking = True
                reference_worker.submit(self._look, _LOOK_AFTER)

    def _look(self) -> None:
        # A callback at the end of a session, of providers or of the instrumentation would cost those something.
        if self.needed():
            reference_worker.submit(self._look, _LOOK_AFTER)
        else:
            self._looking = False
            self.process.close()

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
        self._lock = threading.RLock()
        self._waiting = 0
        self._looking = False
        self.process.abandon()
        for shadow in list(self._shadows):
            shadow.forget()

    def _close_if_unused(self) -> None:
        if not self._shadows:
            self.process.close()


class Shadow:
    """Compares sampled calls of one model with its reference.

    Args:
        assessment: Assessment of the model, which is asked for samples and given the results.
        model: Model whose calls are sampled.
        reference: Path of the float model.
        references: Process and budget of all models.
    """

    def __init__(self, assessment: Assessment, model: Model, reference: str, references: References) -> None:
        self._assessment = assessment
        self._references = references
        self._name = model.name
        self._reference = reference
        self._quantized = model.path
        self._content = model.content
        self._mapping = model.settings.reference_mapping
        self._errors = 0
        self._to_locate: deque[Callable[[Entry], object]] = deque()

    def locate(self, done: Callable[[Entry], object]) -> bool:
        """Find out at which layer the error of the next sampled call enters; False if its file has gone."""
        if self._quantized is None or identity_of(self._quantized) != self._content.identity:
            return False
        self._to_locate.append(done)
        self._assessment.demand()
        return True

    def forget(self) -> None:
        """In a child after fork: look for no layer that the parent looks for."""
        self._to_locate.clear()

    def submit(self, sample: Sample) -> None:
        """Compare ``sample`` in the background."""
        if self._references.enter():
            reference_worker.submit(lambda: self._compare_and_go_on(sample))
        else:
            self._assessment.release(sample)
            self._assessment.missed("dropped_queue")

    def _locate(self, task: Task) -> None:
        done = self._to_locate.popleft()
        entry = self._references.process.locate(
            EntryTask(
                reference=task.reference,
                quantized=task.quantized or "",
                mapping=task.mapping,
                inputs=task.inputs,
                outputs=task.outputs,
                facts=task.facts,
            )
        )
        if entry.error is not None:
            _logger.info(
                "model %r: the layer where its error enters is not known: %s", self._name, entry.error
            )
        done(entry)

    def _compare_and_go_on(self, sample: Sample) -> None:
        try:
            self._compare(sample)
        except BaseException:
            # Whatever it was: the worker tells it, and another sample is asked for.
            self._assessment.demand(_AFTER_ERROR)
            raise

    def _compare(self, sample: Sample) -> None:
        if not self._references.needed():
            # It would start the process again, for nobody.
            self._assessment.release(sample)
            self._references.leave()
            self._assessment.count("dropped_shutdown")
            return
        began = monotonic()
        task = Task(
            model=self._name,
            reference=self._reference,
            quantized=self._quantized,
            mapping=self._mapping,
            inputs=sample.inputs,
            outputs=sample.outputs,
            facts=self._assessment.facts,
            median_norms=self._assessment.median_norms,
            seconds=self._references.timeout,
        )
        try:
            evaluation = self._references.evaluate(task)
            if self._to_locate and evaluation.error is None:
                self._locate(task)
        finally:
            self._assessment.release(sample)
            self._references.leave()
        # As often as the cost allows, the copies on the caller's thread included.
        pause = (evaluation.cpu_seconds + sample.copying * 1e-9) / self._references.share - (
            monotonic() - began
        )
        if evaluation.error is None:
            self._errors = 0
            self._assessment.compared(evaluation.comparisons, "shadow", sample)
            self._assessment.timed(evaluation.reference_seconds, evaluation.quantized_seconds)
            for one in evaluation.comparisons:
                if one.reason in _MISFITS:
                    self._references.warn(
                        f"model {self._name!r}: output {one.output!r} cannot be compared with its reference "
                        f"{self._reference!r}: {one.detail}"
                    )
        else:
            self._errors += 1
            self._assessment.count("failed")
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
        if self._assessment.signals.in_burst():
            pause = 0.0
        self._assessment.demand(max(0.001, pause))
