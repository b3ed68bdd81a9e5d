"""The sliding window of durations, and their drift from what calls of the same shapes took at first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.recording.latency import MAX_CLASSES, LatencyMonitor, Moved, middle_mean
from otel_quantmon.recording.sketch import Sketch

SECOND = 1_000_000_000

CALLS = st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**11)), max_size=60)

ONE: Moved = (1, 400, 40)


def monitor(
    *, size: int = 1000, age: float = 1e6, baseline_calls: int = 3, baseline: float | None = None
) -> LatencyMonitor:
    return LatencyMonitor(size=size, age=age, baseline_calls=baseline_calls, baseline=baseline)


def at(durations: Sequence[float]) -> list[tuple[int, int]]:
    """Calls of these durations in seconds, one ending each second."""
    return [(i * SECOND, round(duration * SECOND)) for i, duration in enumerate(durations)]


def observe(
    watching: LatencyMonitor, calls: Sequence[tuple[int, int]], moved: Sequence[Moved | None] | None = None
) -> None:
    """Feed ``calls``, each its end and its duration; of one shape unless ``moved`` says otherwise."""
    watching.observe(
        [end for end, _ in calls], [duration for _, duration in calls], moved or [ONE] * len(calls)
    )


def drift(watching: LatencyMonitor, now: int = 0) -> float | None:
    summary = watching.summary(now)
    assert summary is not None
    return summary.drift


def about(expected: float) -> object:
    """A drift is a ratio of durations, which are known within 1.1%."""
    return pytest.approx(expected, abs=0.0109 * (1 + expected))


@given(values=st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_the_middle_mean_is_the_mean_between_the_quartiles(values: list[float]) -> None:
    """As many as a quarter, rounded down, are left out at either end."""
    cut = len(values) // 4
    expected = np.mean(sorted(values)[cut : len(values) - cut])
    assert middle_mean(sorted(values)) == pytest.approx(expected, rel=1e-12, abs=1e-300)


@given(calls=CALLS.filter(bool))
def test_the_summary_is_that_of_the_calls_in_the_window(calls: list[tuple[int, int]]) -> None:
    """The mean is exact; a quantile is the least duration that covers its share, within the sketch's error."""
    observed = monitor(baseline_calls=10**6)
    observe(observed, calls)
    summary = observed.summary(0)
    assert summary is not None
    durations = [duration * 1e-9 for _, duration in calls]
    assert summary.mean == pytest.approx(np.mean(durations), rel=1e-12)
    spread = Sketch()
    spread.add([duration for _, duration in calls])
    expected = np.quantile(durations, [0.5, 0.95, 0.99], method="inverted_cdf")
    found = [summary.p50, summary.p95, summary.p99]
    assert found == pytest.approx(expected, rel=spread.relative_error * (1 + 1e-9), abs=0)
    assert summary.drift is None


@given(gaps=CALLS, size=st.integers(1, 40), age=st.integers(1, 20), wait=st.integers(0, 30 * SECOND))
def test_the_window_holds_the_last_calls_and_up_to_a_quarter_more(
    gaps: list[tuple[int, int]], size: int, age: int, wait: int
) -> None:
    """The mean is that of as many of the last calls as the window may hold, by number and by age."""
    ends = np.cumsum([gap for gap, _ in gaps], dtype=np.int64).tolist()
    durations = [duration for _, duration in gaps]
    now = (ends[-1] if ends else 0) + wait
    observed = monitor(size=size, age=age, baseline_calls=10**6)
    observe(observed, list(zip(ends, durations, strict=True)))
    least = min(size, sum(end >= now - age * SECOND for end in ends))
    most = min(size + math.ceil(size / 4) - 1, sum(end >= now - 1.25 * age * SECOND for end in ends))
    summary = observed.summary(now)
    if summary is None:
        assert least == 0
        return
    means = [np.mean(durations[-count:]) * 1e-9 for count in range(max(1, least), most + 1)]
    assert any(summary.mean == pytest.approx(mean, rel=1e-12) for mean in means)


@given(
    calls=CALLS,
    sizes=st.lists(st.sampled_from([None, ONE, (8, 3200, 40)]), min_size=60, max_size=60),
    cut=st.integers(0, 60),
    baseline_calls=st.integers(1, 30),
)
def test_it_does_not_matter_in_what_batches_calls_come(
    calls: list[tuple[int, int]], sizes: list[Moved | None], cut: int, baseline_calls: int
) -> None:
    """Baselines and window after two batches are those after one."""
    moved = sizes[: len(calls)]
    whole, parts = (monitor(baseline_calls=baseline_calls) for _ in range(2))
    observe(whole, calls, moved)
    observe(parts, calls[:cut], moved[:cut])
    observe(parts, calls[cut:], moved[cut:])
    assert [whole.baseline(one) for one in moved] == [parts.baseline(one) for one in moved]
    assert whole.summary(0) == parts.summary(0)


def test_the_baseline_is_learnt_from_the_first_calls() -> None:
    """Not from later ones; drift is the window's mean over it, minus 1."""
    observed = monitor(size=2, baseline_calls=3)
    observe(observed, at([1, 2]))
    assert observed.baseline(ONE) is None
    observe(observed, at([3, 8, 10]))
    assert observed.baseline(ONE) == pytest.approx(2.0)
    assert drift(observed, 10 * SECOND) == about(9 / 2 - 1)


