"""The sliding window of durations and their drift, against statistics computed anew from all calls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.monitors.latency import LatencyMonitor

SECOND = 1_000_000_000

CALLS = st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**11)), max_size=60)


def monitor(
    *, size: int = 1000, age: float = 1e6, baseline_calls: int = 3, baseline: float | None = None
) -> LatencyMonitor:
    return LatencyMonitor(size=size, age=age, baseline_calls=baseline_calls, baseline=baseline)


def at(durations: Sequence[float]) -> list[tuple[int, int]]:
    """Calls of these durations in seconds, one ending each second."""
    return [(i * SECOND, round(duration * SECOND)) for i, duration in enumerate(durations)]


def observe(watching: LatencyMonitor, calls: Sequence[tuple[int, int]]) -> None:
    """Feed ``calls``, each its end and its duration."""
    watching.observe([end for end, _ in calls], [duration for _, duration in calls])


@given(gaps=CALLS, size=st.integers(1, 40), age=st.integers(1, 20), wait=st.integers(0, 30 * SECOND))
def test_the_summary_is_that_of_the_last_calls_that_are_young_enough(
    gaps: list[tuple[int, int]], size: int, age: int, wait: int
) -> None:
    """Mean by numpy; each quantile is the smallest measured duration that covers its share (inverted ECDF)."""
    ends = np.cumsum([gap for gap, _ in gaps], dtype=np.int64).tolist()
    calls = [(end, duration) for end, (_, duration) in zip(ends, gaps, strict=True)]
    now = (ends[-1] if ends else 0) + wait
    window = [d * 1e-9 for end, d in calls[-size:] if end >= now - age * SECOND]
    observed = monitor(size=size, age=age, baseline_calls=10**6)
    observe(observed, calls)
    summary = observed.summary(now)
    if not window:
        assert summary is None
        return
    assert summary is not None
    assert summary.mean == pytest.approx(np.mean(window), rel=1e-12)
    expected = np.quantile(window, [0.5, 0.95, 0.99], method="inverted_cdf")
    assert [summary.p50, summary.p95, summary.p99] == expected.tolist()
    assert summary.drift is None


@given(calls=CALLS, cut=st.integers(0, 60), baseline_calls=st.integers(1, 30))
def test_it_does_not_matter_in_what_batches_calls_come(
    calls: list[tuple[int, int]], cut: int, baseline_calls: int
) -> None:
    """Baseline and window after two batches are those after one."""
    whole, parts = (monitor(baseline_calls=baseline_calls) for _ in range(2))
    observe(whole, calls)
    observe(parts, calls[:cut])
    observe(parts, calls[cut:])
    assert whole.baseline == parts.baseline
    assert whole.summary(0) == parts.summary(0)


def test_the_baseline_is_the_mean_of_the_first_calls() -> None:
    """Not of later ones; drift is the window's mean over it, minus 1."""
    observed = monitor(size=2, baseline_calls=3)
    observe(observed, at([1, 2]))
    assert observed.baseline is None
    observe(observed, at([3, 8, 10]))
    assert observed.baseline == pytest.approx(2.0)
    summary = observed.summary(10 * SECOND)
    assert summary is not None
    assert summary.drift == pytest.approx(9 / 2 - 1)


def test_a_baseline_that_is_given_is_not_learnt() -> None:
    """Drift is there from the first call on."""
    observed = monitor(baseline=0.5)
    observe(observed, at([1.0] * 10))
    assert observed.baseline == 0.5
    summary = observed.summary(0)
    assert summary is not None
    assert summary.drift == pytest.approx(1.0)


def test_a_window_that_has_aged_is_empty_and_fills_again() -> None:
    """A model that is not called any more has no window; its baseline stays."""
    observed = monitor(age=5, baseline_calls=1)
    observe(observed, at([1.0]))
    assert observed.summary(5 * SECOND) is not None
    assert observed.summary(5 * SECOND + 1) is None
    observe(observed, [(20 * SECOND, 3 * SECOND)])
    summary = observed.summary(20 * SECOND)
    assert summary is not None
    assert summary.drift == pytest.approx(2.0)


def test_a_baseline_of_zero_gives_no_drift() -> None:
    """A clock too coarse for the model must not end in a division by zero or an infinity."""
    observed = monitor(baseline_calls=1)
    observe(observed, [(0, 0), (1, SECOND)])
    summary = observed.summary(1)
    assert summary is not None
    assert summary.drift is None
    assert math.isfinite(summary.mean)
