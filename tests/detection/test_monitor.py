"""The one place that judges: what is left there is judged once, whoever reads, and told with its model."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from detection.streams import lognormal
from otel_quantmon.detection.life_cycle import ObservedCall
from otel_quantmon.detection.model_streams import Found, ModelStreams
from otel_quantmon.detection.monitor import Monitor

MICROSECOND = 1000


class Clock:
    """Calls one after another, and a judgement after each batch of them."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.at = 1_000_000_000

    def calls(
        self, streams: ModelStreams, seconds: Sequence[float], of: str = "1.1", *, gap: float = 0.02
    ) -> list[Found]:
        """Feed durations in batches of 100 calls, ``gap`` seconds apart; what was found."""
        told: list[Found] = []
        for first in range(0, len(seconds), 100):
            ends: list[int] = []
            batch = [int(one * 1e9) for one in seconds[first : first + 100]]
            for duration in batch:
                self.at += duration + int(gap * 1e9)
                ends.append(self.at)
            streams.durations(of, ends, batch)
            streams.ended(len(batch))
            told += self.judge()
        return told

    def judge(self) -> list[Found]:
        return self.monitor.judge(self.at * 1e-9)


@pytest.fixture
def clock() -> Clock:
    return Clock(Monitor(1.0))


def kinds(told: Sequence[Found]) -> list[tuple[str, str]]:
    return [(found.transition.what, found.transition.kind) for found in told]


def test_slower_calls_are_a_change_and_a_new_shape_is_none(clock: Clock) -> None:
    """Each class of shapes has a baseline: larger inputs do not alarm, the same inputs at 1.5 times the time do."""
    streams = clock.monitor.streams("m")
    noise, rng = lognormal(0.1), random.Random(1)
    assert clock.calls(streams, [1e-3 * one for one in noise(rng, 4000)]) == []
    assert streams.active() == {"latency_drift": False, "error_rate": False}
    assert clock.calls(streams, [9e-3 * one for one in noise(rng, 500)], "1.9") == []
    (found,) = clock.calls(streams, [1.5e-3 * one for one in noise(rng, 100)])
    assert kinds([found]) == [("entered", "latency_drift")]
    assert found.streams is streams
    assert (found.transition.model, found.transition.baseline) == ("m", "learnt")
    assert found.transition.judgement.value == pytest.approx(1.5e-3, rel=0.1)
    assert found.transition.judgement.baseline == pytest.approx(1e-3, rel=0.1)
    assert streams.active()["latency_drift"]


def test_the_baseline_is_not_of_one_moment(clock: Clock) -> None:
    """A model that makes all calls of a baseline within seconds has none before half a minute has passed."""
    streams = clock.monitor.streams("m")
    clock.calls(streams, [1e-3] * 4000, gap=0.0)
    assert "latency_drift" not in streams.active()
    clock.calls(streams, [1e-3] * 4000, gap=0.02)
    assert "latency_drift" in streams.active()


def test_stalls_are_told_from_slower_calls(clock: Clock) -> None:
    """One call in twenty that takes twenty times as long is a stall: the others are as they were."""
    streams = clock.monitor.streams("m")
    noise, rng = lognormal(0.1), random.Random(2)
    clock.calls(streams, [1e-3 * one for one in noise(rng, 10_000)])
    assert streams.active()["stall"] is False
    slow = [1e-3 * one * (20.0 if rng.random() < 0.05 else 1.0) for one in noise(rng, 600)]
    assert kinds(clock.calls(streams, slow))[0] == ("entered", "stall")


def test_the_second_error_of_a_model_that_had_none_is_told_by_its_type(clock: Clock) -> None:
    """After a baseline without errors one is an accident, two are a fact; what it was is named."""
    streams = clock.monitor.streams("m")
    streams.ended(1000)
    streams.ended(1, ["ValueError"])
    assert clock.judge() == []
    streams.ended(1, ["ValueError"])
    assert kinds(found := clock.judge()) == [("entered", "error_rate")]
    assert found[0].transition.judgement.evidence is None
    assert streams.errors() == "ValueError"


