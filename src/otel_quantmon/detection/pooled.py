"""The rank e-detector on counts: for what many processes have observed, of which no order within a batch is known.

The same bets as `e_detector.RankEDetector`, made on a batch at once: the payment of a batch is the product of those
of its observations, which needs no order. A batch is then one observation of the e-detector, so in n of them there is
a false alarm with a chance of at most ``n / A``. Where an observation ties with some of the baseline, its rank
is not drawn: it is paid the mean over the ranks that it could have, so that the same batches always give the same
state, which can be written down and gone on with.

The baseline may be another for each batch: what one process observes is compared with its own, and the payments of all
go into one evidence. So a fleet whose processes differ from each other, and send more or less from one hour to the
next, is no change.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal, TypeAlias

from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.bets import BINS, BOTTOM, TOP, bets
from otel_quantmon.detection.detector import RETURN_EVIDENCE, Direction, Judgement, number

__all__ = ["Counts", "Evidence", "PooledBaseline", "Sides", "Watch"]

Counts: TypeAlias = Sequence[tuple[float, int]]
"""Values in ascending order, and how many there are of each."""

Parts: TypeAlias = "Sequence[tuple[PooledBaseline, Counts]]"

Sides = Literal["up", "down", "both"]

# Far below the largest float's logarithm.
_MOST = 600.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What counts as a change of a stream; see `RankEDetector`.

    Attributes:
        alarm: Batches between false alarms, at least.
        sides: Directions in which a change counts.
        margin: Change, as a share of the value, that is none yet.
        tolerance: The same in the unit of the value.
        spread: The same in distances from the baseline's median to its outer tenth on the side of the change.
    """

    alarm: float
    sides: Sides = "up"
    margin: float = 0.0
    tolerance: float = 0.0
    spread: float = 0.0


