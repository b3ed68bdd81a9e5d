"""A frozen baseline: as good as the whole sample, in a few kilobytes, and through JSON."""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.streams import autoregressive, gaussian, lognormal, stalls
from otel_quantmon.detection.baseline import Baseline, Collector
from otel_quantmon.detection.bets import BINS, BOTTOM, TOP
from otel_quantmon.detection.blocks import Blocks, choose_blocks

VALUES = st.lists(st.one_of(st.integers(-20, 20).map(float), st.floats(-1e9, 1e9)), min_size=2, max_size=1500)


@settings(deadline=None)
@given(values=VALUES, seed=st.integers(0, 1000))
def test_ranks_are_those_of_the_whole_sample(values: list[float], seed: int) -> None:
    """Either the interval of the rank is exactly that in the whole sample, or both lie in the same bin."""
    baseline, ordered = Baseline(values), sorted(values)
    scale = BINS / (len(values) + 1)
    rng = random.Random(seed)
    for value in [
        *rng.sample(values, min(50, len(values))),
        *(rng.uniform(-30, 30) for _ in range(20)),
        1e10,
        -1e10,
    ]:
        low, high = baseline.interval(value)
        whole_low, whole_high = bisect_left(ordered, value), bisect_right(ordered, value) + 1
        at = math.floor(whole_low * scale + 1e-9)
        in_one_bin = max(high, whole_high) * scale <= at + 1 + 1e-9 and at <= low * scale + 1e-9
        beyond = {whole_low < 1, whole_high > len(values)} & {True}
        assert (low, high) == (whole_low, whole_high) or (in_one_bin and not beyond)


@settings(deadline=None)
@given(values=VALUES)
def test_a_baseline_survives_json(values: list[float]) -> None:
    """What is kept between starts gives the same ranks."""
    baseline = Baseline(values)
    again = Baseline.from_state(json.loads(json.dumps(baseline.state())))
    assert again.state() == baseline.state()
    assert [again.interval(value) for value in values] == [baseline.interval(value) for value in values]


STATE = Baseline([1.0, 2.0, 2.0, 5.0]).state()


@settings(deadline=None)
@given(
    key=st.sampled_from(sorted(STATE)),
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.text(),
        st.integers(-3, 3),
        st.lists(st.integers(-3, 6), max_size=4),
        st.floats(),
    ),
)
def test_a_state_that_is_none_is_refused_or_usable(key: str, value: Any) -> None:
    """A file that someone has edited raises ValueError, or gives a baseline that ranks."""
    try:
        baseline = Baseline.from_state({**STATE, key: value})
    except ValueError:
        return
    low, high = baseline.interval(2.0)
    assert 0.0 <= low < high


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_too_little_is_no_baseline(values: list[float]) -> None:
    """There is no rank among fewer than two numbers."""
    with pytest.raises(ValueError):
        Baseline(values)


def test_quantiles_are_observations_of_the_sample() -> None:
    """As good as 256 bins can tell, and the ends exactly."""
    baseline = Baseline([float(i) for i in range(1, 1001)])
    assert baseline.quantile(0.0) == 1.0
    assert baseline.quantile(1.0) == 1000.0
    assert baseline.quantile(0.5) == pytest.approx(500, abs=4)
    assert baseline.quantile(0.99) == pytest.approx(990, abs=4)


def test_warm_up_is_left_out_and_nothing_after_a_pause() -> None:
    """Slow calls at the start never get into the baseline; a stream that is seen once an hour gets one as soon."""
    collector = Collector(50, warmup=5, span=0.0)
    found = [collector.add(1000.0 if i < 5 else 1.0 + i * 7 % 50 / 1000, 3600.0 * i) for i in range(55)]
    baseline = found.pop()
    assert found == [None] * 54
    assert baseline is not None
    assert baseline.size == 50
    assert baseline.quantile(1.0) < 2.0


@pytest.mark.parametrize("size", [1, 4, 16])
def test_numbers_near_the_largest_float_have_a_baseline(size: int) -> None:
    """Each is finite, their sum is not. What overflows by a margin has a rank, beyond all of the baseline."""
    most = sys.float_info.max
    baseline = Baseline(Blocks(size, 1.0).means([most, -most] * 8 + [most] * 16), Blocks(size, 1.0))
    assert baseline.quantile(1.0) == most
    assert baseline.row(math.inf, 0.5) == TOP
    assert baseline.row(-math.inf, 0.5) == BOTTOM
    assert Baseline.from_state(baseline.state()).state() == baseline.state()


