"""Bets on the rank of an observation, and what they lose to a baseline of finite length.

The rank of an observation lies in one of 256 bins, or beyond the whole baseline. A bet pays a number for each. If ranks
are uniform its mean is 1, so that a product of payments is a martingale that no stream without a change drives to ``A``
more often than once in ``A`` (Ville). Bets are densities: Beta(k, 1) wins where values grow, its mirror image where
they shrink, and bets on the tails win where a few become extreme.

Ranks in a frozen baseline of ``m`` observations are uniform over all baselines, but not in any one of them: the
mass between two neighbouring cuts is a Dirichlet variable. So bets are made against what that mass may be, at a
confidence of ``1 - DOUBT``. This does what conditional conformal test martingales (Shaer, Bar, Prinster, Romano, arXiv
2602.13848) are for: valid given the reference set, with its estimation error accounted for. Here the bets are few
and fixed, so each gets a bound of its own, and none is needed for the distribution function as a whole:

- A Beta bet is divided by an upper bound of its mean given the baseline, Chernoff's for a Dirichlet mean (as in the
  KL-inf bounds of bandits, Honda and Takemura 2010): with the mean over uniform bins, and s above the largest payment,
  ``lambda = mean 1/(s - g)`` gives ``P(mean > s - 1/lambda) <= exp(-(m + 1) (log lambda + mean log(s - g)))``.
- A bet on a tail is the likelihood ratio of a share there to the largest mass that the tail may have, so its mean is
  at most 1 for any smaller one. Dividing would cost the outermost tails, of whose mass least is known, all they win.

Ties, and bins narrower than the spacings of the baseline, only make the Dirichlet variable less spread.
"""

from __future__ import annotations

import math
from functools import lru_cache

__all__ = [
    "BINS",
    "BOTTOM",
    "DOUBT",
    "TOP",
    "Bets",
    "bets",
    "mirrored",
    "payments",
    "upper_mean",
    "upper_rate",
]

BINS = 256

TOP, BOTTOM = BINS, BINS + 1
"""Rows of a table, after those of the bins: above the whole baseline, and below it."""

DOUBT = 3e-3
"""Share of baselines, for each bet, that may be so untypical that the bet's promise does not hold."""

_POWERS = (1.15, 1.4, 2.0, 4.0, 12.0)
# Bins at the edge, 0 for what is beyond the baseline, and the share of observations that a change sends there.
_TAILS = ((0, 0.02), (0, 0.1), (0, 0.5), (0, 0.9), (1, 0.06), (4, 0.08))
# The quantile in which a change shows that a bet has won on: half of the density's mass lies beyond it.
_QUANTILES = (0.5, 0.5, 0.5, 0.75, 0.95, *(0.99 for _ in _TAILS))

# Ratio of neighbouring sizes for which payments are kept; those of the lower one hold for all in between.
_LADDER = 1.1


class Bets:
    """Payments for one size of baseline, shared by all streams with such a baseline.

    Attributes:
        up: What each bet on growth pays, by row.
        down: The same for bets on shrinking: the mirror image.
        both: ``up`` and ``down`` in one tuple.
        densities: Densities of ranks after the change that each bet on growth is made on, over those before it; by row.
        quantiles: The quantile that each bet on growth looks at; one bet on shrinking looks at 1 minus it.
    """

    __slots__ = ("both", "densities", "down", "quantiles", "up")

    def __init__(self, size: float) -> None:
        spacing = 1.0 / (size + 1.0)
        powers: list[list[float]] = []
        for k, row in zip(_POWERS, payments(), strict=True):
            # Beyond a short baseline lie several bins, over which the rank is drawn.
            top, bottom = (1.0 - (1.0 - spacing) ** k) / spacing, spacing ** (k - 1.0)
            powers.append([*row, min(top, row[-1]), max(bottom, row[0])])
        tails = [_tail(bins, share, size) for bins, share in _TAILS]
        means = [upper_mean(row, size) for row in payments()]
        paid = [[g / mean for g in row] for row, mean in zip(powers, means, strict=True)] + tails
        self.densities = list(zip(*powers, *tails, strict=True))
        self.up = list(zip(*paid, strict=True))
        self.down = [self.up[mirrored(row)] for row in range(len(self.up))]
        self.both = [up + down for up, down in zip(self.up, self.down, strict=True)]
        self.quantiles = _QUANTILES


