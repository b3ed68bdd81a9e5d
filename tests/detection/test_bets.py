"""Payments of the bets, and the bound of their mean given a finite baseline."""

from __future__ import annotations

import math
import random

import pytest

from otel_quantmon.detection.bets import (
    BINS,
    BOTTOM,
    DOUBT,
    TOP,
    bets,
    mirrored,
    payments,
    upper_mean,
    upper_rate,
)


def test_a_bet_on_uniform_ranks_pays_one_in_the_mean() -> None:
    """The property that makes the product of payments a martingale."""
    for row in payments():
        assert sum(row) / BINS == pytest.approx(1.0, abs=1e-12)
        assert row == sorted(row)


@pytest.mark.parametrize("size", [3, 50, 255, 256, 3000])
def test_no_bet_pays_more_than_one_in_the_mean_with_what_lies_beyond_the_baseline(size: int) -> None:
    """The rank is uniform over bins and both ends, which lie in the outermost bins or, if it is short, cover them."""
    table = bets(size)
    spacing = 1.0 / (size + 1)
    total = [spacing * (top + bottom) for top, bottom in zip(table.up[TOP], table.up[BOTTOM], strict=True)]
    for i in range(BINS):
        share = max(0.0, min((i + 1) / BINS, 1.0 - spacing) - max(i / BINS, spacing))
        total = [sum_ + share * paid for sum_, paid in zip(total, table.up[i], strict=True)]
    assert max(total) <= 1.0 + 1e-9


def test_bets_on_shrinking_are_the_mirror_image() -> None:
    """What the lowest rank pays a bet on shrinking, the highest pays one on growth."""
    table = bets(3000)
    for row in (0, 7, 128, BINS - 1, TOP, BOTTOM):
        assert table.down[row] == table.up[mirrored(row)]
        assert table.both[row] == table.up[row] + table.down[row]
    assert mirrored(TOP) == BOTTOM


@pytest.mark.parametrize(("spacings", "size"), [(1, 50), (1, 3000), (12, 3000), (47, 3000)])
def test_tails_seldom_hold_more_than_their_bound(spacings: int, size: int) -> None:
    """The mass beyond an order statistic is a Beta variable; the exact chance that it exceeds the bound."""
    bound = upper_rate(spacings - 1, size)
    chance = sum(math.comb(size, i) * bound**i * (1 - bound) ** (size - i) for i in range(spacings))
    assert DOUBT / 30 <= chance <= DOUBT * (1 + 1e-9)


@pytest.mark.parametrize("size", [50, 300, 3000])
def test_the_bound_holds_for_all_but_few_baselines(size: int) -> None:
    """Of 400 baselines, each with the mass that its bins truly have, those whose true mean payment exceeds the bound
    are not significantly more than the doubt allows; without the correction it would be about half.
    """
    rng = random.Random(size)
    bounds = [upper_mean(row, size) for row in payments()]
    exceeded = [0] * len(bounds)
    naive = 0
    for _ in range(400):
        mass = [rng.gammavariate((size + 1) / BINS, 1.0) for _ in range(BINS)]
        total = sum(mass)
        means = [sum(m * paid for m, paid in zip(mass, row, strict=True)) / total for row in payments()]
        exceeded = [
            count + (mean > bound) for count, mean, bound in zip(exceeded, means, bounds, strict=True)
        ]
        naive += means[2] > 1.0
    assert max(exceeded) <= 400 * DOUBT + 4
    assert 150 < naive < 250


def test_longer_baselines_cost_less() -> None:
    """The bound goes down to 1 with the length, and is never below it."""
    for row in payments():
        bounds = [upper_mean(row, size) for size in (1, 10, 100, 1000, 10_000, 10_000_000)]
        assert bounds == sorted(bounds, reverse=True)
        assert 1.0 <= bounds[-1] < 1.02


def test_payments_are_shared_and_hold_for_the_shorter_of_near_sizes() -> None:
    """Streams with baselines of about the same length have one table, the one for the shorter baseline."""
    assert bets(3000) is bets(3001)
    assert bets(3000).up[TOP][4] <= payments()[4][-1] / upper_mean(payments()[4], 3000) + 1e-9
