"""The rank e-detector: has this stream left its frozen baseline, whatever its distribution is?

Each observation gets its rank in the baseline, drawn at random where it ties. Bets (`bets.py`) are paid by rank. For
each bet there is a CUSUM in the form of an e-detector, ``e = max(e, 1) * payment`` (Shin, Ramdas, Rinaldo, arXiv
2203.03532), and an alarm when the mean of them reaches ``A``. A mean of e-detectors is one. Without a change, the
chance of an alarm in n observations is at most ``n / A`` (Doob: ``e`` stays below the sum of Shiryaev and Roberts,
whose mean is n).

The conformal CUSUM of Vovk, Nouretdinov and Gammerman (arXiv 2412.03464) does the same on conformal p-values whose
reference set grows with the stream. Here it is frozen, since one that grows takes the change in and forgets it; the
price is the correction for its length. They take the best of logarithms; the mean of the exponentials is
taken here, since it needs no bound for the number of bets.

A margin makes the null hypothesis wider: a bet on growth sees each observation smaller by it, a bet on shrinking
larger. Its payments are monotone, so no stream within the margin gains in the mean. That is how changes below the
least one worth reporting, and a load that comes and goes with the day, stay silent without a wait.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Literal

from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.bets import BINS, BOTTOM, TOP, bets, mirrored
from otel_quantmon.detection.detector import RETURN_EVIDENCE, Direction, Judgement

__all__ = ["RankEDetector"]


class RankEDetector:
    """Looks for a change of one stream against its baseline, by ranks. See `Detector`.

    Where the baseline was taken in blocks, observations are gathered to means of as many, and a judgement comes
    only with the last one of a block.

    Args:
        baseline: Baseline of the stream.
        alarm: ``A``: observations between false alarms, at least.
        seed: Seed of the random ranks; each stream has its own.
        sides: Directions in which a change counts.
        margin: Change, as a share of the value, that is none yet; below 1.
        tolerance: The same in the unit of the value, added to it.
        below: The same for shrinking, where it is another than for growth.
        kept: Observations that are kept, to know since when it has changed, and what the stream is like since.
    """

    __slots__ = (
        "_alarm",
        "_baseline",
        "_below",
        "_bets",
        "_block",
        "_calm_since",
        "_evidence",
        "_kept",
        "_lead",
        "_level",
        "_margin",
        "_memory",
        "_return",
        "_seen",
        "_shares",
        "_sides",
        "_sum",
        "_tolerance",
        "_waiting",
    )

    def __init__(
        self,
        baseline: Baseline,
        *,
        alarm: float,
        seed: int = 0,
        sides: Literal["up", "down", "both"] = "both",
        margin: float = 0.0,
        tolerance: float = 0.0,
        below: float | None = None,
        kept: int = 256,
    ) -> None:
        self._baseline = baseline
        self._bets = bets(baseline.effective)
        self._block = baseline.blocks.size
        self._sides = sides
        self._margin = margin
        self._tolerance = tolerance
        self._below = tolerance if below is None else below
        # A block is one observation, so blocks have fewer chances for a false alarm in as many calls.
        self._alarm = max(alarm / self._block, 2.0)
        self._shares = _shares(seed)
        self._memory = kept
        self._kept = array("d", bytes(8 * kept))
        self.reset()

    def reset(self) -> None:
        """See `Detector`."""
        sides = len(self._bets.quantiles) * (2 if self._sides == "both" else 1)
        self._evidence = [1.0] * sides
        self._level = sides * _power(self._alarm, self._baseline.blocks.inflation)
        self._lead = -1  # the bet that has won, while the way back is looked for
        self._return = 1.0
        self._seen = 0
        self._calm_since = 0
        self._sum = 0.0
        self._waiting = 0

    @property
    def suspicion(self) -> float:
        """See `Detector`; while the way back is looked for, the e-value of that."""
        if self._lead >= 0:
            return self._return
        return self._mean()

    def update(self, value: float) -> Judgement | None:
        """See `Detector`."""
        return self.update_many((value,))[1]

    def update_many(self, values: Sequence[float], start: int = 0) -> tuple[int, Judgement | None]:
        """See `Detector`."""
        if self._block == 1:
            if self._lead >= 0:
                return self._look_back(values, start)
            return self._look(values, start)
        means: list[float] = []
        ends: list[int] = []
        total, waiting = self._sum, self._waiting
        for at in range(start, len(values)):
            value = values[at]
            if value - value != 0.0:  # not finite
                continue
            total += value
            waiting += 1
            if waiting == self._block:
                means.append(total / self._block)
                ends.append(at + 1)
                total, waiting = 0.0, 0
        done, judgement = self._look(means, 0) if self._lead < 0 else self._look_back(means, 0)
        if judgement is not None:
            self._sum, self._waiting = 0.0, 0
            return ends[done - 1], judgement
        self._sum, self._waiting = total, waiting
        return len(values), None

    # One loop without calls of our own: of 1.5 us an observation, a call would be a tenth.
    def _look(self, values: Sequence[float], start: int) -> tuple[int, Judgement | None]:
        if not values:
            return 0, None
        baseline, tables, sides = self._baseline, self._bets, self._sides
        cuts, below, upto = baseline.cuts, baseline.below, baseline.upto
        size = baseline.size
        scale = BINS / (size + 1)
        margin, tolerance, tolerance_below = self._margin, self._tolerance, self._below
        # Without a margin both sides see the same rank, and one search will do.
        narrow = not (margin or tolerance or tolerance_below)
        paying = tables.both if narrow and sides == "both" else tables.down if sides == "down" else tables.up
        wide = not narrow and sides == "both"
        shift = 0.0
        draw, find = self._shares.__next__, bisect_left
        evidence, kept, seen, level = self._evidence, self._kept, self._seen, self._level
        memory = self._memory
        calm = 2.0 * len(evidence)
        for at in range(start, len(values)):
            value = moved = values[at]
            if value - value != 0.0:  # not finite
                continue
            share = draw()
            if not narrow:
                shift = margin * abs(value)
                moved = value + shift + tolerance_below if sides == "down" else value - shift - tolerance
            i = find(cuts, moved)
            low, high = (below[i], upto[i + 1]) if cuts[i] == moved else (upto[i], below[i])
            rank = low + share * (high + 1 - low)
            paid = paying[int(rank * scale) if 1.0 <= rank < size else TOP if rank >= size else BOTTOM]
            if wide:
                moved = value + shift + tolerance_below
                i = find(cuts, moved)
                low, high = (below[i], upto[i + 1]) if cuts[i] == moved else (upto[i], below[i])
                rank = low + share * (high + 1 - low)
                paid += tables.down[
                    int(rank * scale) if 1.0 <= rank < size else TOP if rank >= size else BOTTOM
                ]
            evidence = [e * p if e > 1.0 else p for e, p in zip(evidence, paid)]  # noqa: B905 - equally long
            kept[seen % memory] = value
            seen += 1
            total = sum(evidence)
            if total < calm:
                self._calm_since = seen
            elif total >= level:
                self._evidence, self._seen = evidence, seen
                return at + 1, self._judge()
        self._evidence, self._seen = evidence, seen
        return len(values), None

    def reverse(self) -> None:
        """See `Detector`. One bet is turned round: `_way_back` says which.

        Its payment is the density of ranks after a change, so one over the payment is what a stream must win that has
        come back. A stream that stays as far away, or farther, gains nothing in the mean.
        """
        if self._lead < 0:
            self._lead = self._way_back(self._winner(), min(self._seen, self._memory))
        self._return = 1.0
        self._seen = 0
        self._calm_since = 0

    def _way_back(self, winner: int, since: int) -> int:
        """Return the quickest bet on the winner's side that observations since the change could not win by chance."""
        densities, count = self._bets.densities, len(self._bets.quantiles)
        first = winner - winner % count
        rows = [
            self._row(self._kept[(self._seen - back) % self._memory], first, 0.5)
            for back in range(1, since + 1)
        ]
        # One observation from the middle of the baseline is added, for what the first few do not show yet.
        rows.append(BINS // 2)
        best, quickest = (-math.inf, 0), (-math.inf, -1)
        for bet in range(count):
            won = [1.0 / densities[row][bet] for row in rows]
            mean = math.fsum(won) / len(won)
            error = math.sqrt(math.fsum((one - mean) ** 2 for one in won)) / len(won)
            best = max(best, (-mean, bet))
            if mean + error <= 1.0:
                speed = -math.fsum(math.log(densities[row][bet]) for row in range(BINS))
                quickest = max(quickest, (speed, bet))
        return first + (quickest[1] if quickest[1] >= 0 else best[1])

    def _look_back(self, values: Sequence[float], start: int) -> tuple[int, Judgement | None]:
        level = _power(RETURN_EVIDENCE, self._baseline.blocks.inflation)
        densities, bet = self._bets.densities, self._lead % len(self._bets.quantiles)
        draw = self._shares.__next__
        for at in range(start, len(values)):
            value = values[at]
            if value - value != 0.0:  # not finite
                continue
            row = self._row(value, self._lead, draw())
            self._return = max(self._return, 1.0) / densities[row][bet]
            self._kept[self._seen % self._memory] = value
            self._seen += 1
            if self._return <= 1.0:
                self._calm_since = self._seen
            elif self._return >= level:
                since = max(1, self._seen - self._calm_since)
                return at + 1, self._judgement(self._lead, RETURN_EVIDENCE, since, returned=True)
        return len(values), None

    def state(self) -> dict[str, Any]:
        """See `Detector`."""
        return self._baseline.state()

    def quantile(self, share: float) -> float:
        """Of the baseline."""
        return self._baseline.quantile(share)

    def _mean(self) -> float:
        mean = sum(self._evidence) / len(self._evidence)
        return math.pow(mean, 1.0 / self._baseline.blocks.inflation)

    def _winner(self) -> int:
        return max(range(len(self._evidence)), key=self._evidence.__getitem__)

    def _direction(self, bet: int) -> Direction:
        return "down" if self._sides == "down" or bet >= len(self._bets.quantiles) else "up"

    def _row(self, value: float, bet: int, share: float) -> int:
        """Return the row of the rank as ``bet`` sees it, mirrored if it is one on shrinking."""
        shift = self._margin * abs(value)
        if self._direction(bet) == "up":
            return self._baseline.row(value - shift - self._tolerance, share)
        return mirrored(self._baseline.row(value + shift + self._below, share))

    def _judge(self) -> Judgement:
        bet = self._winner()
        # The last zero of the winning CUSUM, found backwards: where the sum of the logarithms up to now is greatest.
        best, total, since = -math.inf, 0.0, 1
        for back in range(1, min(self._seen, self._memory) + 1):
            row = self._row(self._kept[(self._seen - back) % self._memory], bet, 0.5)
            total += math.log(self._bets.up[row][bet % len(self._bets.quantiles)])
            if total > best:
                best, since = total, back
        self._lead = self._way_back(bet, since)
        if since == self._memory:  # it began before what is kept
            since = max(since, self._seen - self._calm_since)
        return self._judgement(bet, self._mean(), since, returned=False)

    def _judgement(self, bet: int, evidence: float, since: int, *, returned: bool) -> Judgement:
        direction = self._direction(bet)
        recent = sorted(
            self._kept[(self._seen - back) % self._memory] for back in range(1, min(since, self._memory) + 1)
        )
        # The median is what most people look at, if it has moved at all; else the quantile that the bet looks at.
        middle = recent[len(recent) // 2]
        quartile = self._baseline.quantile(0.75 if direction == "up" else 0.25)
        share = self._bets.quantiles[bet % len(self._bets.quantiles)]
        if returned or (middle > quartile if direction == "up" else middle < quartile):
            share = 0.5
        at = share if direction == "up" else 1.0 - share
        return Judgement(
            evidence=evidence,
            value=recent[min(int(at * len(recent)), len(recent) - 1)],
            baseline=self._baseline.quantile(at),
            statistic=f"p{round(100 * at)}",
            direction=direction,
            observations=since * self._block,
            returned=returned,
        )


def _shares(seed: int) -> Iterator[float]:
    """Random numbers from 0 to below 1, without end. A generator of `random` in each detector would take 2.5 kB."""
    for portion in count():
        yield from _portion(seed << 32 | portion)


def _portion(seed: int) -> array[float]:
    draw = random.Random(seed).random  # noqa: S311 - breaks ties, hides nothing
    return array("d", [draw() for _ in range(32)])


def _power(level: float, inflation: float) -> float:
    # Far below the largest float, which products of payments must not reach either.
    return math.exp(min(math.log(level) * inflation, math.log(1e290)))
