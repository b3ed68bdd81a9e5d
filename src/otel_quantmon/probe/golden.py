"""A golden baseline, replayed on a timer against the model that is running."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from otel_quantmon.probe.worker import worker

if TYPE_CHECKING:
    from otel_quantmon.baseline import Baseline
    from otel_quantmon.probe.fidelity import Fidelity
    from otel_quantmon.probe.observer import Observer
    from otel_quantmon.probe.probe import Probe
    from otel_quantmon.probe.series import Series

__all__ = ["Golden"]

_logger = logging.getLogger("otel_quantmon")

# Seconds until a model is looked at again that cannot be replayed yet, at most: no SDK, or no call since a fork.
_NOT_YET = 10.0


@dataclass(slots=True)
class _Replay:
    """One that is under way; its baseline and twin are let go with it."""

    baseline: Baseline
    run: Callable[[Mapping[str, Any]], dict[str, Any]]
    norms: dict[str, float]
    began: float
    number: int = 0
    largest_difference: float = 0.0


class Golden:
    """Replays the baseline of the loaded models that share a series, one of them at a time.

    Everything but `add` happens on the worker, one case a job, so that nothing else waits for a whole replay.

    Args:
        observer: for its settings and its worker's pace.
        series, fidelity: of the models.
        path: of the baseline. It is read at each replay, and not kept between two.
    """

    def __init__(self, observer: Observer, series: Series, fidelity: Fidelity, path: str) -> None:
        self._observer = observer
        self._series = weakref.ref(series)
        self._fidelity = weakref.ref(fidelity)
        self._path = Path(path)
        self._probes: list[weakref.ref[Probe]] = []
        self._lock = threading.Lock()
        self._replay: _Replay | None = None
        self._after_calls = -1
        self._said: dict[str, object] = {}

    def add(self, probe: Probe) -> None:
        """Replay on this one too; the first starts the timer."""
        with self._lock:
            first = not self._probes
            self._probes = [known for known in self._probes if known() not in (None, probe)]
            self._probes.append(weakref.ref(probe))
        if first:
            self._again(self._begin)

    def after_fork(self, calls: int) -> None:
        """In a child: the timer ran on a thread of the parent. It starts anew for a model that is used here.

        Args:
            calls: that the series has counted so far, in the parent.
        """
        self._lock = threading.Lock()
        self._replay = None
        self._after_calls = calls
        self._again(self._begin, _NOT_YET)

    def _again(self, step: Callable[[], None], delay: float = 0.0) -> None:
        # Not to keep alive a model that has gone meanwhile.
        method = weakref.WeakMethod(step)

        def job() -> None:
            found = method()
            if found is not None:
                found()

        worker.submit(job, delay)

    def _begin(self) -> None:
        interval = self._observer.settings.baseline_interval
        series, fidelity, probe = self._series(), self._fidelity(), self._next_probe()
        if series is None or fidelity is None:
            return
        if probe is None or self._observer.idle() or series.calls <= self._after_calls:
            self._again(self._begin, min(interval, _NOT_YET))
            return
        from otel_quantmon.baseline import BaselineError, read_baseline
        from otel_quantmon.baseline.replay import check_inputs, median_norms, thresholds_of
        from otel_quantmon.engines import EngineError

        began = monotonic()
        try:
            baseline = read_baseline(self._path)
            loaded = probe.model.loaded
            check_inputs(baseline, [t.name for t in loaded.inputs], [t.name for t in loaded.outputs])
            run = _runner(probe)
        except (BaselineError, EngineError, OSError) as error:
            self._failed(str(error), began)
            return
        digest = probe.model.digest
        if digest is not None and digest != baseline.digest:
            self._say(
                "digest",
                (digest, baseline.digest),
                f"its baseline {str(self._path)!r} was recorded of another file ({baseline.digest}, this is {digest}); "
                "it is compared all the same: record a new one if the model was meant to change",
            )
        norms = median_norms(baseline)
        fidelity.adopt(thresholds_of(baseline), norms)
        if probe.model.settings.baseline_duration is None and baseline.latency is not None:
            with self._observer.recorder.lock:
                series.latency.baseline = baseline.latency.mean
        self._replay = _Replay(baseline, run, norms, began)
        self._step()

    def _step(self) -> None:
        replay, fidelity = self._replay, self._fidelity()
        if replay is None or fidelity is None:
            return
        from otel_quantmon.baseline.replay import judge_case

        case = replay.baseline.cases[replay.number]
        began = perf_counter()
        try:
            outputs = replay.run(case.inputs)
        except Exception as error:  # noqa: BLE001  a runtime raises what it likes, and this is no failure of ours
            self._failed(f"its baseline {str(self._path)!r} cannot be replayed: {error}", replay.began)
            return
        result = judge_case(case, outputs, {t.name: t for t in fidelity.facts}, replay.norms)
        fidelity.compared(result.comparisons, "golden")
        for one in result.differences:
            if one.reason is None and one.measures is not None:
                replay.largest_difference = max(replay.largest_difference, one.measures.relative_error)
        replay.number += 1
        if replay.number == len(replay.baseline.cases):
            self._finish(replay)
        else:
            # As often as the budget allows.
            budget = self._observer.settings.reference_budget
            self._again(self._step, (perf_counter() - began) * (1 / budget - 1))

    def _finish(self, replay: _Replay) -> None:
        from otel_quantmon.baseline.replay import SAME_RELATIVE_ERROR

        self._said.pop("failure", None)
        then = replay.baseline.environment
        if replay.largest_difference > SAME_RELATIVE_ERROR:
            self._say(
                "difference",
                replay.baseline.digest,
                f"it computes differently here from where its baseline was recorded, by up to "
                f"{replay.largest_difference:.3g} of an output's norm (there: {then.runtime} {then.runtime_version}, "
                f"{', '.join(then.providers)}, {'+'.join(then.cpu_features)})",
            )
        self._rest(replay.began)

    def _failed(self, message: str, began: float) -> None:
        fidelity = self._fidelity()
        if fidelity is not None:
            fidelity.count("failed", "golden")
        self._say("failure", message, f"{message}; monitoring goes on without it")
        self._rest(began)

    def _rest(self, began: float) -> None:
        self._replay = None
        left = self._observer.settings.baseline_interval - (monotonic() - began)
        self._again(self._begin, max(0.001, left))

    def _say(self, kind: str, key: object, message: str) -> None:
        """Warn, unless this was the last thing said of its kind."""
        series = self._series()
        if self._said.get(kind) != key and series is not None:
            self._said[kind] = key
            _logger.warning("model %r: %s", series.key[0], message)

    def _next_probe(self) -> Probe | None:
        """Each one that is alive in its turn."""
        with self._lock:
            self._probes = [known for known in self._probes if known() is not None]
            self._probes = self._probes[1:] + self._probes[:1]
            return self._probes[-1]() if self._probes else None


def _runner(probe: Probe) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What runs the model of ``probe``: the session itself, which takes any number of callers, or a twin.

    Raises:
        EngineError: the model cannot be run again.
    """
    from otel_quantmon.engines import EngineError, open_engine
    from otel_quantmon.formats import read_digest

    model = probe.model
    if model.loaded.runtime == "onnxruntime":
        instance = probe.instance
        names = [output.name for output in model.loaded.outputs]

        def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
            session: Any = instance()
            if session is None:
                raise EngineError("the session has gone")
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))

        return run
    # An interpreter is for one caller at a time. One that was loaded from a buffer keeps it for its own use.
    content: Any
    if model.path is not None:
        # Read once: the file that is looked at has to be the one that is loaded.
        content = Path(model.path).read_bytes()
    else:
        content = getattr(probe.instance(), "_model_content", None)
    if not isinstance(content, bytes):
        raise EngineError("what the model was loaded from is not known, so there is no twin to replay it on")
    if model.digest != read_digest(content):
        raise EngineError(
            f"{model.path!r} has changed since the model was loaded, so there is no twin to replay it on"
        )
    return open_engine(content).run
