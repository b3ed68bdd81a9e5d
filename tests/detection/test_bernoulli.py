"""Rates of events: the bets are fair at any rate up to the bound, the second error is a fact, and all of it heals."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_quantmon.detection.bernoulli import FactDetector, RateDetector, rate_state
from otel_quantmon.detection.bets import upper_rate
from otel_quantmon.detection.detector import Judgement

LEVEL = 2e7


def _trials(rng: random.Random, rate: float, count: int) -> list[float]:
    return [float(rng.random() < rate) for _ in range(count)]


@settings(deadline=None)
@given(trials=st.integers(1, 5000), data=st.data())
def test_no_bet_wins_in_the_mean_up_to_the_bound(trials: int, data: st.DataObject) -> None:
    """At any rate that the baseline allows, and at the bound itself, the mean of each payment is at most 1."""
    events = data.draw(st.integers(0, trials))
    rate = data.draw(st.floats(0.0, 1.0)) * min(upper_rate(events, trials), 0.999)
    detector = RateDetector(events, trials, alarm=LEVEL)
    for win, loss in zip(detector._wins, detector._losses, strict=True):
        assert rate * win + (1 - rate) * loss <= 1.0 + 1e-9


@settings(deadline=None)
@given(values=st.lists(st.booleans(), max_size=60), runs=st.lists(st.integers(0, 300), max_size=5))
def test_a_run_without_events_counts_as_so_many_trials(values: list[bool], runs: list[int]) -> None:
    """One by one or all at once, the evidence is the same."""
    one, other = (RateDetector(3, 1000, alarm=1e300) for _ in range(2))
    for value, run in zip(values, [*runs, *([0] * len(values))], strict=False):
        one.update(float(value))
        other.update(float(value))
        one.pass_over(run)
        for _ in range(run):
            other.update(0.0)
            assert other.suspicion > 0.0  # it is asked in between, and stays what it is
    assert one.suspicion == pytest.approx(other.suspicion, rel=1e-9)


def test_the_evidence_is_a_mean_of_cusums() -> None:
    """As the definition says, trial by trial: each sum starts anew from 1 where it has fallen below."""
    rng = random.Random(1)
    detector = RateDetector(100, 10_000, alarm=1e300)
    sums = [1.0] * len(detector._wins)
    for value in _trials(rng, 0.05, 2000):
        detector.update(value)
        paid = detector._wins if value else detector._losses
        sums = [max(e, 1.0) * p for e, p in zip(sums, paid, strict=True)]
        assert detector.suspicion == pytest.approx(sum(sums) / len(sums), rel=1e-9)


def test_the_second_error_of_a_model_that_had_none_is_a_fact() -> None:
    """No statistics are waited for, and the judgement says so by having no e-value."""
    detector = RateDetector(0, 3000, alarm=LEVEL)
    assert detector.update_many([0.0] * 100 + [1.0] + [0.0] * 49)[1] is None
    assert detector.update(1.0) == Judgement(
        evidence=None, value=2 / 51, baseline=0.0, statistic="rate", direction="up", observations=51
    )


def test_what_cannot_happen_by_chance_is_a_fact_at_once() -> None:
    """The first NaN where there was none."""
    judgement = RateDetector(0, 100, alarm=LEVEL, certain_after=1).update(1.0)
    assert judgement is not None
    assert judgement.evidence is None


def test_a_model_with_errors_is_not_judged_by_its_second_one() -> None:
    """Two in a thousand are usual here, and stay silent for as long as they do."""
    rng = random.Random(2)
    detector = RateDetector(6, 3000, alarm=LEVEL)
    assert detector.update_many(_trials(rng, 0.002, 200_000))[1] is None


@pytest.mark.parametrize(
    ("usual", "after", "most"), [(0.0, 0.02, 1500), (0.001, 0.02, 1500), (0.01, 0.1, 400)]
)
def test_more_errors_than_usual_are_found(usual: float, after: float, most: int) -> None:
    """By evidence alone, with the rate since the change, and about since when."""
    rng = random.Random(3)
    detector = RateDetector(round(usual * 10_000), 10_000, alarm=LEVEL, certain_after=0)
    assert detector.update_many(_trials(rng, usual, 5000))[1] is None
    count, judgement = detector.update_many(_trials(rng, after, 10_000))
    assert judgement is not None
    assert count <= most
    assert judgement.evidence is not None
    assert judgement.evidence >= LEVEL
    assert judgement.value == pytest.approx(after, rel=0.6)
    assert abs(judgement.observations - count) <= count // 2


@pytest.mark.parametrize(("usual", "after"), [(0, 0.02), (10, 0.05), (100, 0.1)])
def test_a_rate_that_stays_is_not_left_and_one_that_falls_is(usual: int, after: float) -> None:
    """Turned round, it waits for as long as the errors go on."""
    rng = random.Random(4)
    detector = RateDetector(usual, 10_000, alarm=LEVEL)
    assert detector.update_many(_trials(rng, after, 10_000))[1] is not None
    detector.reverse()
    assert detector.update_many(_trials(rng, after, 5000))[1] is None
    _, judgement = detector.update_many(_trials(rng, usual / 10_000, 10_000))
    assert judgement is not None
    assert judgement.returned
    assert judgement.value <= after / 5


def test_after_its_errors_a_model_is_one_that_had_some() -> None:
    """The fact is told once; two errors in a long time are then no change."""
    detector = RateDetector(0, 3000, alarm=LEVEL)
    detector.update_many([1.0, 1.0])
    detector.reverse()
    judgement = detector.pass_over(100_000)
    assert judgement is not None
    assert judgement.returned
    detector.reset()
    assert detector.update_many([1.0, *([0.0] * 500), 1.0])[1] is None


@pytest.mark.parametrize(("events", "trials"), [(-1, 10), (11, 10), (0, 0)])
def test_what_is_no_count_is_refused(events: int, trials: int) -> None:
    """By the detector, and as a state."""
    with pytest.raises(ValueError):
        RateDetector(events, trials, alarm=LEVEL)
    with pytest.raises(ValueError):
        rate_state({"events": events, "trials": trials})


def test_a_fact_is_told_at_once_and_over_when_it_is() -> None:
    """A provider is lost, and comes back."""
    detector = FactDetector(returned_after=2)
    assert detector.update_many([0.0, 0.0, math.nan]) == (3, None)
    judgement = detector.update(2.0)
    assert judgement == Judgement(None, 2.0, 0.0, "fact", "up", 1)
    detector.reverse()
    assert detector.update_many([0.0, 2.0, 0.0]) == (3, None)
    judgement = detector.update(0.0)
    assert judgement is not None
    assert judgement.returned


def test_a_rate_is_known_better_the_longer_nothing_happens() -> None:
    """Stalls in 2% of calls: after a baseline of 3,000 they take over 500 calls, after 50,000 more half as many."""
    delays = []
    for healthy in (0, 50_000):
        found = []
        for seed in range(5):
            rng = random.Random(seed)
            detector = RateDetector(0, 3000, alarm=LEVEL, certain_after=0)
            assert detector.pass_over(healthy) is None
            count, judgement = detector.update_many(_trials(rng, 0.02, 5000))
            assert judgement is not None
            found.append(count)
        delays.append(sorted(found)[2])
    assert delays[0] > 400
    assert delays[1] < 300
    assert RateDetector(0, 3000, alarm=LEVEL).state() == {"events": 0, "trials": 3000}


def test_what_is_suspicious_is_not_learnt() -> None:
    """Errors that begin just before the baseline would be extended do not become usual."""
    rng = random.Random(6)
    detector = RateDetector(1, 3000, alarm=LEVEL)
    detector.update_many([0.0] * 2900 + _trials(rng, 0.02, 150))
    assert detector.suspicion > 2.0
    assert detector.state() == {"events": 1, "trials": 3000}
    assert detector.update_many(_trials(rng, 0.02, 5000))[1] is not None
    assert detector.state() == {"events": 1, "trials": 3000}


def test_trials_that_are_usual_are_learnt_with_their_events() -> None:
    """A baseline that has grown is kept as such, and begins again from there after a reset."""
    rng = random.Random(7)
    detector = RateDetector(3, 3000, alarm=LEVEL)
    values = _trials(rng, 0.001, 50_000)
    assert detector.update_many(values)[1] is None
    state = detector.state()
    assert state["trials"] >= 24_000
    assert state["events"] == pytest.approx(state["trials"] * 0.001, rel=0.5)
    detector.reset()
    assert detector.state() == state
