"""Streams of yes and no: errors, timeouts, disagreement, stalls past a limit, tensors that are not finite.

The baseline is a count of events among trials. Its rate is not known, so bets are made against an upper
confidence bound of it. Each bet is the likelihood ratio of a higher rate to that bound: at any rate up to the bound
its mean is at most 1. The mean of one CUSUM for each bet decides, as in `e_detector.py`.

The bound of a short baseline is far above a small rate: 3,000 trials without an event do not prove that there is less
than one in 500. So trials that pass while there is no suspicion are added to the baseline each time they are as many
as it has. A rate that doubles more slowly than that is learnt; a rank has no such need, and its baseline stays frozen.

A run of trials without an event multiplies each bet by a power, so trials cost nothing until an event comes.

Where the baseline has no event at all, a second one (the first, for what cannot happen by chance) is a fact
and waits for no statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from otel_quantmon.detection.bets import upper_rate
from otel_quantmon.detection.detector import RETURN_EVIDENCE, Judgement, number

__all__ = ["FactDetector", "RateDetector", "rate_state"]

# Rates that are bet on, as multiples of the odds at the bound; a change below the first of them is hardly one.
_ODDS = (1.5, 2.0, 4.0, 8.0, 32.0)
# And rates that faults have, whatever was usual, where they are above the bound.
_RATES = (0.02, 0.2)

# Trials of a baseline that need no more, and the evidence up to which there is no suspicion.
_ENOUGH = 1_000_000
# Of more the bound would be lost in rounding.
_MOST_TRIALS = 10**12
_CALM = 2.0

# Ends of runs kept, to say since when.
_KEPT_EVENTS = 256


class RateDetector:
    """Looks for a growing rate of events. See `Detector`; an observation is 0 for a trial without an event, else 1.

    Args:
        events, trials: Counts of the baseline; at least one trial.
        alarm: Trials between false alarms, at least.
        certain_after: Events that are a fact where the baseline has none; 0 where they never are.

    Raises:
        ValueError: More events than trials, or no trial.
    """

    __slots__ = (
        "_alarm",
        "_back",
        "_certain_after",
        "_ends",
        "_events",
        "_evidence",
        "_learnt",
        "_losses",
        "_new",
        "_next",
        "_rate",
        "_return",
        "_run",
        "_seen",
        "_trials",
        "_wins",
    )

    def __init__(self, events: int, trials: int, *, alarm: float, certain_after: int = 2) -> None:
        if not 0 <= events <= trials or trials < 1:
            raise ValueError(f"no baseline of {events} events in {trials} trials")
        self._events = events
        self._trials = trials
        self._alarm = max(alarm, 2.0)
        self._certain_after = 0 if events else certain_after
        self._ends: list[int] = []
        self._bet()
        self.reset()

    def _bet(self) -> None:
        bound = min(upper_rate(self._events, self._trials), 0.999)
        odds = bound / (1.0 - bound)
        rates = [odds * times / (1.0 + odds * times) for times in _ODDS]
        rates += [max(rate, 0.5 * (bound + rates[-1])) for rate in _RATES]
        self._wins = [rate / bound for rate in rates]
        self._losses = [(1.0 - rate) / (1.0 - bound) for rate in rates]

    def reset(self) -> None:
        """See `Detector`."""
        self._evidence = [1.0] * len(self._wins)
        self._run = 0  # trials without an event that the evidence does not know yet
        self._seen = 0
        self._new = 0
        self._learnt = (0, 0)  # of what was seen since the reset, events and trials that the baseline has
        self._next = self._trials
        self._rate: float | None = None
        self._back = (1.0, 1.0)
        self._return = 1.0
        self._ends.clear()

    @property
    def suspicion(self) -> float:
        """See `Detector`; while the way back is looked for, the e-value of that."""
        if self._rate is not None:
            return self._return
        return sum(self._after_run()) / len(self._evidence)

    def update(self, value: float) -> Judgement | None:
        """See `Detector`."""
        if value - value != 0.0:  # not finite: no answer to yes or no
            return None
        if self._rate is not None:
            self._seen += 1
            return self._look_back(value)
        if self._seen >= self._next:
            self._learn()
        self._seen += 1
        if not value:
            self._run += 1
            return None
        self._evidence = [max(e, 1.0) * win for e, win in zip(self._after_run(), self._wins, strict=True)]
        self._run = 0
        self._new += 1
        self._ends.append(self._seen)
        del self._ends[:-_KEPT_EVENTS]
        if self._certain_after and self._new >= self._certain_after:
            since, events, evidence = self._seen - self._ends[0] + 1, self._new, None
        else:
            evidence = sum(self._evidence) / len(self._evidence)
            if evidence < self._alarm:
                return None
            winner = max(range(len(self._evidence)), key=self._evidence.__getitem__)
            since, events = self._change_point(winner)
        # What it may be at least: the square root of a count varies by about a half, and counts end with an event.
        self._rate = max(0.2, (math.sqrt(events) - 1.0) ** 2) / since
        return Judgement(evidence, events / since, self._events / self._trials, "rate", "up", since)

    def update_many(self, values: Sequence[float], start: int = 0) -> tuple[int, Judgement | None]:
        """See `Detector`."""
        for at in range(start, len(values)):
            judgement = self.update(values[at])
            if judgement is not None:
                return at + 1, judgement
        return len(values), None

    def pass_over(self, trials: int) -> Judgement | None:
        """Take so many trials without an event; while the way back is looked for, they may be it."""
        if self._rate is None:
            while trials > 0:
                step = min(trials, max(1, self._next - self._seen))
                trials -= step
                self._seen += step
                self._run += step
                if self._seen >= self._next:
                    self._learn()
            return None
        for _ in range(trials):
            judgement = self.update(0.0)
            if judgement is not None:
                return judgement
        return None

    def reverse(self) -> None:
        """See `Detector`.

        What must win is the rate of the baseline, or a twentieth of that since the change if it is more, against the
        geometric mean of both rates, or half of that since the change if it is more. That since the change is its
        lower bound, so a stream that has had two events in its life must be long without to be back.
        """
        if self._rate is None:
            self._rate = (
                self._new / max(self._seen, 1) if self._new else upper_rate(self._events, self._trials)
            )
        usual = self._events / self._trials
        rate = min(self._rate, 0.999)
        well = min(max(usual, rate / 20), 0.9 * rate)
        still = max(math.sqrt(well * rate), rate / 2)
        self._back = (well / still, (1.0 - well) / (1.0 - still))
        self._certain_after = 0  # it has had some now
        self._return = 1.0
        self._seen = self._run = self._new = 0

    def state(self) -> dict[str, Any]:
        """See `Detector`."""
        return {"events": self._events, "trials": self._trials}

    def _learn(self) -> None:
        """Add what was seen to the baseline, unless something may be on."""
        if self.suspicion > _CALM:
            self._next = self._seen + self._trials // 4
            return
        # The bets change between trials, as those of a martingale may; what was won before stays won.
        self._evidence, self._run = self._after_run(), 0
        events, trials = self._learnt
        self._events += self._new - events
        self._trials += self._seen - trials
        self._learnt = (self._new, self._seen)
        self._next = self._seen + (self._trials if self._trials < _ENOUGH else 10**18)
        self._bet()

    def _after_run(self) -> list[float]:
        run = self._run
        if not run:
            return self._evidence
        # After the first trial each sum is at most 1 wherever it does not win, and then starts from 1 each time.
        return [
            max(max(e, 1.0) * loss**run, loss) for e, loss in zip(self._evidence, self._losses, strict=True)
        ]

    def _look_back(self, value: float) -> Judgement | None:
        at_event, at_none = self._back
        self._return = max(self._return, 1.0) * (at_event if value else at_none)
        if self._return <= 1.0:
            self._run = self._new = 0
        else:
            self._run += 1
            self._new += bool(value)
        if self._return < RETURN_EVIDENCE:
            return None
        usual = self._events / self._trials
        return Judgement(
            RETURN_EVIDENCE, self._new / self._run, usual, "rate", "up", self._run, returned=True
        )

    def _change_point(self, bet: int) -> tuple[int, int]:
        """Trials and events since the sum of the winning bet last was at its floor."""
        best, total = -math.inf, 0.0
        found = (1, 1)
        win, loss = math.log(self._wins[bet]), math.log(self._losses[bet])
        later = self._seen + 1
        for events, end in enumerate(reversed(self._ends), 1):
            total += win + loss * (later - end - 1)
            later = end
            if total > best:
                best, found = total, (self._seen - end + 1, events)
        return found


class FactDetector:
    """Looks for what needs no statistics: a provider that was lost, another file under the name, NaN where none was.

    See `Detector`. An observation is the number of things that are not as they were: 0 when all is as it should be.

    Args:
        returned_after: Observations of 0 in a row, after which it is over.
    """

    __slots__ = ("_changed", "_returned_after", "_well")

    def __init__(self, *, returned_after: int = 1) -> None:
        self._returned_after = returned_after
        self.reset()

    def reset(self) -> None:
        """See `Detector`."""
        self._changed = False
        self._well = 0

    @property
    def suspicion(self) -> float:
        """See `Detector`. There is no suspicion of a fact."""
        return 1.0

    def update(self, value: float) -> Judgement | None:
        """See `Detector`."""
        if value - value != 0.0:
            return None
        if not self._changed:
            if not value:
                return None
            self._changed = True
            return Judgement(None, value, 0.0, "fact", "up", 1)
        self._well = 0 if value else self._well + 1
        if self._well < self._returned_after:
            return None
        return Judgement(None, 0.0, 0.0, "fact", "up", self._well, returned=True)

    def update_many(self, values: Sequence[float], start: int = 0) -> tuple[int, Judgement | None]:
        """See `Detector`."""
        for at in range(start, len(values)):
            judgement = self.update(values[at])
            if judgement is not None:
                return at + 1, judgement
        return len(values), None

    def reverse(self) -> None:
        """See `Detector`."""
        self._changed = True
        self._well = 0

    def state(self) -> dict[str, Any]:
        """See `Detector`. A fact has no baseline."""
        return {}


def rate_state(state: Mapping[str, Any]) -> tuple[int, int]:
    """Events and trials out of a state.

    Raises:
        ValueError: The state is not one of a rate.
    """
    events, trials = int(number(state, "events")), int(number(state, "trials"))
    if not 0 <= events <= trials or not 1 <= trials <= _MOST_TRIALS:
        raise ValueError(f"no baseline of {events} events in {trials} trials")
    return events, trials
