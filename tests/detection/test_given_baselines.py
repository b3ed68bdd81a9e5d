"""Baselines that are there before any call: kept, recorded, or of the process that was forked."""

from __future__ import annotations

import random
from typing import Any

import pytest

from detection.clock import Clock, kinds
from detection.streams import lognormal
from otel_quantmon.detection.baseline import Baseline
from otel_quantmon.detection.model_streams import ModelStreams


def test_baselines_go_on_after_a_restart(clock: Clock) -> None:
    """What was kept is watched from the first call on, and says so; what is no baseline is learnt."""
    streams = clock.monitor.streams("m")
    noise, rng = lognormal(0.1), random.Random(7)
    clock.calls(streams, [1e-3 * one for one in noise(rng, 4000)])
    assert streams.newly_learnt()
    assert not streams.newly_learnt()
    states = streams.states()
    again = clock.monitor.streams("m")
    again.begin({**states, "timeout": {"": {"events": "many"}}, "unheard of": {"": {}}}, "kept")
    (found,) = clock.calls(again, [2e-3 * one for one in noise(rng, 100)])
    assert (found.transition.kind, found.transition.baseline) == ("latency_drift", "kept")


@pytest.mark.parametrize(
    "states",
    [
        {"input_distribution": {"x": {}}},
        {"input_distribution": {"x": {"low": {}}}},
        {"nonfinite": {"x": {"events": 0, "trials": 10**400}}},
        {"nonfinite": {"x": {"events": 0, "trials": 10**300}}},
    ],
)
def test_a_kept_baseline_of_nonsense_is_learnt_anew(clock: Clock, states: dict[str, Any]) -> None:
    """As a file may say that another program has written into."""
    streams = clock.monitor.streams("m")
    streams.begin(states, "kept")
    streams.read("input_distribution", "x", {"low": 1.0}, 1.0)
    streams.read("nonfinite", "x", 0.0, 1.0)
    assert clock.judge() == []
    assert not streams.suspicious()
    assert streams.active() == {}
    assert streams.states() == {}


def _errors(streams: ModelStreams, clock: Clock, low: float, high: float, most: int) -> int | None:
    """One call in 100 is compared; how many until there is an anomaly."""
    rng = random.Random(11)
    for i in range(most):
        streams.ended(100)
        streams.read("relative_error", "y", rng.uniform(low, high), float(i))
        if clock.judge():
            return i + 1
    return None


def test_a_kept_baseline_of_what_is_sampled_has_the_level_of_its_sampling(clock: Clock) -> None:
    """One call in a hundred is compared, before the restart and after it: as little evidence is an alarm as before.

    Told for every call, the level would be a hundred times as high, and the same change would take longer.
    """
    streams = clock.monitor.streams("m")
    assert _errors(streams, clock, 0.010, 0.020, 300) is None
    states, shares = streams.states(), streams.shares()
    assert shares["relative_error"]["y"] == pytest.approx(0.01)
    delays: list[int | None] = []
    for given in (shares, {}):
        again = clock.monitor.streams("m")
        again.begin(states, "kept", given)
        delays.append(_errors(again, clock, 0.016, 0.022, 90))
    with_shares, without = delays
    assert with_shares is not None
    assert without is None or with_shares < without
    # Once it was seen often enough here, it has that level all the same.
    assert _errors(again, clock, 0.010, 0.020, 300) is None
    assert again.shares() == shares


def test_a_recorded_baseline_stays(clock: Clock) -> None:
    """Where one was learnt before it came, and would have been made of more observations later."""
    streams, rng = clock.monitor.streams("m"), random.Random(19)
    recorded = Baseline([rng.uniform(0.01, 0.02) for _ in range(100)]).state()
    for i in range(900):
        if i == 110:
            streams.begin({"relative_error": {"y": recorded}}, "recorded")
        streams.read("relative_error", "y", rng.uniform(0.01, 0.02), float(i))
        assert clock.judge() == []
    assert streams.states()["relative_error"]["y"] == recorded


def test_after_a_fork_nothing_is_told_twice(clock: Clock) -> None:
    """The child has the baselines, but neither what waited nor what was on."""
    streams = clock.monitor.streams("m")
    noise, rng = lognormal(0.1), random.Random(8)
    clock.calls(streams, [1e-3 * one for one in noise(rng, 4000)])
    streams.fact("fallback", "x", 1.0, 1.0)
    clock.judge()
    streams.fact("model_changed", "", 1.0, 1.0)
    clock.monitor.reset()
    assert clock.judge() == []
    assert streams.active() == {}
    assert kinds(clock.calls(streams, [2e-3 * one for one in noise(rng, 100)])) == [
        ("entered", "latency_drift")
    ]


def test_a_child_does_not_learn_what_is_on_in_its_parent(clock: Clock) -> None:
    """It goes on with the baseline from before the anomaly, and finds it by itself; so does the next process."""
    streams, rng = clock.monitor.streams("m"), random.Random(18)
    for i in range(300):
        low, high = (0.01, 0.02) if i < 150 else (0.05, 0.06)
        streams.read("relative_error", "y", rng.uniform(low, high), float(i))
    assert kinds(clock.judge()) == [("entered", "relative_error")]
    state = streams.states()["relative_error"]["y"]
    assert max(state["cuts"]) < 0.02
    clock.monitor.reset()
    assert streams.states()["relative_error"]["y"] == state
    for i in range(300, 400):
        streams.read("relative_error", "y", rng.uniform(0.05, 0.06), float(i))
    assert kinds(clock.judge()) == [("entered", "relative_error")]
