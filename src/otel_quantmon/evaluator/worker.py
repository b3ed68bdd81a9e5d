"""One worker: claims samples, evaluates them, counts each once, and settles it."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from otel_quantmon import semconv
from otel_quantmon.evaluator.ledger import Entry, Ledger
from otel_quantmon.evaluator.references import FloatModels, Run, UnknownModelError
from otel_quantmon.evaluator.reporting import Reporting
from otel_quantmon.evaluator.source import Claimed, EvaluatorError, Source
from otel_quantmon.fidelity.assessment import outcome_of
from otel_quantmon.fidelity.numerics.comparison import Comparison
from otel_quantmon.fidelity.remote.record import SampleError, SampleRecord, decode, encodable
from otel_quantmon.guard import guarded
from otel_quantmon.settings import ModelSettings

__all__ = ["AT_ONCE", "EvaluatorWorker"]

_logger = logging.getLogger("otel_quantmon")

AT_ONCE = 32
"""Samples that are claimed, evaluated and committed at once: a commit takes about a millisecond."""

# Seconds to wait for samples before it is looked whether to stop.
_WAIT = 1.0

# Bytes of float models' outputs that wait to be compared.
_MOST_HELD = 64 * 1024**2

# Workers that may die or hang over a sample before it is taken to be its fault.
_MOST_ATTEMPTS = 3


@dataclass(slots=True)
class _Result:
    """What became of one claimed sample; without an outcome nothing yet."""

    claimed: Claimed
    id: str
    record: SampleRecord | None = None
    settings: ModelSettings | None = None
    outcome: semconv.ReferenceOutcome | None = None
    comparisons: tuple[Comparison, ...] = ()
    reason: str = ""
    attempts: int = 0


class EvaluatorWorker:
    """Evaluates what ``source`` gives.

    Args:
        source: Source of samples.
        models: The float models.
        ledger: Ledger of what was counted. Its totals of this worker's earlier lives are reported again at once, so
            that cumulative counters go on where they were, also with what was counted and not exported any more.
        reporting: Takes the results.
    """

    def __init__(self, source: Source, models: FloatModels, ledger: Ledger, reporting: Reporting) -> None:
        self._source = source
        self._models = models
        self._ledger = ledger
        self._reporting = reporting
        self._stop = threading.Event()
        for model, outcome, count in ledger.totals():
            reporting.count(model, outcome, count)  # type: ignore[arg-type]  # it was one when it was written

    def stop(self) -> None:
        """Have `run` return soon; what is claimed and not evaluated is released. For a signal's handler too."""
        self._stop.set()

    def run(self, *, until_empty: bool) -> None:
        """Evaluate until `stop`, or until there is nothing more.

        Raises:
            EvaluatorError: The source cannot be read, or a float model not be loaded.
        """
        while not self._stop.is_set():
            claimed = self._source.claim(AT_ONCE, 0.0 if until_empty else _WAIT)
            if claimed:
                self._take(claimed)
            elif until_empty:
                unreached = self._source.unreached
                if unreached is not None:
                    raise EvaluatorError(f"nobody knows whether samples wait: {unreached}")
                break
            self._reporting.judge()
        self._reporting.judge(at_once=True)

    def _take(self, claimed: Sequence[Claimed]) -> None:
        results = [self._read(one) for one in claimed]
        try:
            done = self._ledger.counted([one.id for one in results])
            wanted = [one for one in results if one.outcome is None and one.id not in done]
            self._suspect(wanted)
            self._evaluate([one for one in wanted if one.outcome is None])
        finally:
            # Also where a float model cannot be loaded: the others are not to wait for a lease to end.
            self._note(results)
            entries = [
                Entry(
                    one.id,
                    self._key(one),
                    one.outcome,
                    # Names out of the sample may be in it, and it goes to a database and to a file.
                    encodable(one.reason) if one.outcome == "rejected" else None,
                )
                for one in results
                if one.outcome is not None
            ]
            fresh = self._ledger.add(entries)
            for one in results:
                if one.id in fresh and one.outcome is not None:
                    fresh.discard(one.id)
                    # It is counted: an exporter or an instrument that raises is not to stop the worker.
                    with guarded:
                        self._report(one)
            self._settle(results)

    def _read(self, claimed: Claimed) -> _Result:
        # Of what cannot be read the bytes are the identity: they are the same when it is delivered again.
        result = _Result(claimed, hashlib.sha256(claimed.data).hexdigest()[:32])
        try:
            result.record = decode(claimed.data)
            result.id = result.record.id
            result.settings = self._models.of(result.record)
        except (SampleError, UnknownModelError) as error:
            result.outcome, result.reason = "rejected", str(error)
        except Exception as error:  # noqa: BLE001  see `_blame`
            _blame(result, error)
        return result

    def _suspect(self, results: Sequence[_Result]) -> None:
        """Reject what has ended enough workers."""
        attempts = self._ledger.attempts()
        for one in results:
            one.attempts = attempts[one.id]
            if one.attempts >= _MOST_ATTEMPTS:
                one.outcome = "rejected"
                one.reason = f"{one.attempts} workers began with it and did not come to an end"

    def _evaluate(self, results: Sequence[_Result]) -> None:
        # The same sample twice in one batch is evaluated once. Suspects come last and each alone, so that what ends a
        # worker over and over again does not take others with it.
        waiting: dict[str, _Result] = {one.id: one for one in sorted(results, key=_attempts)}
        # All are compared after the last run: a run has the processor's caches full of its model, and the first
        # comparison after it takes five times as long as the next.
        held: list[tuple[_Result, Run]] = []
        try:
            while waiting and not self._stop.is_set():
                first = next(iter(waiting.values()))
                settings = first.settings
                if settings is None or first.record is None:
                    raise AssertionError("only what could be read is evaluated")
                alike = [one for one in waiting.values() if one.settings is settings and not one.attempts]
                batch = alike[: settings.reference_batch] or [first]
                # Before anything is at hand: no sample is to blame for what it takes, which may be longer than a run.
                self._models.load(settings)
                self._source.renew()
                self._ledger.begin([one.id for one in batch])
                for one in batch:
                    del waiting[one.id]
                held += self._run(settings, batch)
                if sum(run.size for _, run in held) > _MOST_HELD:
                    self._compare(held)
                self._source.renew()
        finally:
            self._compare(held)

    def _run(self, settings: ModelSettings, batch: Sequence[_Result]) -> list[tuple[_Result, Run]]:
        try:
            runs = self._models.run(settings, [one.record for one in batch if one.record is not None])
        except Exception as error:  # noqa: BLE001  see `_blame`
            if len(batch) > 1:
                # One of them is at fault: alone, each gets its own error.
                return [found for one in batch for found in self._run(settings, [one])]
            _blame(batch[0], error)
            return []
        return list(zip(batch, runs, strict=True))

    def _compare(self, held: list[tuple[_Result, Run]]) -> None:
        for one, run in held:
            try:
                evaluation = self._models.compared(run)
            except Exception as error:  # noqa: BLE001  see `_blame`
                _blame(one, error)
                continue
            if evaluation.error is None:
                one.outcome = outcome_of(evaluation.comparisons)
                one.comparisons = tuple(evaluation.comparisons)
            else:
                one.outcome, one.reason = "rejected", evaluation.error
        held.clear()

    def _note(self, results: Sequence[_Result]) -> None:
        """Write down for the fleet what has been evaluated."""
        fleet = self._reporting.fleet
        if fleet is None:
            return
        for one in results:
            if one.record is not None and one.comparisons:
                try:
                    fleet.note(self._key(one), one.record, one.comparisons)
                except Exception as error:  # noqa: BLE001  see `_blame`
                    _blame(one, error)
        fleet.commit()

    def _report(self, result: _Result) -> None:
        if result.record is not None and result.outcome != "rejected":
            self._reporting.evaluated(result.record, list(result.comparisons))
            return
        self._reporting.count(self._key(result), "rejected")
        _logger.warning("sample %s is rejected: %s", result.claimed.name, result.reason)

    def _key(self, result: _Result) -> tuple[str, ...]:
        return () if result.record is None else self._reporting.key_of(result.record)

    def _settle(self, results: Sequence[_Result]) -> None:
        # By what is written, by whomever: this worker may have been the second to evaluate a sample.
        counted = self._ledger.counted([one.id for one in results])
        for one in results:
            if one.id not in counted:
                self._source.settle(one.claimed, "release")
                continue
            reason = counted[one.id]
            if reason is None:
                self._source.settle(one.claimed, "accept")
            else:
                self._source.settle(one.claimed, "reject", reason)


def _blame(result: _Result, error: Exception) -> None:
    """Reject a sample by which our own code, or a runtime's, has failed as nobody had thought of.

    It would do so in each worker that gets it, and none would ever come to what is behind it.
    """
    result.outcome, result.comparisons = "rejected", ()
    result.reason = f"its evaluation failed: {type(error).__name__}: {error}"
    _logger.debug("the evaluation of a sample failed", exc_info=error)


def _attempts(result: _Result) -> int:
    return result.attempts
