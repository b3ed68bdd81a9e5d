"""The robust slope of resident memory per call, against the estimator as its source defines it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.monitors.memory import GrowthMonitor

SAMPLES = st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 2**40)), min_size=5, max_size=40)


@given(steps=SAMPLES, size=st.integers(5, 30))
def test_the_slope_is_theils(steps: list[tuple[int, int]], size: int) -> None:
    """The median over all pairs of the last samples, as numpy computes it from the definition."""
    monitor = GrowthMonitor(size)
    calls = np.cumsum([step for step, _ in steps]).tolist()
    samples = [(count, memory) for count, (_, memory) in zip(calls, steps, strict=True)]
    for sample in samples:
        monitor.observe(*sample)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(samples[-size:], 2)]
    assert monitor.slope() == pytest.approx(np.median(slopes), rel=1e-12)


@given(slope=st.integers(-1000, 100_000), wrong=st.lists(st.integers(-(2**34), 2**34), max_size=5))
def test_a_steady_leak_is_found_in_spite_of_outliers(slope: int, wrong: list[int]) -> None:
    """With 5 of 30 samples off by anything, two thirds of the pairs are right, and so is their median."""
    monitor = GrowthMonitor()
    off = dict(zip((3, 9, 14, 20, 26), wrong, strict=False))
    for i in range(30):
        monitor.observe(i * 100, 10**9 + slope * i * 100 + off.get(i, 0))
    # C(25, 2) = 300 of C(30, 2) = 435 pairs.
    assert monitor.slope() == pytest.approx(slope)


def test_one_trim_of_the_allocator_is_no_leak() -> None:
    """A step in otherwise level memory has slope zero."""
    monitor = GrowthMonitor()
    for i in range(20):
        monitor.observe(i, 10**8 - (10**7 if i == 10 else 0))
    assert monitor.slope() == 0


def test_few_samples_say_nothing() -> None:
    """Four are none; the fifth gives a slope."""
    monitor = GrowthMonitor()
    for i in range(4):
        monitor.observe(i, 1000 * i)
    assert monitor.slope() is None
    monitor.observe(4, 4000)
    assert monitor.slope() == 1000


def test_a_sample_without_a_new_call_is_not_taken() -> None:
    """An idle model's collections neither divide by zero nor push real samples out."""
    monitor = GrowthMonitor(5)
    for i in range(5):
        monitor.observe(i, 1000 * i)
    for _ in range(100):
        monitor.observe(4, 10**9)
    assert monitor.slope() == 1000
