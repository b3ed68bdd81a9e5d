"""Every detector of numbers on every kind of noise, with short and long baselines: silent until there is a change.

Types differ by side, margin and tolerance; the noise lies where those do not matter.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from detection.streams import STATIONARY, Stream, baseline_of, diurnal
from otel_quantmon.detection.detector import Detector
from otel_quantmon.detection.registry import KINDS

LEVEL = 1e6
NOISE: dict[str, Stream] = {**STATIONARY, "diurnal": diurnal(0.02, 2000)}
OF_NUMBERS = [kind for kind, one in KINDS.items() if one.observation in ("value", "sketch", "growth")]


def observed(kind: str, values: list[float]) -> list[Any]:
    """Numbers as the detector of a type is fed with them."""
    return [{"mean": value} for value in values] if KINDS[kind].observation == "sketch" else values


def watching(kind: str, noise: str, length: int) -> tuple[Detector[Any], Callable[[int, float], list[Any]]]:
    """A detector with a baseline of so many observations, and what makes more: a number of them, moved so far.

    Around 100, so that a margin of a twentieth is 5, some standard deviations of none of these.
    """
    rng = random.Random(f"{kind} {noise} {length}")
    stream = NOISE[noise]

    def more(count: int, moved: float) -> list[Any]:
        return observed(kind, [100.0 + moved + value for value in stream(rng, count)])

    values = [100.0 + value for value in stream(rng, length)]
    state = baseline_of(values).state()
    given = {"mean": state} if KINDS[kind].observation == "sketch" else state
    return KINDS[kind].make(json.loads(json.dumps(given)), LEVEL, 1), more


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("kind", OF_NUMBERS)
@pytest.mark.parametrize("length", [50, 5000])
def test_noise_alone_is_no_change_and_a_change_in_it_is_one(kind: str, noise: str, length: int) -> None:
    """3,000 observations without an alarm at a level of a million; then a change point, at any of which it is found.

    The change is of 400 on a level of 100, up or down, far beyond all of the noise; how soon it is found follows from
    the length of the baseline and from the blocks that autocorrelation asks for.
    """
    detector, more = watching(kind, noise, length)
    assert detector.update_many(more(3000, 0.0)) == (3000, None)
    moved = -400.0 if kind in ("cosine", "speedup") else 400.0
    # Of memory a kilobyte in 128 calls is no leak yet.
    count, judgement = detector.update_many(more(3000, 10.0 * moved if kind == "memory_growth" else moved))
    assert judgement is not None
    assert judgement.direction == ("down" if moved < 0 else "up")
    assert count < 3000
