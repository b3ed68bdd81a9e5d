"""The sliding window: never less than what is promised, and at most a quarter more."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.recording.sketch import Sketch
from otel_quantmon.recording.window import SlidingWindow

CALLS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10**9)), max_size=200)
CUTS = st.lists(st.integers(0, 200), max_size=5)


def times_of(gaps: list[int]) -> list[int]:
    return [sum(gaps[: i + 1]) for i in range(len(gaps))]


def in_batches(window: SlidingWindow, times: list[int], values: list[int], cuts: list[int]) -> None:
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(times)], strict=True):
        add(window, times[start:end], values[start:end])


def add(window: SlidingWindow, times: list[int], values: list[int]) -> list[int]:
    """Of one kind."""
    return window.add(times, values, [0] * len(values))


def read(window: SlidingWindow, now: int) -> Sketch | None:
    found = window.read(now)
    assert set(found) <= {0}
    return found.get(0)


@given(calls=CALLS, cuts=CUTS, size=st.integers(1, 60), age=st.integers(4, 800), wait=st.integers(0, 100))
def test_it_holds_the_last_calls_and_up_to_a_quarter_more(
    calls: list[tuple[int, int]], cuts: list[int], size: int, age: int, wait: int
) -> None:
    """It is always a sketch of a run of the last calls: as many as promised, none past a quarter more of both."""
    times, values = times_of([gap for gap, _ in calls]), [value for _, value in calls]
    now = (times[-1] if times else 0) + wait
    window = SlidingWindow(size, age)
    in_batches(window, times, values, cuts)
    found = read(window, now)
    count = found.count if found is not None else 0
    young = sum(time >= now - age for time in times)
    assert min(size, young) <= count <= size + -(-size // 4) - 1
    assert count <= sum(time >= now - age - age // 4 for time in times)
    if found is not None:
        expected = Sketch()
        expected.add(values[len(values) - count :])
        assert found.to_wire() == expected.to_wire()


@given(calls=CALLS, cuts=CUTS, size=st.integers(1, 60))
def test_it_does_not_matter_in_what_batches_calls_come(
    calls: list[tuple[int, int]], cuts: list[int], size: int
) -> None:
    """One batch, or several, or several with readings between: the same window."""
    times, values = times_of([gap for gap, _ in calls]), [value for _, value in calls]
    whole, parts = SlidingWindow(size, 400), SlidingWindow(size, 400)
    add(whole, times, values)
    in_batches(parts, times, values, cuts)
    now = times[-1] if times else 0
    one, other = read(whole, now), read(parts, now)
    assert (one and one.to_wire()) == (other and other.to_wire())


@given(values=st.lists(st.integers(0, 10**9), max_size=100), size=st.integers(1, 60))
def test_values_are_given_back_in_runs(values: list[int], size: int) -> None:
    """All of them, for whoever wants them sorted too."""
    runs = add(SlidingWindow(size, 1000), [0] * len(values), values)
    assert sorted(runs) == sorted(values)
    parts = -(-len(values) // -(-size // 4))
    assert sum(one > other for one, other in itertools.pairwise(runs)) < max(1, parts)


def test_a_window_that_nobody_reads_does_not_grow() -> None:
    """By number and by age, the parts are few."""
    fast, slow = SlidingWindow(1000, 10**12), SlidingWindow(1_000_000, 1000)
    for now in range(0, 50_000, 50):
        add(fast, [now] * 50, [1] * 50)
        add(slow, [now] * 50, [1] * 50)
    assert len(fast._parts) <= 6
    assert len(slow._parts) <= 6


def test_a_sketch_that_was_read_shows_later_calls_only_in_the_next_one() -> None:
    """What a reader holds does not change under it."""
    window = SlidingWindow(4, 100)
    add(window, [0, 1], [10, 20])
    before = read(window, 1)
    add(window, [2], [30])
    assert before is not None
    assert before.total == 30
    after = read(window, 2)
    assert after is not None
    assert after.total == 60


@pytest.mark.parametrize("late", [0, 1, 7])
def test_threads_may_end_out_of_order(late: int) -> None:
    """Times that go back a little lose and keep no value."""
    window = SlidingWindow(100, 1000)
    add(window, [300, 300 - late, 600, 600 - late, 601], [1, 2, 3, 4, 5])
    found = read(window, 601)
    assert found is not None
    assert (found.count, found.total) == (5, 15)


@given(
    calls=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 3)), max_size=100),
    cut=st.integers(0, 100),
)
def test_each_kind_has_a_sketch_of_its_own(calls: list[tuple[int, int]], cut: int) -> None:
    """Together they are as many as the window holds; none is empty."""
    window = SlidingWindow(1000, 1000)
    for batch in (calls[:cut], calls[cut:]):
        window.add([0] * len(batch), [value for value, _ in batch], [kind for _, kind in batch])
    found = window.read(0)
    assert set(found) == {kind for _, kind in calls}
    for kind, sketch in found.items():
        expected = Sketch()
        expected.add([value for value, of in calls if of == kind])
        assert sketch.to_wire() == expected.to_wire()