class PooledBaseline:
    """A frozen baseline of counts, and what is paid against it.

    Args:
        counts: Counts of the baseline, at least 2 in all.
        watch: What counts as a change.
        inflation: What is left of autocorrelation, see `blocks`.
    """

    def __init__(self, counts: Counts, watch: Watch, inflation: float = 1.0) -> None:
        upto = list(accumulate(count for _, count in counts))
        self.size = upto[-1]
        self._baseline = Baseline.from_state(
            {
                "size": self.size,
                "cuts": [value for value, _ in counts],
                "below": [0, *upto[:-1]],
                "upto": upto,
                "block": 1,
                "inflation": inflation,
            }
        )
        self.inflation = inflation
        self._watch = watch
        self._table = _table(round(self._baseline.effective, 3), self.size)
        middle = self.quantile(0.5)
        self._up = watch.tolerance + watch.spread * (self.quantile(0.9) - middle)
        self._down = watch.tolerance + watch.spread * (middle - self.quantile(0.1))
        self._paid: dict[tuple[float, bool], tuple[float, ...]] = {}
        self._back: dict[tuple[float, int], float] = {}
        self.sides: tuple[Direction, ...] = ("up", "down") if watch.sides == "both" else (watch.sides,)

    def quantile(self, share: float) -> float:
        """Of the baseline."""
        return self._baseline.quantile(share)

    def paid(self, counts: Counts) -> list[float]:
        """Logarithms of what each bet pays for ``counts``; bets on growth before those on shrinking."""
        found: list[float] = []
        for side in self.sides:
            totals = [0.0] * self._table.bets
            for value, count in counts:
                totals = [
                    total + count * one
                    for total, one in zip(totals, self._of(value, side == "up"), strict=True)
                ]
            found += totals
        return found

    def moved(self, counts: Counts, bet: int) -> float:
        """Logarithm of what one bet pays for ``counts``."""
        side, place = self.sides[bet // self._table.bets], bet % self._table.bets
        return math.fsum(count * self._of(value, side == "up")[place] for value, count in counts)

    def came_back(self, counts: Counts, bet: int) -> float:
        """Logarithm of what one bet pays that is turned round, see `RankEDetector.reverse`."""
        return math.fsum(count * self._of_return(value, bet) for value, count in counts)

    def _way_back(self, parts: Parts, winner: int, errors: float) -> int:
        first = winner - winner % self._table.bets
        best, quickest = (-math.inf, first), (-math.inf, -1)
        total = 1 + sum(count for _, counts in parts for _, count in counts)
        for bet in range(first, first + self._table.bets):
            won = [
                (math.exp(min(baseline._of_return(value, bet), _MOST)), count)
                for baseline, counts in parts
                for value, count in counts
            ]
            # One observation from the middle is added, for what the first few do not show yet.
            won.append((self._table.middle[bet - first], 1))
            mean = math.fsum(one * count for one, count in won) / total
            error = math.sqrt(math.fsum(count * min(one - mean, 1e150) ** 2 for one, count in won)) / total
            best = max(best, (-mean, bet))
            if mean + errors * error <= 1.0:
                quickest = max(quickest, (self._table.speed[bet - first], bet))
        return quickest[1] if quickest[1] >= 0 else best[1]

    @staticmethod
    def way_back(parts: Parts, winner: int) -> tuple[int, int]:
        """Return bets on the winner's side that counts could not win by chance, each by its baseline: two of them.

        The first is sure to three standard errors, since what is over too soon comes back and is reported again. The
        second is sure to one, and quicker: for whether others have stayed.
        """
        return parts[0][0]._way_back(parts, winner, 3.0), parts[0][0]._way_back(parts, winner, 1.0)

    def judgement(self, counts: Counts, bet: int, evidence: float, *, returned: bool = False) -> Judgement:
        """Return a judgement on ``counts``, which are at least one."""
        direction = self.sides[bet // self._table.bets]
        share = 0.5 if returned else self._table.quantiles[bet % self._table.bets]
        recent = _Quantiles(counts)
        quartile = self.quantile(0.75 if direction == "up" else 0.25)
        # The median is what most people look at, if it has moved at all.
        if recent.of(0.5) > quartile if direction == "up" else recent.of(0.5) < quartile:
            share = 0.5
        at = share if direction == "up" else 1.0 - share
        return Judgement(
            evidence=evidence,
            value=recent.of(at),
            baseline=self.quantile(at),
            statistic=f"p{round(100 * at)}",
            direction=direction,
            observations=recent.size,
            returned=returned,
        )

    def _of(self, value: float, up: bool) -> tuple[float, ...]:
        found = self._paid.get((value, up))
        if found is None:
            found = self._paid[value, up] = self._table.logarithms(*self._ranks(value, up))
        return found

    def _of_return(self, value: float, bet: int) -> float:
        found = self._back.get((value, bet))
        if found is None:
            side = self.sides[bet // self._table.bets]
            ranks = self._ranks(value, side == "up")
            found = self._back[value, bet] = self._table.returned(bet % self._table.bets, *ranks)
        return found

    def _ranks(self, value: float, up: bool) -> tuple[float, float]:
        """Between which ranks ``value`` lies, as bets on growth see it; mirrored for those on shrinking."""
        shift = self._watch.margin * abs(value)
        if up:
            low, high = self._baseline.interval(value - shift - self._up)
            return low, high
        low, high = self._baseline.interval(value + shift + self._down)
        return self.size + 1 - high, self.size + 1 - low


class Evidence:
    """The evidence of one stream: how sure it is that it has changed, or that it has come back. Plain and small.

    Attributes:
        winner: The bet that has found the change; -1 before one.
        lead: The bet that is turned round while the way back is looked for; -1 before a change.
        quick: A quicker one, by which others may be asked; -1 before a change.
        recent: Counts since the evidence was last none.
    """

    __slots__ = ("_back", "_logs", "_still", "lead", "quick", "recent", "winner")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._logs: list[float] = []
        # Evidence that it is back, and of the bet that has found the change: a smaller change is no return.
        self._back = self._still = 0.0
        self.lead = self.quick = self.winner = -1
        self.recent: dict[float, int] = {}

    @property
    def changed(self) -> bool:
        """True from the alarm to the return."""
        return self.lead >= 0

    @property
    def calm(self) -> bool:
        """True if there is hardly any evidence of a change."""
        return self.lead < 0 and self._mean() < math.log(2.0)

    def update(
        self, counts: Counts, baseline: PooledBaseline, watch: Watch, whole: PooledBaseline | None = None
    ) -> Judgement | None:
        """Take a batch; a judgement if it was the one that decided, that the stream has changed or is back.

        Args:
            counts: Counts of the batch.
            baseline: Baseline that they are compared with.
            watch: What counts as a change.
            whole: Baseline of all that the stream is made of, where batches have different ones.
        """
        whole = whole or baseline
        _add(self.recent, counts)
        if self.lead >= 0:
            self._back = min(_MOST, max(self._back, 0.0) + baseline.came_back(counts, self.lead))
            self._still += baseline.moved(counts, self.winner)
            if self._back <= 0.0:
                self.recent, self._still = {}, 0.0
            elif self._still < 0.0 and self._back >= math.log(RETURN_EVIDENCE) * baseline.inflation:
                said = whole.judgement(sorted(self.recent.items()), self.lead, RETURN_EVIDENCE, returned=True)
                self._clear()
                return said
            return None
        paid = baseline.paid(counts)
        logs = self._logs or [0.0] * len(paid)
        self._logs = [min(_MOST, max(log, 0.0) + one) for log, one in zip(logs, paid, strict=True)]
        mean = self._mean()
        if mean < math.log(2.0):
            self.recent = {}
        elif mean >= math.log(watch.alarm) * baseline.inflation:
            recent = sorted(self.recent.items())
            winner = max(range(len(self._logs)), key=self._logs.__getitem__)
            self.winner, self._back, self._still = winner, 0.0, 0.0
            self.lead, self.quick = PooledBaseline.way_back([(whole, recent)], winner)
            evidence = math.exp(min(mean / baseline.inflation, _MOST))
            self._logs, self.recent = [], {}
            return whole.judgement(recent, winner, evidence)
        return None

    def state(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        recent = sorted(self.recent.items())
        return {
            "logs": self._logs,
            "back": self._back,
            "still": self._still,
            "lead": self.lead,
            "winner": self.winner,
            "quick": self.quick,
            "recent": recent,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Evidence:
        """Return what `state` was of."""
        made = cls()
        made._logs = [float(one) for one in state["logs"]]
        made._still = number(state, "still")
        made._back, made.lead = number(state, "back"), int(number(state, "lead"))
        made.winner, made.quick = int(number(state, "winner")), int(number(state, "quick"))
        made.recent = {float(value): int(count) for value, count in state["recent"]}
        return made

    def _mean(self) -> float:
        """Logarithm of the mean of the bets' e-values."""
        return _mean_of(self._logs) if self._logs else 0.0


class _Table:
    """What bets pay between any two ranks in a baseline of ``size`` observations worth ``effective``."""

    def __init__(self, effective: float, size: int) -> None:
        tables = bets(effective)
        self._size = size
        self.bets = len(tables.quantiles)
        self.quantiles = tables.quantiles
        self._width = (size + 1) / BINS
        inverse = [tuple(1.0 / one for one in row) for row in tables.densities]
        self._paid = [[row[bet] for row in tables.up] for bet in range(self.bets)]
        self._returned = [[row[bet] for row in inverse] for bet in range(self.bets)]
        self.middle = inverse[BINS // 2]
        self.speed = [
            -math.fsum(math.log(tables.densities[row][bet]) for row in range(BINS))
            for bet in range(self.bets)
        ]

    def logarithms(self, low: float, high: float) -> tuple[float, ...]:
        """Of what each bet on growth pays in the mean between two ranks."""
        return tuple(math.log(self._mean(rows, low, high)) for rows in self._paid)

    def returned(self, bet: int, low: float, high: float) -> float:
        """Of what one that is turned round pays."""
        return math.log(self._mean(self._returned[bet], low, high))

    def _mean(self, rows: Sequence[float], low: float, high: float) -> float:
        """Mean over the ranks from ``low`` to ``high``. Not by sums kept: payments differ by 20 powers of ten."""
        size, width = float(self._size), self._width
        parts = [
            max(0.0, min(high, 1.0) - low) * rows[BOTTOM],
            max(0.0, high - max(low, size)) * rows[TOP],
        ]
        inner, last = max(low, 1.0), min(high, size)
        while inner < last:
            bin_ = min(int(inner / width), BINS - 1)
            upto = min(last, (bin_ + 1) * width)
            if upto <= inner:  # at an edge, by rounding
                bin_, upto = bin_ + 1, min(last, (bin_ + 2) * width)
            parts.append((upto - inner) * rows[min(bin_, BINS - 1)])
            inner = upto
        return math.fsum(parts) / (high - low)


@lru_cache(maxsize=256)
def _table(effective: float, size: int) -> _Table:
    return _Table(effective, size)


class _Quantiles:
    def __init__(self, counts: Counts) -> None:
        self._values = [value for value, _ in counts]
        self._upto = list(accumulate(count for _, count in counts))
        self.size = self._upto[-1]

    def of(self, share: float) -> float:
        """The least value that covers ``share``."""
        return self._values[bisect_left(self._upto, max(1, math.ceil(share * self.size)))]


def _mean_of(logs: Sequence[float]) -> float:
    most = max(logs)
    return most + math.log(math.fsum(math.exp(log - most) for log in logs) / len(logs))


def _add(into: dict[float, int], counts: Iterable[tuple[float, int]]) -> None:
    for value, count in counts:
        into[value] = into.get(value, 0) + count
