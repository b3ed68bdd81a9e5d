"""Calls in a row are only evidence one by one if they are no more alike than any others."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import onnxruntime
import pytest
from detection.streams import autoregressive
from exported import Exported
from hypothesis import given
from hypothesis import strategies as st
from runtimes.models import doubling

from fidelity.waiting import evaluate, fidelity_of, outcomes, settle, until
from otel_quantmon.fidelity.autocorrelation import PAIRS, Autocorrelation, rank_correlation
from otel_quantmon.process.worker import worker


def independent(rng: random.Random) -> Iterator[float]:
    while True:
        yield rng.lognormvariate(0, 1)


def scenes(rng: random.Random) -> Iterator[float]:
    """Film: each scene has a brightness of its own, and each picture noise, half of it all."""
    while True:
        brightness = rng.gauss(0, 1)
        for _ in range(100):
            yield brightness + rng.gauss(0, 1)


def waves(rng: random.Random) -> Iterator[float]:
    return iter(autoregressive(0.9)(rng, 4_000))


def alike(stream: Iterator[float], constant: float | None = None) -> bool | None:
    """What is found of pairs that are 50 calls apart."""
    found = Autocorrelation()
    for _ in range(PAIRS):
        first, second = ({"mean": next(stream)} for _ in range(2))
        if constant is not None:
            first["low"] = second["low"] = constant
        found.add(first, second)
        for _ in range(50):
            next(stream)
    return found.alike


@pytest.mark.parametrize(("stream", "share"), [(independent, 0.02), (scenes, 0.5), (waves, 0.99)])
def test_what_is_alike_is_found(stream: Callable[[random.Random], Iterator[float]], share: float) -> None:
    """Of independent calls next to none are taken for alike; of sound all are, of noisy film at least half."""
    found = [alike(stream(random.Random(seed))) for seed in range(200)]
    assert None not in found
    if stream is independent:
        assert sum(map(bool, found)) <= share * 200
    else:
        assert sum(map(bool, found)) >= share * 200


def test_a_film_whose_first_pairs_are_of_one_scene_is_found_out() -> None:
    """Within a scene only noise varies, and pictures in a row look independent; pairs over minutes show the scenes."""
    rng = random.Random(3)
    film = Autocorrelation()
    for _ in range(PAIRS):
        film.add({"mean": rng.gauss(0, 1)}, {"mean": rng.gauss(0, 1)})
    assert film.alike is False
    for _ in range(PAIRS):
        scene = rng.gauss(0, 5)
        film.add({"mean": scene + rng.gauss(0, 1)}, {"mean": scene + rng.gauss(0, 1)})
    assert film.alike is True


def test_a_number_that_never_varies_says_nothing() -> None:
    """Beside others it is left out; where nothing varies it is not known whether calls in a row are alike."""
    assert alike(independent(random.Random(1)), constant=0.0) is False
    still = Autocorrelation()
    for _ in range(3 * PAIRS):
        still.add({"low": 0.0}, {"low": 0.0})
    assert still.alike is None


@given(pairs=st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=2, max_size=50))
def test_a_rank_correlation_is_one_of_ranks(pairs: list[tuple[float, float]]) -> None:
    """From -1 to 1, the same both ways round, and unchanged where an order is."""
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    found = rank_correlation(first, second)
    assert found == rank_correlation(second, first)
    if found is not None:
        assert -1.0 - 1e-9 <= found <= 1.0 + 1e-9
        assert rank_correlation(first, first) == pytest.approx(1.0)
        assert rank_correlation(first, [-one for one in first]) == pytest.approx(-1.0)
        # Twice as much is exact, so that none become equal.
        assert rank_correlation(first, [2.0 * one for one in second]) == found


def test_calls_that_are_alike_are_not_looked_at_one_after_the_other(
    square: str, instrument: Callable[..., None], exported: Exported
) -> None:
    """As windows of one sound are: a burst of them would be one observation 64 times over, and a false alarm."""
    instrument(reference={"*": square}, reference_budget=1e-6, check_budget=1.0, span_budget=0.0)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    phase = count()

    def run() -> None:
        loudness = 3.0 + math.sin(next(phase) / 50)
        session.run(None, {"x": np.array([[loudness, loudness / 2, 1.0]], np.float32)})

    evaluate(exported, run, 1)
    assessment = fidelity_of(exported)
    assert not assessment.signals.begin_checks(1000.0), "not before it is known"
    until(lambda: assessment.signals.autocorrelation.alike is not None, run)
    assert assessment.signals.autocorrelation.alike
    worker.submit(lambda: assessment.look_closer(1000.0))
    for _ in range(50):
        run()
        settle()
    assert sum(outcomes(exported).values()) <= 2
