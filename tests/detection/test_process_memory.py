"""Growth of memory belongs to the process, and is laid to the model whose calls it follows."""

from __future__ import annotations

import random

import pytest

from detection.clock import kinds
from otel_quantmon.detection.model_streams import Found
from otel_quantmon.detection.monitor import Monitor


def _leak(monitor: Monitor, leaking: str) -> list[Found]:
    """Two models in changing proportions, of which one leaks after half of the time."""
    rng, resident, told = random.Random(9), 100 << 20, list[Found]()
    calls = {"one": 0, "other": 0}
    for step in range(3000):
        made = {name: rng.randrange(1, 60) for name in calls}
        for name, count in made.items():
            calls[name] += count
        resident += made[leaking] * 10_240 if step > 1500 else 0
        told += monitor.memory(calls, resident + rng.randrange(1 << 16), float(step))
    return told


@pytest.mark.parametrize(
    ("one", "other", "leaking", "told"),
    [
        (None, None, "one", True),
        (["timeout"], ["timeout"], "one", False),
        (["timeout"], None, "one", False),
        (["timeout"], None, "other", True),
    ],
)
def test_growth_of_memory_is_told_of_models_that_want_it(
    one: list[str] | None, other: list[str] | None, leaking: str, told: bool
) -> None:
    """It is looked for while any of them does; how much it grows is measured all the same."""
    monitor = Monitor(1.0)
    kept = monitor.streams("one", kinds=one), monitor.streams("other", kinds=other)
    assert kinds(_leak(monitor, leaking)) == [("entered", "memory_growth")] * told
    assert monitor.growing() is (None if one == other is not None else told)
    assert monitor.growths()[leaking] > 1_000
    assert [streams.model for streams in kept] == ["one", "other"]


def test_memory_is_laid_to_the_model_whose_calls_it_follows() -> None:
    """Two models in changing proportions, of which one leaks 10 kB a call: it is named."""
    monitor = Monitor(1.0)
    one, other = monitor.streams("one"), monitor.streams("other")
    rng = random.Random(9)
    calls = {"one": 0, "other": 0}
    resident, told = 100 << 20, list[Found]()
    for step in range(3000):
        made = {"one": rng.randrange(1, 60), "other": rng.randrange(1, 60)}
        for name, count in made.items():
            calls[name] += count
        resident += made["one"] * 10_240 if step > 1500 else 0
        told += monitor.memory(calls, resident + rng.randrange(1 << 16), float(step))
        if told:
            break
    assert kinds(told) == [("entered", "memory_growth")]
    assert (told[0].streams, told[0].transition.model) == (one, "one")
    assert told[0].streams is not other
    # The leak begins at 1,500 s.
    assert 1300 < told[0].transition.since < told[0].transition.at
    assert monitor.growing()
    assert monitor.growths()["one"] > 0