def test_a_stream_that_is_settling_is_waited_for() -> None:
    """The first half, twice as slow, is dropped; the baseline is of the settled stream alone, and of the full size."""
    rng = random.Random(1)
    collector = Collector(1000, span=0.0)
    values = [*lognormal(0.1, 2.0)(rng, 500), *lognormal(0.1)(rng, 5000)]
    found = next(
        (i, baseline) for i, value in enumerate(values) if (baseline := collector.add(value, 0.0)) is not None
    )
    assert found[0] == 1499
    assert found[1].size == 1000
    assert found[1].quantile(1.0) < 1.6


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
def test_settled_streams_are_taken_at_once(phi: float) -> None:
    """Autocorrelated noise wanders, and is not taken for settling."""
    for seed in range(20):
        collector = Collector(1000, span=0.0)
        values = autoregressive(phi)(random.Random(seed), 1000)
        assert [collector.add(value, 0.0) for value in values][-1] is not None


@pytest.mark.parametrize("phi", [0.2, 0.5, 0.8])
def test_the_inflation_is_that_of_the_noise(phi: float) -> None:
    """AR(1) noise: (1 + phi) / (1 - phi), with a doubt on top; single calls are enough for it."""
    chosen = [choose_blocks(autoregressive(phi)(random.Random(seed), 3000)) for seed in range(9)]
    assert {blocks.size for blocks in chosen} == {1}
    assert 0.7 < statistics.median(blocks.inflation for blocks in chosen) * (1 - phi) / (1 + phi) < 1.8


def test_moods_of_a_host_are_seen_at_their_own_scale() -> None:
    """Calls next to each other hardly differ in it, and the mean of hundreds does: it is far more than their share."""
    rng = random.Random(2)
    values = [rng.gauss(0, 1) + 0.5 * (call // 200 % 2) for call in range(3000)]
    assert choose_blocks(values).inflation > 5
    rng.shuffle(values)
    assert choose_blocks(values).inflation < 1.5


def test_what_is_too_much_for_floats_is_gathered() -> None:
    """AR(1) noise of 0.98 has an inflation of 99."""
    blocks = choose_blocks(autoregressive(0.98)(random.Random(1), 5000))
    assert blocks.size > 1
    assert blocks.inflation <= 30


@pytest.mark.parametrize("stream", [gaussian, lognormal(1.0), stalls(0.02, 20.0)])
def test_independent_noise_has_no_blocks(stream: Any) -> None:
    """Heavy tails and stalls are not taken for autocorrelation; chance at the largest scales is, once in a while."""
    chosen = [choose_blocks(stream(random.Random(seed), 3000)) for seed in range(20)]
    assert {blocks.size for blocks in chosen} == {1}
    assert sum(blocks.inflation > 1.0 for blocks in chosen) <= 4


def test_a_fast_model_does_not_learn_from_one_moment() -> None:
    """10,000 calls a second: the baseline is of runs of 160 calls in a row, which are spread over three seconds."""
    collector = Collector(3000, span=3.0)
    taken: list[int] = []
    baseline = None
    for call in range(100_000):
        before = len(collector)
        baseline = collector.add(float(call % 100), call * 1e-4)
        if len(collector) > before:
            taken.append(call)
        if baseline is not None:
            break
    assert baseline is not None
    assert taken[:160] == list(range(160))
    assert [second - first > 1 for first, second in pairwise(taken)].count(True) == 18
    assert 30_000 <= taken[-1] < 30_200


@settings(deadline=None)
@given(
    ticks=st.lists(st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32, 2**40)), min_size=2, max_size=60),
    others=st.lists(st.floats(-1e300, 1e300), max_size=5),
    most=st.sampled_from([2**32, 2**41]),
)
def test_what_is_collected_is_kept_as_it_is(ticks: list[int], others: list[float], most: int) -> None:
    """Durations in whole nanoseconds take half the room of other numbers; of both not one bit is lost."""
    values = [*(tick * 1e-9 for tick in ticks if tick < most), *others]
    collector = Collector(100, span=0.0)
    for value in values:
        collector.add(value, 0.0)
    assert list(collector._gathered()) == values
    if not others and max(ticks) < 2**32:
        assert collector._values.itemsize == 4
