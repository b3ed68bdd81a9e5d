"""The benchmark of faults computes floors rightly, and makes its faults inside the observed call."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.faults.floors import LEVEL, divergence, floors, rate_floor
from benchmarks.faults.services import Below, Trouble
from detection.streams import autoregressive


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_the_divergence_of_two_samples_is_close_to_that_of_their_distributions(shift: float) -> None:
    """Of two normal distributions it is half of the squared shift; 16 bins keep most of that."""
    rng = random.Random(1)
    before, after = (
        [rng.gauss(0, 1) for _ in range(3000)],
        [rng.gauss(shift, 1) for _ in range(3000)],
    )
    assert divergence(before, after) == pytest.approx(shift**2 / 2, rel=0.2)


def test_samples_of_one_distribution_have_no_divergence() -> None:
    """What chance gives is no change, however few numbers there are."""
    rng = random.Random(2)
    pairs = [
        ([rng.gauss(0, 1) for _ in range(1000)], [rng.gauss(0, 1) for _ in range(count)])
        for count in (20, 100, 300)
        for _ in range(10)
    ]
    assert sum(divergence(before, after) > 0 for before, after in pairs) <= 1


def test_a_floor_counts_calls_where_only_some_are_looked_at() -> None:
    """One observation decides about values that were never seen; it comes once in ten calls."""
    streams = {"input high": {"before": [i / 100 for i in range(100)], "after": [50.0] * 100}}
    result = {"fault": "input ×3", "streams": streams, "healthy_calls": 1000, "checks": 100, "evaluations": 0}
    (floor,) = floors(result).values()
    assert floor % 10 == 0
    assert 10 <= floor <= 10 * math.ceil(math.log(LEVEL) / math.log(20))


def test_the_floor_of_a_stream_with_moods_is_farther() -> None:
    """AR(1) noise of 0.8 that moves by two standard deviations: nine times that of independent noise, which is 9."""
    rng = random.Random(3)

    def result(phi: float) -> dict[str, object]:
        before, after = autoregressive(phi)(rng, 3000), autoregressive(phi, 2.0)(rng, 3000)
        return {"fault": "latency ×3", "streams": {"seconds": {"before": before, "after": after}}}

    assert floors(result(0.0))["seconds"] == pytest.approx(9, abs=3)
    assert floors(result(0.8))["seconds"] == pytest.approx(81, rel=0.8)


def test_the_floor_of_errors_grows_as_they_are_rarer() -> None:
    """Twice as many errors halve it at least."""
    assert rate_floor(3000, 0.02) <= rate_floor(3000, 0.01) / 2


def test_what_goes_wrong_happens_below_the_observed_method() -> None:
    """A native object's run is kept but for the fault, and other methods are left alone."""

    class Native:
        def run(self, value: int) -> int:
            return value + 1

        def name(self) -> str:
            return "native"

    trouble = Trouble()
    below = Below(Native(), trouble)
    assert (below.run(1), below.name()) == (2, "native")
    trouble.errors = 1.0
    with pytest.raises(RuntimeError):
        below.run(1)