def test_it_is_told_since_when_and_by_which_call(clock: Clock) -> None:
    """Of calls the one that decided, with the context that was given with it; and when the change began."""
    streams = clock.monitor.streams("m")
    noise, rng = lognormal(0.1), random.Random(12)
    assert clock.calls(streams, [1e-3 * one for one in noise(rng, 4000)]) == []
    before = clock.at * 1e-9
    for _ in range(3):
        ends = [clock.at + 20_000_000 * (i + 1) for i in range(4)]
        streams.shown([(end, f"span {end}") for end in ends])
        streams.durations("1.1", ends, [1_300_000] * 4)
        clock.at = ends[-1]
        found = clock.judge()
        if found:
            break
    (one,) = found
    call = one.transition.call
    assert call is not None
    assert (call.duration, call.context) == (1_300_000, f"span {call.end}")
    assert call.end == ends[one.transition.index]
    # The change is estimated, to the last call before it or so.
    assert before - 3.0 < one.transition.since <= clock.at * 1e-9


def test_an_error_is_told_with_its_call(clock: Clock) -> None:
    """The second failing call of a model that had none has decided, wherever in its batch it was."""
    streams = clock.monitor.streams("m")
    streams.ended(1000)
    clock.judge()
    calls = [ObservedCall(1, 10, "first"), ObservedCall(2, 20, "second")]
    streams.ended(100, ["E", "E"], failed=calls)
    (found,) = clock.judge()
    assert found.transition.call is calls[1]


def test_errors_that_were_always_there_are_none(clock: Clock) -> None:
    """A service that refuses one call in a hundred goes on doing so without an anomaly; one in ten is one."""
    streams = clock.monitor.streams("m")
    for _ in range(300):
        streams.ended(100, ["InvalidArgument"])
    assert clock.judge() == []
    for _ in range(20):
        streams.ended(100, ["InvalidArgument"] * 10)
    assert kinds(clock.judge()) == [("entered", "error_rate")]


def test_errors_of_one_batch_are_no_run_of_errors(clock: Clock) -> None:
    """Where errors lie in a batch is not known; that several are in one batch is no more than their number."""
    streams = clock.monitor.streams("m")
    rng = random.Random(3)
    for _ in range(2000):
        streams.ended(512, ["E"] * sum(rng.random() < 0.01 for _ in range(512)))
    assert clock.judge() == []


def test_facts_are_told_once_and_end(clock: Clock) -> None:
    """A lost provider is told until it is back; that a model has changed ends by itself after a minute."""
    streams = clock.monitor.streams("m")
    streams.fact("fallback", "CUDAExecutionProvider", 1.0, 1.0)
    streams.fact("model_changed", "", 1.0, 1.0)
    assert sorted(kinds(clock.monitor.judge(1.0))) == [("entered", "fallback"), ("entered", "model_changed")]
    streams.fact("fallback", "CUDAExecutionProvider", 1.0, 1.0)
    assert clock.monitor.judge(2.0) == []
    assert kinds(clock.monitor.judge(62.0)) == [("left", "model_changed")]
    assert streams.active() == {"fallback": True, "model_changed": False}


def test_a_fact_that_is_over_within_its_first_minute_is_left_at_its_end(clock: Clock) -> None:
    """It is said once that the provider is back, also where the loss was not judged yet; no later word is needed."""
    streams, soon = clock.monitor.streams("m"), clock.monitor.streams("soon")
    streams.fact("fallback", "CUDA", 1.0, 1.0)
    soon.fact("fallback", "CUDA", 1.0, 1.0)
    soon.over("fallback", 1.0)
    assert kinds(clock.monitor.judge(1.0)) == [("entered", "fallback")] * 2
    streams.over("fallback", 30.0)
    assert [clock.monitor.judge(at) for at in (30.0, 60.0)] == [[], []]
    assert streams.active()["fallback"]
    assert kinds(clock.monitor.judge(61.0)) == [("left", "fallback")] * 2
    # One that is lost again before it was over stays.
    for value, at in (1.0, 100.0), (0.0, 110.0), (1.0, 120.0):
        streams.fact("fallback", "CUDA", value, at)
        clock.monitor.judge(at)
    assert clock.monitor.judge(10_000.0) == []
    assert streams.active()["fallback"]


def test_reading_changes_nothing(clock: Clock) -> None:
    """Any number of readers of what is on, at any time, have no part in what is found."""
    noise = lognormal(0.1)
    found: list[list[tuple[str, float]]] = []
    for readers in (0, 2):
        monitor = Monitor(1.0)
        clock = Clock(monitor)
        streams = monitor.streams("m")
        rng = random.Random(4)
        told: list[Found] = []
        values = [1e-3 * one for one in noise(rng, 4000)] + [1.3e-3 * one for one in noise(rng, 400)]
        for first in range(0, len(values), 100):
            told += clock.calls(streams, values[first : first + 100])
            for _ in range(readers):
                streams.active()
                monitor.growths()
        found.append([(one.transition.kind, one.transition.at) for one in told])
    assert found[0] == found[1] != []