def test_a_baseline_that_is_given_is_not_learnt() -> None:
    """Drift is there from the first call on, of calls of any shape and of none that is known."""
    observed = monitor(baseline=0.5)
    observe(observed, at([1.0] * 10), [ONE, None] * 5)
    assert observed.baseline(ONE) == observed.baseline() == 0.5
    assert drift(observed) == about(1.0)


def test_a_baseline_that_is_adopted_holds_for_its_shapes_alone() -> None:
    """A golden baseline tells how long calls of its own shapes took, and nothing of others."""
    observed = monitor(baseline_calls=100)
    observed.adopt(0.5, ONE)
    observe(observed, at([1.0]), [(8, 3200, 40)])
    assert drift(observed) is None
    observe(observed, at([1.0]))
    assert drift(observed) == about(1.0)
    assert observed.baseline((8, 3200, 40)) is None


def test_a_mix_of_batch_sizes_that_changes_is_no_drift() -> None:
    """From batches of 1 alone to all from 1 to 8, each as much slower as it is larger: nothing has changed."""
    observed = monitor(baseline_calls=100)
    observe(observed, at([0.001] * 1000))
    assert drift(observed) == about(0.0)
    rng = np.random.default_rng(11)
    for _ in range(20):
        batches = rng.integers(1, 9, size=200).tolist()
        observe(observed, at([0.001 * n for n in batches]), [(n, 400 * n, 40 * n) for n in batches])
        assert drift(observed) == about(0.0)
    batches = rng.integers(1, 9, size=1000).tolist()
    observe(observed, at([0.0013 * n for n in batches]), [(n, 400 * n, 40 * n) for n in batches])
    assert drift(observed) == about(0.3), "what slows all of them down is found all the same"


def test_sequences_that_grow_are_no_drift() -> None:
    """Lengths from 16 to 512 at a cost of their square, as attention has: less than a fifth within a class."""
    observed = monitor(baseline_calls=50)
    for _ in range(60):
        for length in range(16, 513, 7):
            observe(observed, [(0, length * length)], [(None, 4 * length, 4)])
        found = drift(observed)
        assert found is None or abs(found) < 0.2
    assert found is not None


@pytest.mark.parametrize("baseline_calls", [20, 100, 1000])
def test_outliers_make_neither_a_baseline_nor_a_drift(baseline_calls: int) -> None:
    """One call in ten a thousand times as long: the baseline is what the others take, and nothing has drifted."""
    rng = np.random.default_rng(5)
    typical = rng.normal(70e-6, 2e-6, size=6000)
    stopped = rng.random(6000) < 0.1
    observed = monitor(size=1000, baseline_calls=baseline_calls)
    for part in np.split(np.where(stopped, typical * 1000, typical), 60):
        observe(observed, at(part.tolist()), None)
        found = drift(observed)
        assert found is None or abs(found) < 0.05
    assert observed.baseline(ONE) == pytest.approx(70e-6, rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_a_real_drift_is_found_among_outliers(seed: int) -> None:
    """Half as slow again, with one call in ten stopped before and after, reads as 0.5."""
    rng = np.random.default_rng(seed)
    observed = monitor(size=1000, baseline_calls=100)
    for slow in (1.0, 1.5):
        durations = rng.lognormal(np.log(70e-6 * slow), 0.1, size=1000)
        durations[rng.random(1000) < 0.1] *= 1000
        observe(observed, at(durations.tolist()))
    assert drift(observed) == pytest.approx(0.5, abs=0.06)


def test_calls_of_unknown_shapes_are_no_part_of_the_drift() -> None:
    """Of a model whose shapes change, a call that tells none could be of any; the window has it all the same."""
    observed = monitor(baseline_calls=1)
    observe(observed, at([1.0, 1.0]), [None, None])
    assert drift(observed) is None
    observe(observed, at([2.0, 9.0]), [ONE, None])
    assert drift(observed) == about(0.0)


def test_there_are_only_so_many_classes() -> None:
    """Sizes without end take no memory without end: what comes after the first classes is not judged."""
    observed = monitor(baseline_calls=1)
    observe(observed, at([1.0] * MAX_CLASSES), [(n, 2**40, 0) for n in (2**i for i in range(MAX_CLASSES))])
    assert drift(observed) == about(0.0)
    late: Moved = (1, 2**50, 0)
    observe(observed, at([1.0] * 5000), [late] * 5000)
    assert observed.baseline(late) is None
    assert drift(observed) is None, "the window holds none but those"
    for size in range(1, 50_000):
        observed.baseline((size, size, size))
    assert len(observed._remembered) <= 1024


def test_a_window_that_has_aged_is_empty_and_fills_again() -> None:
    """A model that is not called any more has no window; its baseline stays."""
    observed = monitor(age=5, baseline_calls=1)
    observe(observed, at([1.0]))
    assert observed.summary(5 * SECOND) is not None
    assert observed.summary(5 * SECOND + 1) is None
    observe(observed, [(20 * SECOND, 3 * SECOND)])
    assert drift(observed, 20 * SECOND) == about(2.0)


def test_a_baseline_of_zero_gives_no_drift() -> None:
    """A clock too coarse for the model must not end in a division by zero or an infinity."""
    observed = monitor(baseline_calls=1)
    observe(observed, [(0, 0), (1, SECOND)])
    summary = observed.summary(1)
    assert summary is not None
    assert summary.drift is None
    assert math.isfinite(summary.mean)
