"""The rank e-detector: silent on stationary noise of any kind, quick on changes, right on since when."""

from __future__ import annotations

import math
import random
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.streams import STATIONARY, autoregressive, baseline_of, diurnal, gaussian, lognormal, stalls
from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.bets import BINS, bets
from otel_quantmon.detection.detector import Judgement
from otel_quantmon.detection.e_detector import RankEDetector

# Twenty streams of a call, one false alarm in 10^6 calls.
LEVEL = 2e7


def _told(detector: RankEDetector, values: list[float]) -> tuple[int, Judgement]:
    """Number of observations until the judgement, and the judgement."""
    count, judgement = detector.update_many(values)
    assert judgement is not None
    return count, judgement


@settings(deadline=None)
@given(
    values=st.lists(st.one_of(st.integers(0, 5).map(float), st.floats(-100, 100)), min_size=3, max_size=40),
    both=st.booleans(),
)
def test_a_payment_is_at_most_one_in_the_mean_of_exchangeable_values(values: list[float], both: bool) -> None:
    """Of n exchangeable values each is as likely to be the one that comes after the others.

    So the mean over all of them, and over the random part of the rank, of what any bet pays is at most 1, whatever the
    values are and however they tie.
    """
    size = len(values) - 1
    table = bets(size)
    rows = table.both if both else table.down
    edges = sorted({0.0, 1.0, float(size), size + 1.0, *((size + 1) * i / BINS for i in range(BINS))})
    total = [0.0] * len(rows[0])
    for i, value in enumerate(values):
        baseline = Baseline(values[:i] + values[i + 1 :])
        low, high = baseline.interval(value)
        for first, second in pairwise(edges):
            share = max(0.0, min(high, second) - max(low, first)) / (high - low)
            if share:
                row = rows[baseline.row(value, ((first + second) / 2 - low) / (high - low))]
                total = [sum_ + share * paid for sum_, paid in zip(total, row, strict=True)]
    assert max(total) / len(values) <= 1.0 + 1e-9


@pytest.mark.parametrize("name", STATIONARY)
@pytest.mark.parametrize("length", [50, 300, 1000, 5000])
def test_stationary_noise_raises_no_more_alarms_than_promised(name: str, length: int) -> None:
    """At a level of 2,000 there may be 10 alarms in 20,000 observations.

    A CUSUM that is set to as many, from such a
    baseline, raises hundreds under heavy tails and autocorrelation (docs/detection.md).
    """
    rng = random.Random(f"{name} {length}")
    detector = RankEDetector(baseline_of(STATIONARY[name](rng, length)), alarm=2000, seed=1)
    values = STATIONARY[name](rng, 20_000)
    alarms = at = 0
    while at < len(values):
        at, judgement = detector.update_many(values, at)
        if judgement is not None:
            alarms += 1
            detector.reset()
    assert alarms <= 10