def test_types_and_the_least_change_are_the_models(clock: Clock) -> None:
    """A type that is not asked for is not looked for, and a change that is too small is not told."""
    noise, rng = lognormal(0.1), random.Random(5)
    some = clock.monitor.streams("some", kinds=["timeout"])
    assert clock.calls(some, [1e-3 * one for one in noise(rng, 4000)]) == []
    assert clock.calls(some, [3e-3 * one for one in noise(rng, 400)]) == []
    assert some.active() == {}
    least = clock.monitor.streams("least", least=0.5)
    clock.calls(least, [1e-3 * one for one in noise(rng, 4000)])
    assert clock.calls(least, [1.3e-3 * one for one in noise(rng, 400)]) == []
    assert kinds(clock.calls(least, [2e-3 * one for one in noise(rng, 400)])) == [
        ("entered", "latency_drift")
    ]


def test_what_waits_is_bounded(clock: Clock) -> None:
    """Of calls that come faster than they can be ranked, those of each interval that came first are."""
    streams = clock.monitor.streams("m")
    for _ in range(100):
        streams.durations("1.1", range(512), [1000] * 512)
        streams.ended(512)
    clock.judge()
    assert (streams.calls, streams.ranked) == (51_200, 512)


def test_many_models_share_what_is_ranked(clock: Clock) -> None:
    """With a hundred models each has a part of what one would have."""
    every = [clock.monitor.streams(f"m{i}") for i in range(100)]
    clock.judge()
    for streams in every:
        streams.durations("1.1", range(512), [1000] * 512)
    clock.judge()
    assert sum(streams.ranked for streams in every) == 1600


def test_a_suspicion_of_data_comes_before_the_alarm(clock: Clock) -> None:
    """The reference can look closer while half of the evidence is there."""
    streams = clock.monitor.streams("m")
    rng = random.Random(6)
    streams.ended(10_000)
    for i in range(100):
        streams.read("relative_error", "y", rng.uniform(0.01, 0.02), float(i))
    assert clock.judge() == []
    assert not streams.suspicious()
    suspected, call = 0, ObservedCall(7, 1, "its span")
    for i in range(200):
        streams.read("relative_error", "y", rng.uniform(0.05, 0.06), 100.0 + i, call)
        told = clock.judge()
        if told:
            assert kinds(told) == [("entered", "relative_error")]
            assert told[0].transition.call is call
            break
        suspected += streams.suspicious()
    assert suspected > 0
    assert i < 64


def test_calls_of_an_idle_service_are_no_anomaly(clock: Clock) -> None:
    """A baseline from busy traffic, then calls after pauses, of which one in five takes ten times as long: silence."""
    streams = clock.monitor.streams("m")
    noise, rng = lognormal(0.1), random.Random(2)
    assert clock.calls(streams, [1e-3 * one for one in noise(rng, 8000)]) == []
    idle = [1e-3 * one * (10.0 if rng.random() < 0.2 else 1.5) for one in noise(rng, 1000)]
    assert clock.calls(streams, idle, gap=0.2) == []


def test_a_baseline_of_samples_grows_while_all_is_well(clock: Clock) -> None:
    """It begins with a hundred, to be watched soon; each time there are twice as many it is made of all of them."""
    streams = clock.monitor.streams("m")
    rng = random.Random(8)
    sizes: list[int] = []
    for i in range(1000):
        streams.read("relative_error", "y", rng.gauss(0.02, 0.001), float(i))
        assert clock.judge() == []
        if streams.newly_learnt():
            sizes.append(streams.states()["relative_error"]["y"]["size"])
    assert sizes == [100, 200, 400, 800]


def test_a_baseline_does_not_grow_by_what_is_suspicious(clock: Clock) -> None:
    """Samples that have changed are no part of it."""
    streams = clock.monitor.streams("m")
    rng = random.Random(9)
    for i in range(150):
        streams.read("relative_error", "y", rng.gauss(0.02, 0.001), float(i))
    clock.judge()
    assert streams.newly_learnt()
    for i in range(150, 400):
        streams.read("relative_error", "y", rng.gauss(0.024, 0.001), float(i))
        clock.judge()
    assert not streams.newly_learnt()
    assert streams.active()["relative_error"]


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
