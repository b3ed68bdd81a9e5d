"""A golden baseline, replayed on a timer against the model that is running."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from otel_quantmon.fidelity.assessment import Assessment
from otel_quantmon.fidelity.windows import SAME_RELATIVE_ERROR
from otel_quantmon.models.identity import Model
from otel_quantmon.process.host import cpu_isa
from otel_quantmon.process.native import native_calls
from otel_quantmon.process.worker import worker
from otel_quantmon.settings import Settings
from otel_quantmon.telemetry.context import suppress_instrumentation

if TYPE_CHECKING:
    from otel_quantmon.fidelity.baseline import Baseline  # needs numpy, which an application may not have

__all__ = ["Golden", "Replayable"]

_logger = logging.getLogger("otel_quantmon")

# Seconds until a model is looked at again that cannot be replayed yet, at most: no SDK, or no call since a fork.
_NOT_YET = 10.0

# Share of one core that a replay may take which is waited for.
_IN_HASTE = 0.5

# Times the usual distance from the recorded outputs that are no longer rounding.
_MORE = 2.0

# What is said of outputs that have broken; the rest is an anomaly.
_SAID_OF_BROKEN = {
    "nonzero": "gives other numbers where zeros were recorded",
    "no_sample": "can no longer be compared: another shape or type",
}


@dataclass(slots=True)
class _Replay:
    """One that is under way; its baseline and second instance are let go with it."""

    baseline: Baseline
    run: Callable[[Mapping[str, Any]], dict[str, Any]]
    norms: dict[str, float]
    began: float
    same_host: bool
    number: int = 0
    largest_difference: float = 0.0
    # Cases of each output that have broken: how, and how many.
    broken: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])


class Replayable(Protocol):
    """A loaded model that a baseline can be replayed on."""

    @property
    def model(self) -> Model:
        """What is loaded."""
        ...

    def replayer(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Return what runs the model on inputs by name and gives its outputs by name.

        Raises:
            EngineError: The model cannot be run again.
        """
        ...


