"""One stream: its baseline is learnt first, or was kept, and from then on it is watched."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias
from zlib import crc32

from otel_quantmon.detection.baseline import Baseline, Collector
from otel_quantmon.detection.bernoulli import FactDetector
from otel_quantmon.detection.detector import Detector, Judgement
from otel_quantmon.detection.distribution import SketchCollector
from otel_quantmon.detection.leak import CALLS_OF_INCREMENT
from otel_quantmon.detection.life_cycle import LifeCycle, Transition
from otel_quantmon.detection.registry import KINDS

__all__ = ["LENGTHS", "BaselineSource", "Stream"]

State: TypeAlias = Mapping[str, Any]

BaselineSource = Literal["learnt", "kept", "recorded", "none"]

LENGTHS: Final[Mapping[str, int]] = {
    "latency_drift": 3000,
    # The rate goes on being learnt while nothing is suspicious.
    "stall": 3000,
    "error_rate": 1000,
    "timeout": 100,
    "relative_error": 100,
    "disagreement": 100,
    "cosine": 100,
    "output_distribution": 200,
    "input_distribution": 200,
    "clipping": 100,
    # NaN where there was none is a fact; this only says that there was none.
    "nonfinite": 20,
    "speedup": 100,
    "memory_growth": 64,
}
"""Observations of a baseline, by type of anomaly: of what is seen at each call many, of what is sampled few."""

# Evidence that may be lost: chance has as much one time in so many.
_NONE_YET = 10.0

# A baseline of what is sampled begins short, so that it is watched soon, and is made anew each time there are twice as
# many observations, up to so many, while nothing is suspicious.
_LONGEST: Final[Mapping[str, int]] = {"value": 800, "sketch": 400, "growth": 800}
_CALM = 2.0

# Seconds over which a latency's baseline is spread; the host is in one mood for less.
_SPAN = 30.0


class _Trials:
    """Counts events until there are enough trials."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._events = self._trials = 0

    def add(self, trials: int, events: int) -> State | None:
        self._trials += trials
        self._events += events
        return {"events": self._events, "trials": self._trials} if self._trials >= self._size else None


class _Marks:
    """How many observations there were by which time: of late more exactly than of long ago, in half a kilobyte."""

    _MOST = 32

    __slots__ = ("_seen", "_times")

    def __init__(self) -> None:
        self._seen = array("Q")
        self._times = array("d")

    def add(self, seen: int, now: float) -> None:
        """Take note that there are ``seen`` observations by ``now``."""
        if self._times and self._times[-1] == now:
            self._seen[-1] = seen
            return
        if len(self._seen) >= self._MOST:
            del self._seen[::2], self._times[::2]
        self._seen.append(seen)
        self._times.append(now)

    def time_of(self, number: int) -> float:
        """Return the time by which observation ``number``, from 1 on, had been made; there is at least one mark."""
        return self._times[min(bisect_left(self._seen, number), len(self._times) - 1)]