@pytest.mark.parametrize(
    ("sigma", "factor", "most"),
    [(0.1, 1.3, 20), (0.3, 1.3, 160), (0.5, 1.3, 450), (0.3, 3.0, 12), (1.0, 3.0, 120)],
)
def test_slower_calls_are_found_soon(sigma: float, factor: float, most: int) -> None:
    """At one alarm in 2e7. The floors are 5, 44, 122, 3 and 28 observations; without the feature there is no alarm."""
    for seed in range(3):
        rng = random.Random(seed)
        detector = RankEDetector(baseline_of(lognormal(sigma)(rng, 3000)), alarm=LEVEL, seed=seed)
        assert detector.update_many(lognormal(sigma)(rng, 2000))[1] is None
        count, judgement = _told(detector, lognormal(sigma, factor)(rng, 2000))
        assert count <= most
        assert judgement.direction == "up"
        assert judgement.evidence is not None
        assert judgement.evidence >= LEVEL
        assert abs(judgement.observations - count) <= max(10, count // 2)
        assert judgement.value > judgement.baseline


def test_faster_calls_are_found_too_unless_only_slower_ones_count() -> None:
    """A model that answers in a third of the time does not do its work; by default both sides count."""
    rng = random.Random(2)
    baseline, after = baseline_of(lognormal(0.3)(rng, 3000)), lognormal(0.3, 1 / 3)(rng, 1000)
    count, judgement = _told(RankEDetector(baseline, alarm=LEVEL), after)
    assert count <= 12
    assert judgement.direction == "down"
    assert judgement.change == pytest.approx(-2 / 3, abs=0.15)
    assert RankEDetector(baseline, alarm=LEVEL, sides="up").update_many(after)[1] is None
    assert RankEDetector(baseline, alarm=LEVEL, sides="down").update_many(after)[1] is not None


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_stalls_of_a_few_calls_are_found(margin: float) -> None:
    """One call in fifty takes twenty times as long; no median tells that, and the judgement names a far quantile."""
    rng = random.Random(3)
    detector = RankEDetector(baseline_of(lognormal(0.3)(rng, 3000)), alarm=LEVEL, margin=margin)
    count, judgement = _told(detector, stalls(0.02, 20.0)(rng, 3000))
    assert count <= 1500
    assert judgement.statistic == "p99"
    assert judgement.value > 5 * judgement.baseline


@pytest.mark.parametrize("phi", [0.2, 0.5, 0.8])
def test_autocorrelated_streams_change_visibly(phi: float) -> None:
    """Two standard deviations more are found, not far above Lorden's floor of 13, 26 and 76 calls."""
    rng = random.Random(4)
    baseline = baseline_of(autoregressive(phi)(rng, 3000))
    count, judgement = _told(RankEDetector(baseline, alarm=LEVEL), autoregressive(phi, 2.0)(rng, 2000))
    assert baseline.blocks.inflation > 1.2
    assert count <= {0.2: 60, 0.5: 120, 0.8: 400}[phi]
    assert judgement.observations <= count


def test_means_are_judged_where_single_calls_cannot_be() -> None:
    """A host whose moods last: calls are gathered, and a judgement counts whole blocks."""
    rng = random.Random(4)
    baseline = baseline_of(autoregressive(0.98)(rng, 5000))
    count, judgement = _told(RankEDetector(baseline, alarm=LEVEL), autoregressive(0.98, 6.0)(rng, 4000))
    assert baseline.blocks.size > 1
    assert count % baseline.blocks.size == judgement.observations % baseline.blocks.size == 0


def test_a_load_that_comes_and_goes_with_the_day_is_within_the_margin() -> None:
    """A baseline from the middle of a swing of 4%: with a margin of 5% it is silent. Without one it is a change."""
    baseline = baseline_of(lognormal(0.1)(random.Random(5), 3000))
    day = diurnal(0.04, 10_000)(random.Random(6), 30_000)
    assert RankEDetector(baseline, alarm=LEVEL, margin=0.05).update_many(day)[1] is None
    assert RankEDetector(baseline, alarm=LEVEL).update_many(day)[1] is not None


def test_a_constant_stream_is_silent_until_it_is_another_constant() -> None:
    """Ties are drawn at random, so the hardest case of ties is no case."""
    detector = RankEDetector(Baseline([7.0] * 1000), alarm=LEVEL)
    assert detector.update_many([7.0] * 20_000)[1] is None
    count, judgement = _told(detector, [8.0] * 100)
    assert count <= 12
    assert (judgement.value, judgement.baseline) == (8.0, 7.0)


def test_what_is_not_finite_is_passed_over() -> None:
    """NaN and infinities leave the evidence as it was; another detector counts them."""
    rng = random.Random(7)
    values = gaussian(rng, 500)
    spoilt = [value for one in values for value in (one, math.nan, math.inf, -math.inf)]
    baseline = baseline_of(gaussian(rng, 1000))
    clean, other = RankEDetector(baseline, alarm=LEVEL), RankEDetector(baseline, alarm=LEVEL)
    clean.update_many(values)
    other.update_many(spoilt)
    assert clean.suspicion == other.suspicion


def test_suspicion_grows_before_the_alarm() -> None:
    """From about 1, past any level between, to that of the alarm: what a closer comparison can wait for."""
    rng = random.Random(8)
    detector = RankEDetector(baseline_of(lognormal(0.3)(rng, 3000)), alarm=LEVEL)
    detector.update_many(lognormal(0.3)(rng, 1000))
    assert detector.suspicion < 100
    seen = []
    for value in lognormal(0.3, 1.3)(rng, 1000):
        told = detector.update(value)
        seen.append(detector.suspicion)
        if told:
            break
    assert any(1e3 < level < 1e5 for level in seen)


@pytest.mark.parametrize(
    "changed", [lognormal(0.3, 1.3), lognormal(0.3, 3.0), lognormal(0.3, 0.5), stalls(0.05, 20.0)]
)
def test_the_way_back_is_found_and_a_stream_that_stays_does_not_take_it(changed: Any) -> None:
    """Turned round, the detector says nothing while the change lasts, and tells soon after it is over."""
    rng = random.Random(9)
    detector = RankEDetector(baseline_of(lognormal(0.3)(rng, 3000)), alarm=LEVEL)
    _told(detector, changed(rng, 3000))
    detector.reverse()
    assert detector.update_many(changed(rng, 3000))[1] is None
    count, judgement = _told(detector, lognormal(0.3)(rng, 2000))
    assert judgement.returned
    assert count <= 800
    assert abs(judgement.observations - count) <= max(20, count // 2)


def test_a_model_and_shape_class_takes_less_than_20_kilobytes() -> None:
    """With a baseline of 5,000 observations, in all that is not shared."""
    detector = RankEDetector(baseline_of(gaussian(random.Random(10), 5000)), alarm=LEVEL)
    shared = {id(detector._bets)}
    size = 0
    todo: list[Any] = [detector, detector._baseline]
    for owner in list(todo):
        todo += [getattr(owner, name) for name in type(owner).__slots__]
    for item in todo:
        if id(item) not in shared:
            shared.add(id(item))
            size += sys.getsizeof(item)
            if isinstance(item, list):
                size += sum(map(sys.getsizeof, item))
    assert size < 20_000


def test_a_stream_has_random_ranks_of_its_own() -> None:
    """The same seed gives the same judgement, another one other ranks; the application's generator is not touched."""
    state = random.getstate()
    baseline, values = baseline_of(gaussian(random.Random(11), 100)), gaussian(random.Random(12), 200)
    one, same, other = (RankEDetector(baseline, alarm=LEVEL, seed=seed) for seed in (1, 1, 2))
    for detector in (one, same, other):
        detector.update_many(values)
    assert one.suspicion == same.suspicion != other.suspicion
    assert random.getstate() == state
