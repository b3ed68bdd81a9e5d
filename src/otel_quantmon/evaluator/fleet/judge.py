"""Judges a fleet: takes what the workers have found, batch by batch, and says what has changed, and where."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from time import time
from typing import Any, NamedTuple

from otel_quantmon.detection.budget import Budget
from otel_quantmon.detection.detector import Judgement
from otel_quantmon.detection.placement import Place
from otel_quantmon.evaluator.fleet.findings import StreamName
from otel_quantmon.evaluator.fleet.golden import Disagreement, disagreements
from otel_quantmon.evaluator.fleet.group import HEARD, Group, Move, name_of, watch_of
from otel_quantmon.evaluator.fleet.state import Batch, FleetState
from otel_quantmon.evaluator.fleet.stream import SubjectStream

__all__ = ["FleetNews", "Judge", "Standing"]

# Batches that are judged in one transaction.
_AT_ONCE = 256

# Seconds for which one worker judges, unless it goes on.
_LEASE = 30.0

# Streams that are held in memory; others are read when they are needed.
_HELD = 20_000

# Seconds between two times that what is of long ago is dropped.
_FORGET_EVERY = 3600.0


class FleetNews(NamedTuple):
    """What is to be reported: a change that was entered or left, or hosts that have begun to disagree.

    Attributes:
        what: ``entered``, ``left`` or ``disagree``.
        model: Values of `semconv.MODEL_ATTRIBUTES`.
        stream: Stream of the change; None of a disagreement.
        place: Where; of a disagreement the hosts, and the instruction sets that they lack.
        judgement: Judgement of the change.
        at: Time, seconds since the epoch.
    """

    what: str
    model: tuple[str, ...]
    stream: StreamName | None
    place: Place
    judgement: Judgement | None
    at: float

    def to_wire(self) -> dict[str, Any]:
        """Return plain JSON values."""
        said = self.judgement
        return {
            "what": self.what,
            "model": self.model,
            "stream": self.stream,
            "place": self.place.to_wire(),
            "judgement": None if said is None else {name: getattr(said, name) for name in said.__slots__},
            "at": self.at,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> FleetNews:
        """Return what `to_wire` was of."""
        stream, said = wire["stream"], wire["judgement"]
        return cls(
            wire["what"],
            tuple(wire["model"]),
            None if stream is None else StreamName(*stream),
            Place.from_wire(wire["place"]),
            None if said is None else Judgement(**said),
            wire["at"],
        )


class Standing(NamedTuple):
    """How a fleet is now, for whoever reads it on another thread.

    Attributes:
        places: By model and type of anomaly: where it is on; empty where it is watched for and not on.
        disagreements: Hosts that disagree on golden inputs, by model.
        hosts: Number of hosts that were heard lately, by model.
    """

    places: Mapping[tuple[tuple[str, ...], str], tuple[Place, ...]]
    disagreements: Mapping[tuple[str, ...], tuple[Disagreement, ...]]
    hosts: Mapping[tuple[str, ...], int]


_NOTHING = Standing({}, {}, {})


class Judge:
    """The one that judges, if no other worker does. For one thread.

    Args:
        state: State of the fleet.
        worker: Name of this worker.
        per_million: False alarms in 10^6 evaluations, at most.

    Attributes:
        standing: How the fleet is; empty if this worker does not judge.
    """

    def __init__(self, state: FleetState, worker: str, per_million: float) -> None:
        self._state = state
        self._worker = worker
        self._budget = Budget(per_million)
        self._groups: dict[str, Group] = {}
        self._streams: OrderedDict[tuple[str, str], SubjectStream] = OrderedDict()
        self._touched: set[tuple[str, str]] = set()
        self._golden: dict[tuple[str, ...], tuple[Disagreement, ...]] = {}
        self._last_golden: str | None = None
        self._forget_at = 0.0
        self.standing = _NOTHING

    def run(self) -> list[tuple[int, FleetNews]]:
        """Judge what there is, if it is this worker's turn; what is to be reported, with numbers for `reported`."""
        while True:
            taken = self._run_once()
            if taken is None:
                self.standing = _NOTHING
                return []
            if taken < _AT_ONCE:
                break
        self.standing = self._stand()
        return [(number, FleetNews.from_wire(body)) for number, body in self._state.news()]

    def reported(self, number: int) -> None:
        """Take note that something has been reported."""
        self._state.reported(number)

    def _run_once(self) -> int | None:
        """Return how many batches were judged; None if another worker judges."""
        state = self._state
        try:
            with state.transaction():
                if not self._hold():
                    return None
                batches = state.batches(_AT_ONCE)
                for batch in batches:
                    self._take(batch)
                if batches:
                    self._write()
                    state.judged(batches[-1].number)
                self._compare_golden()
                now = time()
                if now >= self._forget_at:
                    self._forget_at = now + _FORGET_EVERY
                    state.forget()
        except BaseException:
            # What is in memory was not written.
            self._drop()
            raise
        return len(batches)

    def _hold(self) -> bool:
        now = time()
        holder, until = json.loads(self._state.value("lease") or '["", 0]')
        if holder != self._worker:
            if until > now:
                return False
            # What another has judged meanwhile is not in this memory.
            self._drop()
        self._state.set_value("lease", json.dumps([self._worker, now + _LEASE]))
        return True

    def _drop(self) -> None:
        self._groups, self._touched = {}, set()
        self._golden, self._last_golden = {}, None
        self._streams.clear()

    def leave(self) -> None:
        """Let another worker judge at once."""
        with self._state.transaction():
            holder, _ = json.loads(self._state.value("lease") or '["", 0]')
            if holder == self._worker:
                self._state.set_value("lease", '["", 0]')

    def _take(self, batch: Batch) -> None:
        moves: list[tuple[StreamName, Move]] = []
        for name, pool in batch.pools.items():
            key = json.dumps([batch.model, name])
            group = self._group(key, name)
            who = name_of(batch.subject)
            stream = self._look(key, who)
            if stream is None:
                stream = self._streams[key, who] = SubjectStream(batch.subject)
            stream.subject = batch.subject
            self._touched.add((key, who))
            found = group.take(
                stream,
                pool,
                batch.time,
                batch.number,
                lambda other, key=key: self._look(key, other),  # type: ignore[misc]
                lambda key=key: self._heard(key, batch.time - HEARD),  # type: ignore[misc]
            )
            moves += [(name, move) for move in found]
        # Those that are everywhere come first: they overrule others.
        for name, move in sorted(moves, key=lambda one: one[1].place.scope != "everywhere"):
            self._report(batch, name, move)

    def _report(self, batch: Batch, name: StreamName, move: Move) -> None:
        """Report a move, unless it only says that one number has found a host where another has found all of them.

        The numbers of a tensor show one change, and some of them show it sooner: one that has found it on a single host
        has not been able to tell of the others yet. A host that moves long after all have is a change of its own, and
        so is one that stays where the others are back.
        """
        group = self._group(json.dumps([batch.model, name]), name)
        others = [
            (other, self._group(json.dumps([batch.model, other]), other))
            for other in batch.pools
            if other != name and other[:2] == name[:2]
        ]
        if move.what == "left":
            overruled, group.overruled = group.overruled, False
        else:
            overruled = group.overruled = (
                move.place.scope == "host"
                and group.everywhere_at != batch.time
                and any(batch.time - other.everywhere_at < HEARD for _, other in others)
            )
        if not overruled:
            self._tell(batch, name, move)
        if move.what == "entered" and move.place.scope == "everywhere":
            for other, its in others:
                if its.place is not None and its.said is not None and its.place.scope == "host":
                    if not its.overruled:
                        self._tell(batch, other, Move("left", its.place, its.said))
                    its.overruled = True

    def _tell(self, batch: Batch, name: StreamName, move: Move) -> None:
        news = FleetNews(move.what, batch.model, name, move.place, move.judgement, batch.time)
        self._state.add_news(news.to_wire())

    def _group(self, key: str, name: StreamName) -> Group:
        group = self._groups.get(key)
        if group is None:
            state = self._state.group(key)
            watch = watch_of(name, self._budget)
            group = self._groups[key] = Group(watch) if state is None else Group.from_state(state, watch)
        return group

    def _look(self, key: str, who: str) -> SubjectStream | None:
        stream = self._streams.get((key, who))
        if stream is None:
            state = self._state.stream(key, who)
            if state is None:
                return None
            stream = self._streams[key, who] = SubjectStream.from_state(state)
        self._streams.move_to_end((key, who))
        return stream

    def _heard(self, key: str, since: float) -> int:
        fresh = {who for touched, who in self._touched if touched == key}
        return len(self._state.heard(key, since) | fresh)

    def _write(self) -> None:
        for key, who in self._touched:
            stream = self._streams[key, who]
            self._state.set_stream(key, who, stream.last, stream.state())
        for key in {key for key, _ in self._touched}:
            self._state.set_group(key, self._groups[key].state())
        self._touched = set()
        while len(self._streams) > _HELD:
            self._streams.popitem(last=False)

    def _compare_golden(self) -> None:
        last = self._state.value("golden")
        if last == self._last_golden:
            return
        self._last_golden = last
        for model in self._state.golden_models():
            found = self._golden[model] = tuple(disagreements(self._state.golden(model)))
            hosts = tuple(one.host for one in found)
            name = json.dumps(["disagree", model])
            before = tuple(json.loads(self._state.value(name) or "[]"))
            if hosts != before:
                self._state.set_value(name, json.dumps(hosts))
                if set(hosts) - set(before):
                    lacking = tuple(dict.fromkeys(one for each in found for one in each.lacking))
                    place = Place("host", hosts, lacking=lacking)
                    self._state.add_news(FleetNews("disagree", model, None, place, None, time()).to_wire())

    def _stand(self) -> Standing:
        places: dict[tuple[tuple[str, ...], str], tuple[Place, ...]] = {}
        hosts: dict[tuple[str, ...], set[str]] = {}
        since = time() - HEARD
        for key, state in self._state.groups().items():
            model, (kind, _, _) = json.loads(key)
            here = tuple(model), kind
            place = None if state.get("overruled", False) else state["place"]
            found = () if place is None else (Place.from_wire(place),)
            places[here] = tuple(dict.fromkeys(places.get(here, ()) + found))
            if kind == "nonfinite":  # each sample has this one
                hosts[here[0]] = {who.partition("\n")[2] for who in self._state.heard(key, since)}
        return Standing(places, dict(self._golden), {model: len(names) for model, names in hosts.items()})