class Stream:
    """One number of one model, from its first observation on. Not thread-safe.

    Args:
        kind: Type of anomaly, a key of `registry.KINDS`.
        model: Name of the model; empty for the process.
        of: Part of the model that the stream is of, such as an output's name; may be empty.
        level: A function that gives the alarm level of the stream; it is called once there is a baseline.
        least: See `LifeCycle`.
        fact: True if an observation is a fact, whatever the kind's detector is.

    Attributes:
        kind, of: As given.
        seen: Observations so far.
        share: Observations for each call of the model, as they were made before, until it is known of these; 1 where
            that is not known.
        source: Source of the baseline; ``none`` for a fact, and while there is none.
        well: True if this is a fact, and it was last seen as it should be.
    """

    __slots__ = (
        "_collector",
        "_cycle",
        "_detector",
        "_further",
        "_grow_at",
        "_learnt",
        "_least",
        "_level",
        "_marks",
        "_model",
        "_observation",
        "_settles_at",
        "kind",
        "of",
        "seen",
        "share",
        "source",
        "well",
    )

    def __init__(
        self,
        kind: str,
        model: str,
        of: str,
        *,
        level: Callable[[Stream], float],
        least: float = 0.0,
        fact: bool = False,
    ) -> None:
        self.kind = kind
        self.of = of
        self.seen = 0
        self.share = 1.0
        self.well = False
        self._settles_at: float = math.inf
        self._marks = _Marks()
        self.source: BaselineSource = "none"
        self._model = model
        self._level = level
        self._least = least
        self._observation = "fact" if fact else KINDS[kind].observation
        self._cycle: LifeCycle[Any] | None = None
        self._detector: Any = None
        self._learnt = False
        self._further: Collector | SketchCollector | None = None
        self._grow_at = 0
        length = LENGTHS.get(kind, 0)
        self._collector: Collector | SketchCollector | _Trials | None = None
        if self._observation == "fact":
            self._watch(FactDetector())
        elif self._observation == "event":
            self._collector = _Trials(length)
        elif self._observation == "sketch":
            self._collector = SketchCollector(length)
        elif kind == "latency_drift":
            self._collector = Collector(length, span=_SPAN)
        else:
            # What is sampled has no warm-up.
            self._collector = Collector(length, span=0.0)

    @property
    def watching(self) -> bool:
        """True once there is a baseline."""
        return self._cycle is not None

    @property
    def active(self) -> Judgement | None:
        """See `LifeCycle`."""
        return None if self._cycle is None else self._cycle.active

    @property
    def suspicion(self) -> float:
        """See `Detector`; 1 while the baseline is learnt."""
        return 1.0 if self._cycle is None else self._cycle.suspicion

    def begin(self, state: State, source: BaselineSource) -> None:
        """Watch from now on, against a baseline that is given.

        Raises:
            ValueError: The state is no baseline of this kind.
        """
        seed = crc32(f"{self._model} {self.kind} {self.of}".encode(errors="surrogatepass"))
        self._watch(KINDS[self.kind].make(state, self._level(self), seed))
        self.source = source
        if source != "learnt":
            # What was learnt before is not to take its place.
            self._further = None
        # How often it is seen here is known once it was seen as often as for a baseline of its own.
        self._settles_at = math.inf if source == "learnt" or self.settled else LENGTHS[self.kind]

    @property
    def settled(self) -> bool:
        """True if it was seen often enough to tell for how many of the calls that is."""
        return self.seen >= LENGTHS.get(self.kind, 0)

    def _settle(self) -> None:
        """Take the level that goes with how often the stream is seen, unless that would lose evidence."""
        if self.active is None and self.suspicion < _NONE_YET:
            self.begin(self._detector.state(), self.source)

    def _watch(self, detector: Detector[Any]) -> None:
        self._detector = detector
        self._cycle = LifeCycle(detector, kind=self.kind, model=self._model, of=self.of, least=self._least)
        self._collector = None

    def state(self) -> dict[str, Any] | None:
        """The baseline, for `begin` after the next start; None while there is none.

        Whether an anomaly is on is no part of it: what is observed meanwhile is not learnt.
        """
        if self._cycle is None or self._observation == "fact":
            return None
        found: dict[str, Any] = self._detector.state()
        return found

    def newly_learnt(self) -> bool:
        """True once, after a baseline has been learnt."""
        learnt, self._learnt = self._learnt, False
        return learnt

    def quantile(self, share: float) -> float | None:
        """Of the baseline of a stream of values; None while there is none."""
        return None if self._detector is None else self._detector.quantile(share)

    def take(self, values: Sequence[Any], at: Sequence[float], now: float) -> list[Transition]:
        """Take observations, oldest first, and when each was made; for events, see `count`.

        Args:
            values: Values as the kind's detector takes them.
            at: Seconds of each, by the clock of ``now``.
            now: Seconds.
        """
        self._marks.add(self.seen + len(values), now)
        first = 0
        collector = self._collector
        self.seen += len(values)
        if self._observation == "fact" and values:
            self.well = not values[-1]
        if self.seen >= self._settles_at:
            self._settle()
        if collector is not None and not isinstance(collector, _Trials):
            first = len(values)
            for i, (value, when) in enumerate(zip(values, at, strict=True)):
                found = collector.add(value, when)
                if found is not None:
                    first = i + 1
                    self._learn(found)
                    if self.kind != "latency_drift":
                        self._further, self._grow_at = collector, 2 * len(collector)
                    break
        if self._cycle is None or first == len(values):
            return []
        later = values[first:] if first else values
        changes = self._cycle.update_many(later, now)
        placed = [self._placed(one, one.index + first, len(values)) for one in changes]
        if self._further is not None:
            self._grow(self._further, later)
        return [transition for transition in placed if transition is not None]

    def _learn(self, found: Baseline | dict[str, Baseline]) -> None:
        state = (
            {name: one.state() for name, one in found.items()} if isinstance(found, dict) else found.state()
        )
        if state:
            self.begin(state, "learnt")
            self._learnt = True

    def _grow(self, further: Collector | SketchCollector, values: Sequence[Any]) -> None:
        """Take what was observed into the baseline as well; a longer one is in less doubt."""
        if self.active is not None:
            self._further = None
            return
        if len(further) < self._grow_at:
            further.extend(values)
        if len(further) < self._grow_at or self.suspicion > _CALM:
            return
        found = further.freeze(at_once=True)
        if found is not None:
            self._learn(found)
        self._grow_at = 2 * len(further)
        if self._grow_at > _LONGEST[self._observation]:
            self._further = None

    def count(self, trials: int, events: Sequence[int], now: float) -> list[Transition]:
        """Take trials, and which of them, from 0 on in ascending order, were events."""
        self._marks.add(self.seen + trials, now)
        self.seen += trials
        if self.seen >= self._settles_at:
            self._settle()
        if isinstance(self._collector, _Trials):
            state = self._collector.add(trials, len(events))
            if state is not None:
                self.begin(state, "learnt")
                self._learnt = True
            return []
        cycle = self._cycle
        if cycle is None:
            return []
        changes: list[Transition | None] = []
        done = 0
        for event in events:
            # Of those without an event the last one has decided, and it is the way back that they decide.
            changes.append(self._placed(cycle.pass_over(event - done, now), event - 1, trials))
            changes.append(self._placed(cycle.update(1.0, now), event, trials))
            done = event + 1
        changes.append(self._placed(cycle.pass_over(trials - done, now), trials - 1, trials))
        return [transition for transition in changes if transition is not None]

    def _placed(self, transition: Transition | None, index: int, number: int) -> Transition | None:
        """Return a transition with its place among the ``number`` observations that were just taken."""
        if transition is None:
            return None
        decided = self.seen - number + index + 1
        calls = CALLS_OF_INCREMENT if self._observation == "growth" else 1
        since = self._marks.time_of(decided - transition.judgement.observations // calls + 1)
        return replace(transition, index=index, since=since)
