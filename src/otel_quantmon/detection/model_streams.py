"""The streams of one model: what was observed of it waits here until it is judged.

Who observes leaves numbers here, at any time and from any thread, and nothing is decided then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from otel_quantmon.detection.budget import Budget
from otel_quantmon.detection.durations import Pauses, Stalls, WaitingCalls, shape_class
from otel_quantmon.detection.life_cycle import ObservedCall, Transition
from otel_quantmon.detection.observations import Ended, Reading, spread
from otel_quantmon.detection.registry import KINDS
from otel_quantmon.detection.stream import BaselineSource, State, Stream
from otel_quantmon.guard import guarded

__all__ = ["MOST_DURATIONS", "Found", "ModelStreams"]

# Durations that one judgement ranks, of all models together: at 1.5 us each a few milliseconds. Where calls are more
# frequent than that, the first of each interval are ranked, in a row, and the others left out.
MOST_DURATIONS = 512

# What else may wait for a judgement, of one model: batches of calls, and numbers of samples.
_MOST_WAITING = 4096

# Errors whose types are kept, to name the most frequent one.
_MOST_ERRORS = 100

# A call is a stall if it takes so many times as long as all but one in a hundred of the baseline.
_STALL = 3.0

# Share of the calls of a batch below which stalls are no part of the latency.
_FEW = 0.25

# Nanoseconds that rounding may make of the end of a call.
_SAME_CALL = 500

# Streams of data: a suspicion of one of these is what the reference can look closer at.
_OF_DATA: Final = frozenset(
    {"relative_error", "disagreement", "cosine", "output_distribution", "input_distribution", "clipping"}
)

_NO_SHARES: Final[Mapping[str, Mapping[str, float]]] = {}

# Facts that end by themselves: what has changed has changed.
_MOMENTARY: Final = frozenset({"model_changed"})


class Found(NamedTuple):
    """What a judgement has found.

    Attributes:
        streams: Streams of the model; None for the process.
        transition: Transition into the anomaly or out of it.
    """

    streams: ModelStreams | None
    transition: Transition


class _Given(NamedTuple):
    state: State
    share: float
    source: BaselineSource


class ModelStreams:
    """The streams of one model. It goes with the model.

    Args:
        model: Name of the model.
        budget: Budget of false alarms.
        kinds: Types of anomaly that are looked for; None for all.
        least: Change that is worth reporting, as a share of the baseline.

    Attributes:
        model: As given.
        kinds: Types of anomaly that are looked for.
        ranked, calls: Durations that were ranked so far, and calls that there were.
    """

    def __init__(
        self, model: str, budget: Budget, *, kinds: Collection[str] | None = None, least: float = 0.0
    ) -> None:
        self.model = model
        self._budget = budget
        self.kinds = frozenset(KINDS if kinds is None else kinds)
        # What a stall is follows from the baseline of the latency.
        self._watched = self.kinds | {"latency_drift"} if "stall" in self.kinds else self.kinds
        self._least = least
        self._durations = WaitingCalls(MOST_DURATIONS)
        # By class of shapes.
        self._pauses: dict[str, Pauses] = {}
        self._stalls = Stalls()
        # Lists, where there are mostly none or few: an empty deque is larger than 700 bytes.
        self._ended: list[Ended] = []
        self._shown: list[tuple[int, object]] = []
        self._readings: deque[Reading] = deque(maxlen=_MOST_WAITING)
        self._streams: dict[tuple[str, str], Stream] = {}
        self._given: dict[tuple[str, str], _Given] = {}
        self._errors: list[str] = []
        self.calls = 0
        self.ranked = 0

    # What follows is for those who observe.

    def durations(self, of: str, ends: Sequence[int], durations: Sequence[int]) -> None:
        """Take successful calls of one class of shapes, oldest first; nanoseconds. They must not change any more."""
        self._durations.add(of, ends, durations)

    def shown(self, calls: Iterable[tuple[int, object]]) -> None:
        """Take contexts of calls that `durations` gives, by their ends, for what the calls lead to."""
        self._shown.extend(calls)
        del self._shown[:-MOST_DURATIONS]

    def ended(
        self,
        calls: int,
        errors: Sequence[str] = (),
        timeouts: int | None = None,
        *,
        failed: Sequence[ObservedCall] = (),
        late: Sequence[ObservedCall] = (),
    ) -> None:
        """Take the ends of calls.

        Args:
            calls: Number of calls.
            errors: Types of those that raised.
            timeouts: Number of calls that ran past their timeout; None where there is none.
            failed, late: Calls that raised, and calls that ran past their timeout.
        """
        self.calls += calls
        self._ended.append(Ended(calls, errors, timeouts, failed, late))
        del self._ended[:-_MOST_WAITING]

    def read(self, kind: str, of: str, value: Any, at: float, call: ObservedCall | None = None) -> None:
        """Take one observation of a stream.

        Args:
            kind: Type of anomaly.
            of: Part of the model that the stream is of.
            value: Observation, as `registry.Kind` says; for events 0 or 1.
            at: Seconds.
            call: Call that was observed.
        """
        self._readings.append(Reading(kind, of, value, at, call, fact=False))

    def fact(self, kind: str, of: str, value: float, at: float) -> None:
        """Take note of what needs no statistics: ``value`` is 0 where all is as it was."""
        self._readings.append(Reading(kind, of, value, at, None, fact=True))
        if kind in _MOMENTARY and value:
            self._readings.append(Reading(kind, of, 0.0, at, None, fact=True))

    def over(self, kind: str, at: float) -> None:
        """Take note that all is as it was again, for each fact of a kind that is on, or waits to be judged."""
        waiting = [reading.of for reading in list(self._readings) if reading.kind == kind and reading.fact]
        active = [
            one.of for one in list(self._streams.values()) if one.kind == kind and one.active is not None
        ]
        for of in dict.fromkeys([*active, *waiting]):
            self.fact(kind, of, 0.0, at)

    # And this for who reports; reading changes nothing.

    def active(self) -> dict[str, bool]:
        """By type whether an anomaly is on, of the types with a baseline."""
        found: dict[str, bool] = {}
        for stream in list(self._streams.values()):
            if stream.watching and stream.kind in self.kinds:
                found[stream.kind] = found.get(stream.kind, False) or stream.active is not None
        return found

    def errors(self) -> str | None:
        """The most frequent type among the last errors; None without any."""
        return next((name for name, _ in Counter(list(self._errors)).most_common(1)), None)

    # The rest is for the thread that judges.

    def judge(self, now: float, room: int) -> list[Found]:
        """What has changed by ``now``; ``room`` durations may be ranked until the next time."""
        changes: list[Found] = []
        self._judge_durations(now, changes)
        self._durations.room = room
        while self._ended:
            self._judge_ends(self._ended.pop(0), now, changes)
        self._judge_readings(now, changes)
        self._shown.clear()
        for stream in list(self._streams.values()):
            # Nobody says again that it is over, and an anomaly lasts for a while.
            if stream.well and stream.active is not None:
                changes += [self._change(stream, one) for one in stream.take((0.0,), (now,), now)]
        return changes

    def suspicious(self, share: float = 0.5) -> bool:
        """True if a stream of data has ``share`` of the evidence of an alarm."""
        return any(
            stream.watching
            and stream.active is None
            and stream.suspicion >= self._budget.suspicion_level(self._level(stream), share)
            for stream in list(self._streams.values())
            if stream.kind in _OF_DATA
        )

    def states(self) -> dict[str, dict[str, Any]]:
        """The baselines as plain JSON values, by type and what they are of; also given ones not yet needed."""
        found: dict[str, dict[str, Any]] = {}
        for (kind, of), given in list(self._given.items()):
            found.setdefault(kind, {})[of] = given.state
        for stream in self._streams.values():
            state = stream.state()
            if state is not None:
                found.setdefault(stream.kind, {})[stream.of] = state
        return found

    def newly_learnt(self) -> bool:
        """True if a baseline has been learnt since it was last asked."""
        found = [stream.newly_learnt() for stream in self._streams.values()]
        return any(found)

    def shares(self) -> dict[str, dict[str, float]]:
        """Observations for each call, of the streams that `states` has."""
        found: dict[str, dict[str, float]] = {}
        for (kind, of), given in list(self._given.items()):
            found.setdefault(kind, {})[of] = given.share
        for stream in self._streams.values():
            found.setdefault(stream.kind, {})[stream.of] = self._share(stream)
        return found

    def begin(
        self,
        states: Mapping[str, Mapping[str, State]],
        source: BaselineSource,
        shares: Mapping[str, Mapping[str, float]] = _NO_SHARES,
    ) -> None:
        """Take over baselines, in place of those that would be learnt; what is not one is left out.

        One that was recorded where the model is known to be right also takes the place of one that is watched.

        Args:
            states: States of `states`.
            source: Source of the baselines.
            shares: Shares of `shares`; without, how often a stream is seen has to be learnt.
        """
        for kind, by_name in states.items():
            for of, state in by_name.items():
                if kind not in KINDS:
                    continue
                given = _Given(state, shares.get(kind, {}).get(of, 1.0), source)
                stream = self._streams.get((kind, of))
                if stream is None:
                    self._given[kind, of] = given
                elif not stream.watching or (source == "recorded" and stream.active is None):
                    _begin(stream, given)

    def after_fork(self) -> None:
        """In a child: baselines stay, what waits and what is on is the parent's to report."""
        for key, stream in self._streams.items():
            state = stream.state()
            if state is not None:
                self._given[key] = _Given(state, self._share(stream), stream.source)
        self._durations = WaitingCalls(MOST_DURATIONS)
        for waiting in (self._ended, self._readings, self._errors, self._shown):
            waiting.clear()
        self._streams = {}
        self._pauses = {}
        self._stalls = Stalls()
        self.calls = self.ranked = 0

    # A stream that fails takes nothing with it that others have found, nor what they have still to be given.

    def _judge_durations(self, now: float, changes: list[Found]) -> None:
        for waiting in self._durations.take():
            self.ranked += len(waiting.durations)
            pauses = self._pauses.get(waiting.of)
            if pauses is None:
                known = {of for kind, of in (*self._given, *self._streams) if kind == "latency_drift"}
                pauses = self._pauses[waiting.of] = Pauses(waiting.of, known)
            for of, ends, seconds in pauses.split(waiting):
                with guarded:
                    self._judge_class(of, ends, seconds, now, changes)

    def _judge_class(
        self, of: str, ends: list[float], seconds: list[float], now: float, changes: list[Found]
    ) -> None:
        latency = self._stream("latency_drift", of)
        if latency is None:
            return
        limit = latency.quantile(0.99)
        stall = None if limit is None else self._stream("stall", "")
        if stall is not None and limit is not None:
            longest = limit * _STALL
            stalled = (
                [i for i, duration in enumerate(seconds) if duration > longest]
                if max(seconds, default=0.0) > longest
                else []
            )
            # Of several at one time the longest.
            worst = max(stalled, key=seconds.__getitem__, default=0)
            changes += [
                self._change(stall, transition, self._call(ends[worst], seconds[worst]))
                for transition in stall.count(*self._stalls.single(ends, stalled), now)
            ]
            if stalled and len(stalled) < _FEW * len(seconds):
                # A few stalls are no slower calls; what is left out could only have been evidence of those.
                kept = [i for i, duration in enumerate(seconds) if duration <= longest]
                ends, seconds = [ends[i] for i in kept], [seconds[i] for i in kept]
        for transition in latency.take(seconds, seconds if latency.watching else ends, now):
            at = transition.index
            if "latency_drift" in self.kinds:
                changes.append(self._change(latency, transition, self._call(ends[at], seconds[at])))

    def _judge_ends(self, ended: Ended, now: float, changes: list[Found]) -> None:
        self._errors.extend(ended.errors)
        del self._errors[:-_MOST_ERRORS]
        for kind, number, calls in (
            ("error_rate", len(ended.errors), ended.failed),
            ("timeout", ended.timeouts, ended.late),
        ):
            with guarded:
                stream = None if number is None else self._stream(kind, "")
                if stream is None:
                    continue
                events = spread(number or 0, ended.calls)
                for transition in stream.count(ended.calls, events, now):
                    at = bisect_left(events, transition.index)
                    call = calls[at] if at < len(calls) else None
                    changes.append(self._change(stream, transition, call))

    def _judge_readings(self, now: float, changes: list[Found]) -> None:
        # Those of one stream together: a detector takes many in half the time that it takes one after the other in.
        waiting: dict[tuple[str, str, bool], list[Reading]] = {}
        while self._readings:
            reading = self._readings.popleft()
            waiting.setdefault((reading.kind, reading.of, reading.fact), []).append(reading)
        for (kind, of, fact), readings in waiting.items():
            with guarded:
                stream = self._stream(kind, of, fact=fact)
                if stream is None:
                    continue
                values = [reading.value for reading in readings]
                if not fact and KINDS[kind].observation == "event":
                    events = [at for at, value in enumerate(values) if value]
                    transitions = stream.count(len(values), events, now)
                else:
                    transitions = stream.take(values, [reading.at for reading in readings], now)
                changes += [self._change(stream, one, readings[one.index].call) for one in transitions]

    def _call(self, end: float, duration: float) -> ObservedCall:
        """Return a call by its end and duration in seconds, with its context if it has one."""
        nanoseconds = round(end * 1e9)
        near = (context for ended, context in self._shown if abs(ended - nanoseconds) < _SAME_CALL)
        return ObservedCall(nanoseconds, round(duration * 1e9), next(near, None))

    def _change(self, stream: Stream, transition: Transition, call: ObservedCall | None = None) -> Found:
        return Found(self, replace(transition, baseline=stream.source, call=call))

    def _stream(self, kind: str, of: str, *, fact: bool = False) -> Stream | None:
        found = self._streams.get((kind, of))
        if found is None and kind in self._watched:
            found = Stream(kind, self.model, of, level=self._level, least=self._least, fact=fact)
            self._streams[kind, of] = found
            given = self._given.pop((kind, of), None)
            if given is not None and not fact:
                _begin(found, given)
        return found

    def _level(self, stream: Stream) -> float:
        rate = self._share(stream)
        # A call is of one class of shapes, and feeds all outputs.
        if stream.kind == "latency_drift" or not stream.of:
            return self._budget.sole_level(stream.kind, rate=rate)
        alike = [key for key in self._streams if key[0] == stream.kind]
        return self._budget.level(stream.kind, rate=rate, position=alike.index((stream.kind, stream.of)))

    def _share(self, stream: Stream) -> float:
        """Observations of a stream for each call that could feed it; as it was before, until that is known."""
        if stream.kind == "latency_drift":
            # Only calls of its own shapes could. Those after pauses are a part of these.
            found = self._durations.share(shape_class(stream.of))
        else:
            found = min(1.0, stream.seen / self.calls) if self.calls else 0.0
        return found if stream.settled and found else stream.share


def _begin(stream: Stream, given: _Given) -> None:
    try:
        stream.share = min(1.0, max(0.0, given.share)) or 1.0
        stream.begin(given.state, given.source)
    except (ValueError, TypeError, AttributeError, ArithmeticError):
        # A file that something else has written into; the stream learns its own.
        return
