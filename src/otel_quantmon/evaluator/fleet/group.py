"""One number of one model, over all hosts: what each says of it, and where it has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from otel_quantmon.detection.budget import Budget
from otel_quantmon.detection.detector import Judgement
from otel_quantmon.detection.placement import Place, Subject, Witness, place
from otel_quantmon.detection.pooled import Evidence, PooledBaseline, Watch
from otel_quantmon.evaluator.fleet.findings import StreamName
from otel_quantmon.evaluator.fleet.pool import Pool
from otel_quantmon.evaluator.fleet.stream import SubjectStream

__all__ = ["Group", "Move", "watch_of"]

# Seconds for which somebody who was heard may be waited for, and batches of a group that a place is waited for.
HEARD = 600.0
_PATIENCE = 256

# Batches of others that are kept as testimony, at most: what a pending change has to tell is recent.
_MOST_RECENT = 4096

# Of each number of a sketch, and of inputs and outputs: numbers of a stream divide its share.
_NUMBERS = 8

_MARGINS: Mapping[str, Mapping[str, Any]] = {
    # As in the process, see `detection.registry.KINDS` and `detection.distribution`.
    "relative_error": {"sides": "up", "margin": 0.05},
    "disagreement": {"sides": "up"},
    "clipping": {"sides": "up", "tolerance": 0.001},
    "nonfinite": {"sides": "up"},
    "input_distribution": {"sides": "both", "spread": 0.1},
    "output_distribution": {"sides": "both", "spread": 0.1},
}


def watch_of(name: StreamName, budget: Budget) -> Watch:
    """Return what counts as a change of a stream: half of its budget for single hosts, half for all together."""
    share = 2.0 * (_NUMBERS if name.number else 1)
    return Watch(budget.level(name.kind) * share, **_MARGINS[name.kind])


class Move(NamedTuple):
    """What has happened to a group.

    Attributes:
        what: ``entered`` or ``left``; where a change is found to be elsewhere it is left and entered.
        place: Where.
        judgement: Judgement that it began with, or ended.
    """

    what: str
    place: Place
    judgement: Judgement


Look = Callable[[str], SubjectStream | None]
"""Gives the stream of a host and service that has one."""


def name_of(subject: Subject) -> str:
    """Return the name under which the stream of a subject is kept, whichever version it runs."""
    return f"{subject.service}\n{subject.host}"


class Group:
    """The streams of one number. See `Judge`.

    Args:
        watch: What counts as a change.

    Attributes:
        place: Where there is a change; None without one, and while that is not known.
        everywhere_at: Time when it was last found to be everywhere, or no more, seconds since the epoch.
        said: Judgement that the change began with.
        overruled: True if the place is not reported, since another number of the same tensor knows better.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.place: Place | None = None
        self.everywhere_at = 0.0
        self.said: Judgement | None = None
        self.overruled = False
        # Of all baselines together: what is reported of the fleet is compared with it.
        self._merged = Pool()
        self._whole: PooledBaseline | None = None
        # Of those that have not moved by themselves.
        self._rest = Evidence()
        # The bets of each that has moved, and of what moved last: see `Evidence`.
        self._moved: dict[str, tuple[int, int, int]] = {}
        self._bets = (-1, -1, -1)
        self._recent: dict[str, dict[float, int]] = {}
        self._pending = -1

    def take(
        self, stream: SubjectStream, batch: Pool, time: float, seed: int, look: Look, heard: Callable[[], int]
    ) -> list[Move]:
        """Take a batch of one subject.

        Args:
            stream: Stream of the subject, whose ``subject`` is who it is now.
            batch: What it says.
            time: Time, seconds since the epoch.
            seed: Number of the batch.
            look: Gives the streams of others.
            heard: Tells how many subjects were heard within `HEARD` seconds.
        """
        name = name_of(stream.subject)
        before = stream.pool
        judgement = stream.take(batch, self.watch, seed)
        stream.last = time
        if stream.pool is not None and before is None:
            self._merged.merge(stream.pool)
            self._whole = None
        if stream.pool is None or before is None:
            return []
        if judgement is not None and judgement.returned:
            self._moved.pop(name, None)
        elif judgement is not None:
            self._bets = self._moved[name] = _bets(stream.evidence)
            self._began(judgement)
            if not self._rest.changed:
                # What it had added to the evidence of the rest is its own.
                self._rest = Evidence()
        elif (name not in self._moved or self._rest.changed) and self._take_rest(stream, batch, look):
            # What has led to it tells where it is, and is kept.
            self._pending = max(self._pending, 0)
        if judgement is not None and not (self._everywhere and not judgement.returned):
            self._recent = {}
            self._pending = 0
        if self._pending >= 0 or not (self._rest.calm or self._rest.changed):
            recent = self._recent.setdefault(name, {})
            for value, count in stream.counts(batch):
                recent[value] = recent.get(value, 0) + count
        elif self._recent:
            self._recent = {}
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        was = self._everywhere
        moves = self._settle(judgement, look, heard)
        if self._everywhere != was:
            self.everywhere_at = time
        return moves

    def _began(self, judgement: Judgement) -> None:
        if self.said is None:
            self.said = judgement

    def _take_rest(self, stream: SubjectStream, batch: Pool, look: Look) -> bool:
        baseline = stream.baseline(self.watch)
        if baseline is None:
            return False
        if self._whole is None:
            self._whole = PooledBaseline(self._merged.counts(), self.watch, baseline.inflation)
        said = self._rest.update(stream.counts(batch), baseline, self.watch, self._whole)
        if said is None:
            return False
        if not said.returned:
            parts = [(baseline, stream.counts(batch))]
            for name, recent in self._recent.items():
                other = look(name)
                found = None if other is None else other.baseline(self.watch)
                if found is not None:
                    parts.append((found, sorted(recent.items())))
            self._rest.lead, self._rest.quick = PooledBaseline.way_back(parts, self._rest.winner)
            self._bets = _bets(self._rest)
            self._began(said)
        return True

    def _settle(self, judgement: Judgement | None, look: Look, heard: Callable[[], int]) -> list[Move]:
        """Find out where the change is, once that can be told."""
        if self._pending < 0:
            return []
        if not self._moved and not self._rest.changed:
            # All are back.
            found: list[Move] = []
            said = judgement or self.said
            if self.place is not None and said is not None:
                found.append(Move("left", self.place, said))
            self.place = self.said = None
            self._pending, self._recent = -1, {}
            return found
        self._pending += 1
        patient = self._pending < _PATIENCE
        placed = self._placed(look, heard if patient else None)
        if placed is None:
            if patient:
                return []
            hosts = {name.partition("\n")[2] for name in self._moved}
            placed = self.place or Place("unknown", tuple(sorted(hosts)))
        self._pending, self._recent = -1, {}
        if placed.scope not in ("everywhere", "unknown"):
            # The rest has stayed, whatever it looked like.
            self._rest = Evidence()
        before, self.place = self.place, placed
        if self.said is None or (before is not None and before.same(placed)):
            return []
        moves = [] if before is None else [Move("left", before, self.said)]
        return [*moves, Move("entered", placed, self.said)]

    @property
    def _everywhere(self) -> bool:
        return self.place is not None and self.place.scope == "everywhere"

    def _placed(self, look: Look, heard: Callable[[], int] | None) -> Place | None:
        testimonies: dict[Subject, Witness] = {}
        for name in {**self._moved, **self._recent}:
            stream = look(name)
            if stream is None:
                continue
            winner, quick, lead = self._moved.get(name, self._bets)
            # What is everywhere is not lightly taken to be on a few hosts only.
            back = lead if self._everywhere else quick
            said = stream.testimony(self._recent.get(name, {}), self.watch, winner, back)
            if said is not None:
                testimonies[stream.subject] = said
        # Others may have nothing to say yet, who are there: one of them is asked at least, and half of all.
        if heard is not None:
            there = heard()
            alone = all(said.certain for said in testimonies.values())
            if 2 * len(testimonies) < there or (alone and len(testimonies) < there):
                return None
            # Where all had changed, and one is back, the others mostly follow: they have to show that they stay.
            if self._everywhere and not all(said.still for said in testimonies.values() if said.certain):
                return None
        return place(testimonies, patient=heard is not None)

    def state(self) -> dict[str, Any]:
        """Return all of it, but for the streams, as plain JSON values."""
        return {
            "place": None if self.place is None else self.place.to_wire(),
            "everywhere_at": self.everywhere_at,
            "overruled": self.overruled,
            "said": None if self.said is None else _said(self.said),
            "merged": self._merged.to_wire(),
            "rest": self._rest.state(),
            "moved": self._moved,
            "recent": {name: sorted(counts.items()) for name, counts in self._recent.items()},
            "bets": self._bets,
            "pending": self._pending,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], watch: Watch) -> Group:
        """Return what `state` was of."""
        made = cls(watch)
        made.place = None if state["place"] is None else Place.from_wire(state["place"])
        # Files of before have neither.
        made.everywhere_at, made.overruled = state.get("everywhere_at", 0.0), state.get("overruled", False)
        made.said = None if state["said"] is None else Judgement(**state["said"])
        made._merged = Pool.from_wire(state["merged"])
        made._rest = Evidence.from_state(state["rest"])
        made._moved = {name: tuple(bets) for name, bets in state["moved"].items()}
        made._recent = {name: dict(counts) for name, counts in state["recent"].items()}
        made._bets, made._pending = tuple(state["bets"]), state["pending"]
        return made


def _bets(evidence: Evidence) -> tuple[int, int, int]:
    return evidence.winner, evidence.quick, evidence.lead


def _said(judgement: Judgement) -> dict[str, Any]:
    return {name: getattr(judgement, name) for name in judgement.__slots__}
