"""The speed-up: who runs when, what is timed, and when no value is given. All by clocks that the test sets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.fidelity.numerics.speedup import (
    FEWEST_ROUNDS,
    SHORTEST,
    rounds_within,
    speedup,
    time_in_turns,
)


class Runs:
    """Two models on a clock that only their runs advance.

    Attributes:
        now: in seconds.
        order: letters of the models that have run, with the number that each was given.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[tuple[str, int]] = []

    def model(self, letter: str, seconds: Callable[[int], float]) -> Callable[[int], object]:
        def run(number: int) -> None:
            self.order.append((letter, number))
            self.now += seconds(len(self.order))

        return run


def test_both_run_once_before_anything_is_timed_and_then_in_turns() -> None:
    """One run of each that does not count, however long it takes; after that the first one changes with each round."""
    runs = Runs()
    f = runs.model("f", lambda count: 9.0 if count <= 2 else 2.0)
    q = runs.model("q", lambda count: 9.0 if count <= 2 else 1.0)
    durations = time_in_turns(f, q, lambda: runs.now, spend=0.0, most=32)
    assert "".join(letter for letter, _ in runs.order) == "fq" + "fqqf" * 2
    assert [number for _, number in runs.order] == [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3]
    assert durations == ([2.0] * 4, [1.0] * 4)


def test_one_model_against_itself_is_as_fast_as_itself_though_the_first_run_is_slower() -> None:
    """The first run of each round takes two thirds longer, as measured: neither side has it more often."""
    runs = Runs()
    one = runs.model("m", lambda count: 1.0 if count % 2 == 0 else 1.63)
    assert speedup(*time_in_turns(one, one, lambda: runs.now, spend=100.0, most=32)) == pytest.approx(1.0)


def test_no_round_begins_after_a_no() -> None:
    """A limit on the clock of the wall is looked at between rounds: what has been timed by then is given."""
    runs = Runs()
    f, q = (runs.model(letter, lambda _: 1.0) for letter in "fq")
    durations = time_in_turns(f, q, lambda: runs.now, spend=1000.0, most=32, proceed=lambda: runs.now < 6.0)
    assert durations == ([1.0, 1.0], [1.0, 1.0])


@given(seconds=st.floats(0, 100), one=st.floats(0, 100), most=st.integers(FEWEST_ROUNDS, 400))
def test_the_rounds_are_even_and_bounded(seconds: float, one: float, most: int) -> None:
    """As many as the time allows, an even number from 4 to the most; a clock that stands still gives the most."""
    rounds = rounds_within(seconds, one, most)
    assert rounds % 2 == 0
    assert FEWEST_ROUNDS <= rounds <= most
    if FEWEST_ROUNDS < rounds < most - 1:
        assert rounds * one <= seconds * (1 + 1e-9) < (rounds + 2) * one * (1 + 2e-9)


def test_a_pair_of_rounds_that_the_machine_has_stopped_changes_nothing() -> None:
    """The median over pairs: neither a run nor a pair that took a thousand times as long is what the models take."""
    assert speedup([2.0, 2.0, 2.0, 2000.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1000.0, 1.0]) == 2.0


def test_a_machine_that_slows_down_slows_both() -> None:
    """From pair to pair everything takes twice as long: the ratio stays."""
    assert speedup([3.0, 3.0, 6.0, 6.0, 12.0, 12.0], [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]) == 3.0


@pytest.mark.parametrize(
    ("reference", "quantized"),
    [
        ([], []),
        ([1.0] * 4, [1.0] * 3),
        ([1.0] * 9, []),
        ([SHORTEST * 9] * 9, [SHORTEST * 0.9] * 9),
        ([SHORTEST * 0.9] * 9, [SHORTEST * 9] * 9),
    ],
)
def test_no_value_is_given_of_few_rounds_or_of_short_runs(
    reference: list[float], quantized: list[float]
) -> None:
    """Fewer than four of either, or a median below the shortest run that is more than the call: None."""
    assert speedup(reference, quantized) is None


def test_the_shortest_run_that_has_a_value() -> None:
    """At the threshold itself there is one."""
    assert speedup([2 * SHORTEST] * 4, [SHORTEST] * 4) == 2.0