def mirrored(row: int) -> int:
    """Return the row at the same distance from the other end."""
    return BINS - 1 - row if row < BINS else TOP + BOTTOM - row


def bets(size: float) -> Bets:
    """Payments for a baseline that is worth ``size`` independent observations, at least 1."""
    step = math.floor(math.log(max(size, 1.0)) / math.log(_LADDER) + 1e-9)
    return _bets(step)


@lru_cache(maxsize=32)
def _bets(step: int) -> Bets:
    return Bets(_LADDER**step)


@lru_cache(maxsize=1)
def payments() -> list[list[float]]:
    """Return what each Beta bet on growth pays, by bin, before any correction: rows with a mean of 1."""
    edges = [i / BINS for i in range(BINS + 1)]
    # Means of the densities over the bins, so that a uniform rank makes each an e-value exactly.
    return [[(edges[i + 1] ** k - edges[i] ** k) * BINS for i in range(BINS)] for k in _POWERS]


def upper_mean(row: list[float], size: float) -> float:
    """Upper bound, at confidence ``1 - DOUBT``, of the mean payment given a baseline of ``size`` observations."""
    most = max(row)
    if most <= min(row):
        return most
    target = -math.log(DOUBT) / (size + 1.0)
    low, high = (
        math.log(1e-12),
        math.log(1e12),
    )  # of s - most: from all mass at the best bin to none of it doubted
    # Halved until the bound is known to a ten-millionth of that distance; the lower end is on the safe side.
    for _ in range(30):
        middle = 0.5 * (low + high)
        s = most + math.exp(middle)
        gaps = [s - paid for paid in row]
        scale = sum([1.0 / gap for gap in gaps]) / len(gaps)
        if math.log(scale) + sum(map(math.log, gaps)) / len(gaps) > target:
            low = middle
        else:
            high = middle
    s = most + math.exp(low)
    return max(1.0, s - len(row) / sum([1.0 / (s - paid) for paid in row]))


def _tail(bins: int, share: float, size: float) -> list[float]:
    """Payments of a bet that so large a share of observations comes to lie in the tail."""
    spacings = math.ceil((size + 1.0) * bins / BINS) if bins else 1
    if (size + 1.0) * bins < BINS and bins:
        return [1.0] * (BINS + 2)  # the tail is a part of what lies beyond the baseline, on which others bet
    most = upper_rate(spacings - 1, size)
    after = min(max(share, 2.0 * most), 1.0 - 0.1 * (1.0 - most))
    inside, outside = after / most, (1.0 - after) / (1.0 - most)
    return [outside] * (BINS - bins) + [inside] * bins + [inside, outside]


def upper_rate(events: float, trials: float, doubt: float = DOUBT) -> float:
    """Upper confidence bound of a rate, at confidence ``1 - doubt``; of a tail with one more spacing than ``events``.

    Chernoff's: the largest p with ``trials * kl(events / trials, p) <= log(1 / doubt)``. Without an event it is
    the exact one, ``1 - doubt ** (1 / trials)``.
    """
    if events >= trials:
        return 1.0
    observed = events / trials
    most = -math.log(doubt) / trials
    low, high = observed, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _divergence(observed, middle) <= most:
            low = middle
        else:
            high = middle
    return high


def _divergence(p: float, q: float) -> float:
    if q >= 1.0:
        return math.inf
    at_one = p * math.log(p / q) if p else 0.0
    return at_one + (1.0 - p) * math.log((1.0 - p) / (1.0 - q))
