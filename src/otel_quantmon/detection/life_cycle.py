"""From judgements to what is reported: an anomaly is entered, stays, and is left; seldom, and once for many models.

The detector finds the change and, turned round, the way back. Between the two lies hysteresis: the level of an alarm
to enter, evidence of a return to leave. A stream that flaps has to stay well for twice as long each time, so that
in a day it reports some ten times at most, whatever it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from otel_quantmon.detection.detector import Detector, Judgement

__all__ = ["Bulletin", "LifeCycle", "News", "ObservedCall", "Transition"]

Observation = TypeVar("Observation")


@dataclass(frozen=True, slots=True)
class ObservedCall:
    """A call that an observation was made of.

    Attributes:
        end, duration: Its end, by the clock of the caller, and its duration; nanoseconds.
        context: Context that was given with it, such as its span; None without.
    """

    end: int
    duration: int
    context: object = None


@dataclass(frozen=True, slots=True)
class Transition:
    """A stream has become anomalous, or well again.

    Attributes:
        what: ``entered`` or ``left``.
        kind: Type of anomaly.
        model: Name of the model; empty for the process.
        of: Part of the model that the stream is of, such as an output's name; may be empty.
        judgement: Judgement with evidence, value, baseline and observations since the change.
        at: Seconds, by the caller's clock.
        index: Index in the batch of the observation that decided.
        lasted: Seconds in the anomaly, when it is left.
        baseline: Source of the baseline: ``learnt``, ``kept``, or ``none`` for a fact.
        since: Time of the estimated change, in seconds.
        call: Call that decided; None where that is not known.
    """

    what: Literal["entered", "left"]
    kind: str
    model: str
    of: str
    judgement: Judgement
    at: float
    index: int = 0
    lasted: float = 0.0
    baseline: str = "none"
    since: float = 0.0
    call: ObservedCall | None = None


class LifeCycle(Generic[Observation]):
    """The state of one stream. Not thread-safe.

    Args:
        detector: Detector of the stream; it belongs to the life cycle from now on.
        kind, model, of: See `Transition`.
        least: Least change worth reporting, as a share of the baseline. A smaller one is found but not reported, and
            looked for anew. Facts are always reported.
        hold: Seconds that an anomaly lasts at least, so that a gauge which is read once a minute shows it.
        forgiven: Seconds after an anomaly, after which the next one no longer counts as flapping.
    """

    _MOST_DOUBLINGS = 10

    __slots__ = (
        "_detector",
        "_entered",
        "_flaps",
        "_forgiven",
        "_hold",
        "_least",
        "_left",
        "active",
        "kind",
        "model",
        "of",
        "untold",
    )

    def __init__(
        self,
        detector: Detector[Observation],
        *,
        kind: str,
        model: str = "",
        of: str = "",
        least: float = 0.0,
        hold: float = 60.0,
        forgiven: float = 3600.0,
    ) -> None:
        self._detector = detector
        self.kind = kind
        self.model = model
        self.of = of
        self._least = least
        self._hold = hold
        self._forgiven = forgiven
        self._flaps = 0
        self._entered = 0.0
        self._left: float | None = None
        self.active: Judgement | None = None
        """The judgement with which the present anomaly was entered; None while the stream is well."""
        self.untold = 0
        """Changes found that were smaller than the least worth reporting."""

    @property
    def _held_until(self) -> float:
        return self._entered + self._hold * 2.0**self._flaps

    @property
    def suspicion(self) -> float:
        """Of the detector."""
        return self._detector.suspicion

    def update(self, value: Observation, now: float) -> Transition | None:
        """Take one observation."""
        changes = self.update_many((value,), now)
        return changes[0] if changes else None

    def update_many(self, values: Sequence[Observation], now: float) -> list[Transition]:
        """Take observations of the time up to ``now``, in seconds of a clock that never goes back."""
        changes: list[Transition] = []
        if self._held(now):
            return changes
        at = 0
        while at < len(values):
            at, judgement = self._detector.update_many(values, at)
            if judgement is not None:
                transition = self._decide(judgement, now, at - 1)
                if transition is not None:
                    changes.append(transition)
        return changes

    def pass_over(self, trials: int, now: float) -> Transition | None:
        """Take so many trials without an event, of a detector of a rate; it costs no more than one."""
        if trials <= 0 or self._held(now):
            return None
        detector: Any = self._detector
        judgement: Judgement | None = detector.pass_over(trials)
        return None if judgement is None else self._decide(judgement, now, trials - 1)

    def _held(self, now: float) -> bool:
        """Return True while it cannot be left: to find again and again that it is back costs more than all else.

        No observation counts then, of whatever value, since a part of them would say that it is back.
        """
        return self.active is not None and self.active.evidence is not None and now < self._held_until

    def _decide(self, judgement: Judgement, now: float, index: int) -> Transition | None:
        if not judgement.returned:
            if judgement.evidence is not None and abs(judgement.change) < self._least:
                self.untold += 1
                self._detector.reset()
                return None
            self._detector.reverse()
            self.active = judgement
            if self._left is not None:
                again = now - self._left <= self._forgiven
                self._flaps = min(self._flaps + 1, self._MOST_DOUBLINGS) if again else 0
            self._entered = now
            return Transition("entered", self.kind, self.model, self.of, judgement, now, index)
        # It is back; where it has been so lately already, it must be found to be back again, later.
        if now < self._held_until:
            self._detector.reverse()
            return None
        lasted = now - self._entered
        self.active = None
        self._left = now
        self._detector.reset()
        return Transition("left", self.kind, self.model, self.of, judgement, now, index, lasted)


@dataclass(frozen=True, slots=True)
class News:
    """One event: what has happened to how many models at about the same time.

    Attributes:
        what, kind: See `Transition`.
        models: Names of all that are concerned, in the order in which they were, each once.
        first: The transition with the most evidence; a fact has more than any other.
        count: Number of transitions.
    """

    what: Literal["entered", "left"]
    kind: str
    models: tuple[str, ...]
    first: Transition
    count: int


class Bulletin:
    """Gathers the transitions of a process, and reports them together and not too often.

    A fault in the host reaches all of its models within seconds. So a transition waits for ``patience``, and those
    of the same kind that come meanwhile go into one event. More than ``burst`` events at once, or ``per_hour`` in
    the long run, are held back, and merged into the next that may be reported; nothing is lost.

    Args:
        patience: Seconds.
        burst: Events that may be reported without a pause.
        per_hour: Events, thereafter.
    """

    __slots__ = ("_burst", "_filled", "_patience", "_per_second", "_tokens", "_waiting")

    def __init__(self, *, patience: float = 5.0, burst: int = 20, per_hour: float = 60.0) -> None:
        self._patience = patience
        self._burst = burst
        self._per_second = per_hour / 3600.0
        self._tokens = float(burst)
        self._filled: float | None = None
        self._waiting: dict[tuple[str, str], list[Transition]] = {}

    def add(self, transition: Transition) -> None:
        """Take a transition."""
        self._waiting.setdefault((transition.what, transition.kind), []).append(transition)

    def due(
        self,
        now: float,
        *,
        at_once: bool = False,
        held: Callable[[Transition], bool] = lambda _: False,
    ) -> list[News]:
        """Return what is to be reported at ``now``, oldest first.

        Args:
            now: Seconds.
            at_once: True if nothing is to wait for others of its kind, as when the process ends.
            held: Tells of a transition whether there is more to be known of it soon; those of its kind wait with it.
        """
        if self._filled is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._per_second)
        self._filled = now
        due: list[News] = []
        for key in sorted(self._waiting, key=lambda key: self._waiting[key][0].at):
            transitions = self._waiting[key]
            if any(map(held, transitions)):
                continue
            if not at_once and (now - transitions[0].at < self._patience or self._tokens < 1.0):
                continue
            self._tokens -= 1.0
            del self._waiting[key]
            first = max(transitions, key=_evidence)
            models = tuple(dict.fromkeys(transition.model for transition in transitions))
            due.append(News(first.what, first.kind, models, first, len(transitions)))
        return due


def _evidence(transition: Transition) -> float:
    evidence = transition.judgement.evidence
    return float("inf") if evidence is None else evidence
