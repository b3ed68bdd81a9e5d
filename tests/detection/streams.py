"""Synthetic streams with a known distribution, known change points, and a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.blocks import choose_blocks

Stream = Callable[[random.Random, int], list[float]]


def gaussian(rng: random.Random, count: int) -> list[float]:
    return [rng.gauss(0.0, 1.0) for _ in range(count)]


def lognormal(sigma: float, factor: float = 1.0) -> Stream:
    return lambda rng, count: [factor * math.exp(rng.gauss(0.0, sigma)) for _ in range(count)]


def bimodal(rng: random.Random, count: int) -> list[float]:
    return [rng.gauss(1.0 if rng.random() < 0.7 else 10.0, 0.2) for _ in range(count)]


def autoregressive(phi: float, shift: float = 0.0) -> Stream:
    """AR(1) around ``shift``, which is in standard deviations of the stream."""

    def stream(rng: random.Random, count: int) -> list[float]:
        spread = 1.0 / math.sqrt(1.0 - phi * phi)
        value, values = rng.gauss(0.0, spread), []
        for _ in range(count):
            value = phi * value + rng.gauss(0.0, 1.0)
            values.append(value + shift * spread)
        return values

    return stream


def diurnal(swing: float, period: int) -> Stream:
    """Lognormal noise under a load that comes and goes: the level swings by ``swing`` to both sides."""
    return lambda rng, count: [
        math.exp(rng.gauss(0.0, 0.1)) * (1.0 + swing * math.sin(2 * math.pi * i / period))
        for i in range(count)
    ]


def stalls(share: float, factor: float, sigma: float = 0.3) -> Stream:
    return lambda rng, count: [
        math.exp(rng.gauss(0.0, sigma)) * (factor if rng.random() < share else 1.0) for _ in range(count)
    ]


STATIONARY: dict[str, Stream] = {
    "gaussian": gaussian,
    "lognormal 0.3": lognormal(0.3),
    "lognormal 1": lognormal(1.0),
    "bimodal": bimodal,
    "ar 0.2": autoregressive(0.2),
    "ar 0.5": autoregressive(0.5),
    "ar 0.8": autoregressive(0.8),
}


def baseline_of(values: Sequence[float]) -> Baseline:
    blocks = choose_blocks(values)
    return Baseline(blocks.means(values), blocks)