class Golden:
    """Replays the baseline of the loaded models that share a series, one of them at a time.

    Everything but `add` happens on the worker, one case a job, so that nothing else waits for a whole replay.

    Args:
        path: File of the baseline. It is read at each replay, and not kept between two.
        assessment: Assessment of the models.
        settings: Settings of the process.
        idle: Tells whether there is nowhere to report to.
        calls: Tells how many calls the series has counted, None once it has gone.
        adopt_latency: Takes the mean duration of the baseline, in seconds, and what its calls move: batch size, bytes
            of inputs, bytes of outputs.
    """

    def __init__(
        self,
        path: str,
        assessment: Assessment,
        settings: Settings,
        *,
        idle: Callable[[], bool],
        calls: Callable[[], int | None],
        adopt_latency: Callable[[float, tuple[int | None, int, int]], None],
    ) -> None:
        self._path = Path(path)
        self._assessment = weakref.ref(assessment)
        self._model_name = assessment.model_name
        self._settings = settings
        self._idle = idle
        self._calls = calls
        self._adopt_latency = adopt_latency
        self._probes: list[weakref.ref[Replayable]] = []
        self._lock = threading.RLock()
        self._replay: _Replay | None = None
        self._after_calls = -1
        # One chain of jobs at a time: a job of another turn ends.
        self._turn = 0
        self._asked: list[Callable[[bool | None], object]] = []
        # Largest distance from the recorded outputs, in the replays of this process that nobody has asked for.
        self._usual_difference: float | None = None
        self._begun_streams = False
        self._said: dict[str, object] = {}
        # Outputs that were NaN or infinite in the last replay, where that was not recorded.
        self._nonfinite: set[str] = set()

    def add(self, probe: Replayable) -> None:
        """Replay on this one too; the first starts the timer."""
        with self._lock:
            first = not self._probes
            self._probes = [*self._alive(probe), weakref.ref(probe)]
        if first:
            self._again(self._begin)

    def replay_now(self, done: Callable[[bool | None], object]) -> None:
        """Replay at once, and not at the pace of the budget.

        Args:
            done: Is told, on the worker, whether the recorded inputs give what they gave: as recorded, or as in earlier
                replays of this process; None if that cannot be told.
        """
        self._asked.append(done)
        self._turn += 1
        # One that is under way may have begun when all was well.
        self._replay = None
        self._again(self._begin)

    def after_fork(self) -> None:
        """In a child: the timer ran on a thread of the parent. It starts anew for a model that is used here."""
        self._lock = threading.RLock()
        self._replay = None
        self._asked = []
        self._nonfinite = set()
        self._turn += 1
        # Those of the parent, until one is made here.
        self._after_calls = self._calls() or 0
        self._again(self._begin, _NOT_YET)

    def _again(self, step: Callable[[], None], delay: float = 0.0) -> None:
        # Not to keep alive a model that has gone meanwhile.
        method, turn = weakref.WeakMethod(step), self._turn
        golden = weakref.ref(self)

        def job() -> None:
            found, owner = method(), golden()
            if found is None or owner is None or owner._turn != turn:
                return
            try:
                found()
            except BaseException:
                # Whatever it was: the worker tells it, and the next replay is made.
                owner._turn += 1
                owner._answer(None)
                owner._rest(monotonic())
                raise

        worker.submit(job, delay)

    def _begin(self) -> None:
        interval = self._settings.baseline_interval
        calls, assessment, probe = self._calls(), self._assessment(), self._next_probe()
        if calls is None or assessment is None:
            return
        if probe is None or self._idle() or calls <= self._after_calls:
            self._again(self._begin, min(interval, _NOT_YET))
            return
        from otel_quantmon.fidelity.baseline import BaselineError, read_baseline
        from otel_quantmon.fidelity.baseline.replay import check_inputs, median_norms, thresholds_of
        from otel_quantmon.fidelity.engines import EngineError

        began = monotonic()
        try:
            baseline = read_baseline(self._path)
            loaded = probe.model.loaded
            check_inputs(baseline, [t.name for t in loaded.inputs], [t.name for t in loaded.outputs])
            with native_calls.allowed() as allowed, suppress_instrumentation():
                if not allowed:
                    return
                run = probe.replayer()
        except (BaselineError, EngineError, OSError) as error:
            self._failed(str(error), began)
            return
        digest = probe.model.read_digest()
        if digest == baseline.digest and not self._begun_streams:
            self._begun_streams = True
            from otel_quantmon.fidelity.baseline.streams import states_of

            facts = {tensor.name: tensor for tensor in assessment.facts}
            assessment.signals.streams.begin(states_of(baseline, facts), "recorded")
        if digest is not None and digest != baseline.digest:
            self._say(
                "digest",
                (digest, baseline.digest),
                f"its baseline {str(self._path)!r} was recorded of another file ({baseline.digest}, this is {digest}); "
                "it is compared all the same: record a new one if the model was meant to change",
            )
        norms = median_norms(baseline)
        assessment.adopt(thresholds_of(baseline), norms)
        if probe.model.settings.baseline_duration is None and baseline.latency is not None:
            moved = {_moved(case.inputs, loaded.batch_input) for case in baseline.cases}
            # The mean over cases of several shapes is that of no call.
            if len(moved) == 1:
                self._adopt_latency(baseline.latency.mean, moved.pop())
        then = baseline.environment
        same_host = (then.runtime_version, "+".join(then.cpu_features)) == (loaded.runtime_version, cpu_isa())
        assessment.signals.begin_replay()
        self._replay = _Replay(baseline, run, norms, began, same_host)
        self._step()

    def _step(self) -> None:
        replay, assessment = self._replay, self._assessment()
        if replay is None or assessment is None:
            return
        from otel_quantmon.fidelity.baseline.replay import check_case
        from otel_quantmon.fidelity.engines import ModelGoneError

        case = replay.baseline.cases[replay.number]
        began = perf_counter()
        try:
            with native_calls.allowed() as allowed, suppress_instrumentation():
                if not allowed:
                    return
                outputs = replay.run(case.inputs)
        except ModelGoneError:
            self._rest(replay.began)
            return
        except Exception as error:  # noqa: BLE001  a runtime raises what it likes, and this is no failure of ours
            self._failed(f"its baseline {str(self._path)!r} cannot be replayed: {error}", replay.began)
            return
        result = check_case(case, outputs, {t.name: t for t in assessment.facts}, replay.norms)
        assessment.compared(result.comparisons, "golden")
        assessment.replayed(case.inputs, outputs)
        for one in result.differences:
            if one.reason is None and one.measures is not None:
                replay.largest_difference = max(replay.largest_difference, one.measures.relative_error)
        replay.broken.update((how, name) for name, how in result.broken.items())
        replay.number += 1
        if replay.number == len(replay.baseline.cases):
            self._finish(replay)
        else:
            # As often as the budget allows; half of the time where somebody waits for it.
            budget = max(self._settings.reference_budget, _IN_HASTE if self._asked else 0.0)
            self._again(self._step, (perf_counter() - began) * (1 / budget - 1))

    def _finish(self, replay: _Replay) -> None:
        self._said.pop("failure", None)
        assessment = self._assessment()
        worse = assessment.signals.replayed() if assessment is not None else False
        if assessment is not None:
            self._report_nonfinite(replay, assessment)
        # An output without a number is worse than all recorded ones, and has no distance.
        worse = worse or bool(replay.broken)
        then = replay.baseline.environment
        usual = self._usual_difference
        as_recorded: bool | None = not worse
        if not worse and replay.largest_difference > max(SAME_RELATIVE_ERROR, _MORE * (usual or 0.0)):
            # Another host than that of the recording may always have given that.
            as_recorded = False if usual is not None or replay.same_host else None
        self._answer(as_recorded)
        if usual is None and not worse:
            self._usual_difference = replay.largest_difference
        if replay.largest_difference > SAME_RELATIVE_ERROR:
            self._say(
                "difference",
                replay.baseline.digest,
                f"it computes differently here from where its baseline was recorded, by up to "
                f"{replay.largest_difference:.3g} of an output's norm (there: {then.runtime} {then.runtime_version}, "
                f"{', '.join(then.providers)}, {'+'.join(then.cpu_features)})",
            )
        self._rest(replay.began)

    def _report_nonfinite(self, replay: _Replay, assessment: Assessment) -> None:
        found = {name: cases for (how, name), cases in replay.broken.items() if how == "nonfinite"}
        # Also that it is over.
        for name in sorted(self._nonfinite | set(found)):
            assessment.signals.streams.fact("nonfinite", f"golden {name}", found.get(name, 0), perf_counter())
        self._nonfinite = set(found)
        for how, what in _SAID_OF_BROKEN.items():
            names = ", ".join(sorted(repr(name) for one, name in replay.broken if one == how))
            if names:
                self._say(how, names, f"on its recorded inputs {names} {what}")

    def _answer(self, as_recorded: bool | None) -> None:
        asked, self._asked = self._asked, []
        for done in asked:
            done(as_recorded)

    def _failed(self, message: str, began: float) -> None:
        self._answer(None)
        assessment = self._assessment()
        if assessment is not None:
            assessment.count("failed", "golden")
        self._say("failure", message, f"{message}; monitoring goes on without it")
        self._rest(began)

    def _rest(self, began: float) -> None:
        self._replay = None
        left = self._settings.baseline_interval - (monotonic() - began)
        self._again(self._begin, max(0.001, left))

    def _say(self, kind: str, key: object, message: str) -> None:
        """Warn, unless this was the last thing said of its kind."""
        if self._said.get(kind) != key:
            self._said[kind] = key
            _logger.warning("model %r: %s", self._model_name, message)

    def _next_probe(self) -> Replayable | None:
        """Each one that is alive in its turn."""
        with self._lock:
            alive = self._alive()
            self._probes = alive[1:] + alive[:1]
            return self._probes[-1]() if self._probes else None

    def _alive(self, but: Replayable | None = None) -> list[weakref.ref[Replayable]]:
        return [known for known in self._probes if known() not in (None, but)]


def _moved(inputs: Mapping[str, Any], batch_input: str | None) -> tuple[int | None, int, int]:
    """Return what a call with these inputs moves, as far as its class of shapes goes."""
    batch = inputs[batch_input].shape[0] if batch_input is not None else None
    return batch, sum(array.nbytes for array in inputs.values()), 0
