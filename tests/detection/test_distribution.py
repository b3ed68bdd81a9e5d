"""Sketches of tensors, and one detector over the numbers of a sketch."""

from __future__ import annotations

import math
import random

import pytest

from otel_quantmon.detection.distribution import SketchCollector, SketchDetector

LEVEL = 2e5


def _image(rng: random.Random, scale: float = 1.0) -> dict[str, float]:
    mean = rng.gauss(0.45, 0.08)
    spread = abs(rng.gauss(0.25, 0.04))
    return {"low": 0.0, "high": scale, "mean": scale * mean, "spread": scale * spread}


def _detector(rng: random.Random, size: int = 500) -> SketchDetector:
    collector = SketchCollector(size)
    for _ in range(size - 1):
        assert collector.add({**_image(rng), "never": math.nan}, 0.0) is None
    baselines = collector.add(_image(rng), 0.0)
    assert baselines is not None
    assert list(baselines) == ["low", "high", "mean", "spread"]
    return SketchDetector(baselines, alarm=LEVEL)


@pytest.mark.parametrize("scale", [1 / 255, 3.0, 0.8])
def test_inputs_of_another_scale_are_found(scale: float) -> None:
    """Within a dozen sampled calls, by name of the number that told; coming back is found as well."""
    rng = random.Random(1)
    detector = _detector(rng)
    assert detector.update_many([_image(rng) for _ in range(3000)])[1] is None
    count, judgement = detector.update_many([_image(rng, scale) for _ in range(100)])
    assert judgement is not None
    assert count <= 12
    assert judgement.stream in {"high", "mean", "spread"}
    assert judgement.direction == ("up" if scale > 1 else "down")
    detector.reverse()
    assert detector.update_many([_image(rng, scale) for _ in range(500)])[1] is None
    judgement = detector.update_many([_image(rng) for _ in range(200)])[1]
    assert judgement is not None
    assert judgement.returned
    assert judgement.stream


def test_a_loudness_over_decades_is_found_when_it_is_gone() -> None:
    """A voice with pauses, whose spread is three hundredths at the loudest, becomes quieter than its own silence."""
    rng = random.Random(2)

    def loudness() -> float:
        return rng.gauss(3e-3, 1e-4) if rng.random() < 0.3 else 3e-3 * math.exp(rng.uniform(0, 4))

    collector = SketchCollector(400)
    baselines = [collector.add({"spread": loudness()}, 0.0) for _ in range(400)][-1]
    assert baselines is not None
    detector = SketchDetector(baselines, alarm=LEVEL)
    assert detector.update_many([{"spread": loudness()} for _ in range(3000)])[1] is None
    count, judgement = detector.update_many([{"spread": loudness() / 255} for _ in range(100)])
    assert judgement is not None
    assert count <= 8


def test_a_state_that_is_none_is_refused() -> None:
    """By ValueError, so that a baseline is learnt anew."""
    with pytest.raises(ValueError):
        SketchDetector.baselines({"mean": 3})
    with pytest.raises(ValueError):
        SketchDetector.baselines({"mean": {"size": 2}})
