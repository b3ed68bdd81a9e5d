"""Evidence on counts: fair under no change, found under one, back again, and the same when it is gone on with."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.detection.detector import Judgement
from otel_quantmon.detection.pooled import Counts, Evidence, PooledBaseline, Watch

WATCH = Watch(1e6, "up", margin=0.05)
BOTH = Watch(1e6, "both", spread=0.1)


def counts(values: list[float]) -> Counts:
    return sorted(Counter(values).items())


def draw(rng: random.Random, number: int, factor: float = 1.0) -> Counts:
    """Numbers as errors are spread, in buckets of two digits."""
    return counts([float(f"{rng.lognormvariate(-4, 0.5) * factor:.2g}") for _ in range(number)])


def run(
    evidence: Evidence, baseline: PooledBaseline, watch: Watch, batches: list[Counts]
) -> list[tuple[int, Judgement]]:
    found = []
    for number, batch in enumerate(batches):
        said = evidence.update(batch, baseline, watch)
        if said is not None:
            found.append((number, said))
    return found


@given(st.integers(2, 900), st.floats(1.0, 30.0))
def test_no_bet_gains_where_all_ranks_are_as_likely(size: int, inflation: float) -> None:
    """Whatever the size of the baseline: the mean payment over all ranks is at most 1, and that of parts adds up."""
    baseline = PooledBaseline([(float(value), 1) for value in range(size)], WATCH, inflation)
    mean = baseline._table._mean
    for rows in baseline._table._paid:
        whole = mean(rows, 0.0, size + 1.0)
        assert whole <= 1.0 + 1e-9
        parts = [mean(rows, float(rank), rank + 1.0) for rank in range(size + 1)]
        assert math.fsum(parts) / len(parts) == pytest.approx(whole)


@pytest.mark.parametrize("watch", [WATCH, BOTH])
def test_without_a_change_there_is_no_alarm(watch: Watch) -> None:
    """2,000 batches of any size from the distribution of the baseline, for ten baselines."""
    for seed in range(10):
        rng = random.Random(seed)
        baseline = PooledBaseline(draw(rng, 200), watch)
        batches = [draw(rng, rng.choice((1, 3, 20))) for _ in range(200)]
        assert run(Evidence(), baseline, watch, batches) == []


@pytest.mark.parametrize(("factor", "direction"), [(2.0, "up"), (0.4, "down")])
def test_a_change_is_found_and_its_end_too(factor: float, direction: str) -> None:
    """Once each: in the direction of the change, with the values of both sides; smaller is no change of an error."""
    rng = random.Random(1)
    baseline = PooledBaseline(draw(rng, 200), BOTH)
    batches = [draw(rng, 4) for _ in range(50)] + [draw(rng, 4, factor) for _ in range(60)]
    batches += [draw(rng, 4) for _ in range(200)]
    (at, entered), (back, left) = run(Evidence(), baseline, BOTH, batches)
    assert 50 <= at < 75
    assert (entered.direction, entered.returned, left.returned) == (direction, False, True)
    assert entered.evidence is not None
    assert entered.evidence >= 1e6
    assert entered.value / entered.baseline == pytest.approx(factor, rel=0.3)
    assert 110 <= back < 200
    if direction == "down":
        assert run(Evidence(), PooledBaseline(draw(rng, 200), WATCH), WATCH, batches) == []


def test_what_is_written_down_goes_on_as_if_nothing_had_been() -> None:
    """After each batch through JSON: the same judgements and the same state as without."""
    rng = random.Random(2)
    baseline = PooledBaseline(draw(rng, 150), WATCH)
    batches = [draw(rng, 3, 3.0 if 20 <= number < 60 else 1.0) for number in range(150)]
    straight, resumed = Evidence(), Evidence()
    for batch in batches:
        resumed = Evidence.from_state(json.loads(json.dumps(resumed.state())))
        assert resumed.update(batch, baseline, WATCH) == straight.update(batch, baseline, WATCH)
        assert resumed.state() == straight.state()


@given(st.permutations(range(12)))
def test_the_order_within_a_batch_does_not_matter(order: list[int]) -> None:
    """Payments are multiplied, so a batch is worth what its parts are."""
    rng = random.Random(3)
    baseline = PooledBaseline(draw(rng, 100), BOTH)
    values = [value for value, count in draw(rng, 12, 1.5) for _ in range(count)]
    whole = baseline.paid(counts(values))
    parts = [0.0] * len(whole)
    for number in order:
        parts = [a + b for a, b in zip(parts, baseline.paid([(values[number], 1)]), strict=True)]
    assert parts == pytest.approx(whole)
