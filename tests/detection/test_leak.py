"""Memory: a leak is found and measured, ups and downs are not one, and only the model that leaks is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.detector import Judgement
from otel_quantmon.detection.leak import Envelope, Increment, LeakDetector, attribute, slope

ARENA = 132 * 1024
LEVEL = 2e7


class _Process:
    """Resident memory as an allocator makes it: grown in steps, spiked by calls in flight, given back now and then."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.used = 0.0
        self.top = 200 * 2**20
        self.calls = {"a": 0, "b": 0}

    def sample(self, calls: int, leak: float, model: str = "a") -> int:
        self.calls[model] += calls
        self.used += leak * calls
        while self.used > ARENA:
            self.used -= ARENA
            self.top += ARENA
        spike = self.rng.choice([0, 0, 0, ARENA, 4 * ARENA])
        return self.top + spike


def _increments(
    process: _Process, blocks: int, leak: Callable[[str], float], *, mixed: bool = False
) -> list[Increment]:
    """With ``mixed``, model b is called as well, in a proportion that changes."""
    envelope, found = Envelope(), list[Increment]()
    share, samples = 1.0, 0
    while len(found) < blocks:
        if mixed and samples % 20 == 0:
            share = process.rng.random()
        samples += 1
        model = "a" if process.rng.random() < share else "b"
        increment = envelope.add(process.calls, process.sample(16, leak(model), model))
        if increment is not None:
            found.append(increment)
    return found


def _warm(process: _Process) -> LeakDetector:
    increments = _increments(process, 64, lambda _: 0.0)
    return LeakDetector(Baseline([increment.growth for increment in increments]), alarm=LEVEL, least=100.0)


@pytest.mark.parametrize(("leak", "most"), [(10_240, 20), (1_024, 40)])
def test_a_leak_is_found_and_measured(leak: int, most: int) -> None:
    """Of 10 kB and of 1 kB a call, within so many blocks of 128 calls, with its size in bytes a call."""
    process = _Process(1)
    detector = _warm(process)
    increments = _increments(process, 60, lambda _: leak)
    count, judgement = detector.update_many([increment.growth for increment in increments])
    assert judgement is not None
    assert count <= most
    assert (judgement.statistic, judgement.direction, judgement.baseline) == ("mean", "up", 0.0)
    assert judgement.value == pytest.approx(leak, rel=0.4)
    assert judgement.observations == pytest.approx(count * 128, abs=4 * 128)
    assert slope(increments[:count]) == pytest.approx(leak, rel=0.3)


def test_a_warm_process_is_silent() -> None:
    """20,000 blocks, some 2.5 million calls, of spikes without a leak."""
    process = _Process(2)
    detector = _warm(process)
    growths = [increment.growth for increment in _increments(process, 20_000, lambda _: 0.0)]
    assert detector.update_many(growths)[1] is None


def test_a_model_that_is_loaded_is_no_leak() -> None:
    """Neither one step that nobody has told of, nor one that is skipped, is evidence enough."""
    process = _Process(3)
    detector = _warm(process)
    for _ in range(3):
        growths = [increment.growth for increment in _increments(process, 50, lambda _: 0.0)]
        assert detector.update_many([*growths, 80 * 2**20 / 128])[1] is None
    envelope = Envelope(calls=1, samples=1)
    assert envelope.add({"a": 0}, 100) is None
    assert envelope.add({"a": 1}, 100) is None
    assert envelope.add({"a": 2}, 110) == Increment(10.0, 10, {"a": 2}, 110, 2)
    envelope.skip()
    assert envelope.add({"a": 3}, 10**9) is None
    assert envelope.add({"a": 5}, 10**9 + 4) == Increment(2.0, 4, {"a": 2}, 10**9 + 4, 1)


def test_a_leak_that_ends_is_left() -> None:
    """Turned round, it finds the memory steady again."""
    process = _Process(4)
    detector = _warm(process)
    told = detector.update_many(
        [increment.growth for increment in _increments(process, 60, lambda _: 10_240)]
    )[1]
    assert told is not None
    detector.reverse()
    growths = [increment.growth for increment in _increments(process, 400, lambda _: 0.0)]
    judgement = detector.update_many(growths)[1]
    assert isinstance(judgement, Judgement)
    assert judgement.returned


def test_the_model_whose_calls_the_memory_follows_is_named() -> None:
    """Model a leaks, model b is called as well, in changing proportions."""
    increments = _increments(_Process(5), 64, lambda model: 4096.0 if model == "a" else 0.0, mixed=True)
    assert attribute(increments) == "a"


def test_no_model_is_named_where_nothing_tells_them_apart() -> None:
    """Not if both leak, not if only one is ever called and always as often, and not if memory grows by time alone."""
    assert attribute(_increments(_Process(6), 64, lambda _: 4096.0, mixed=True)) is None
    assert attribute(_increments(_Process(7), 64, lambda _: 4096.0)) is None
    by_time = [
        Increment(100.0, 12_800 + i % 3, {"a": 100 + i % 7, "b": 60 - i % 5}, 12_800 * i, 16 + i % 3)
        for i in range(64)
    ]
    assert attribute(by_time) is None
    assert attribute(by_time[:3]) is None


@settings(deadline=None)
@given(
    blocks=st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 2**40)), min_size=2, max_size=64),
)
def test_the_slope_is_theils(blocks: list[tuple[int, int]]) -> None:
    """The median over all pairs, as numpy computes it from the definition."""
    increments = [Increment(0.0, 0, {"a": calls}, low, 8) for calls, low in blocks]
    calls = np.cumsum([count for count, _ in blocks]).tolist()
    pairs = combinations(zip(calls, (low for _, low in blocks), strict=True), 2)
    assert slope(increments) == pytest.approx(np.median([(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs]))
