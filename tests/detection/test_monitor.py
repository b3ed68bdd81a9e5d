"""The one place that judges: what is left there is judged once, whoever reads, and told with its model."""

from __future__ import annotations

import random
import sys

import pytest

from detection.clock import Clock, kinds
from detection.streams import lognormal
from otel_quantmon.detection.life_cycle import ObservedCall
from otel_quantmon.detection.model_streams import Found
from otel_quantmon.detection.monitor import Monitor

MICROSECOND = 1000


def test_the_baseline_is_not_of_one_moment(clock: Clock) -> None:
    """A model that makes all calls of a baseline within seconds has none before half a minute has passed."""
    streams = clock.monitor.streams("m")
    clock.calls(streams, [1e-3] * 4000, gap=0.0)
    assert "latency_drift" not in streams.active()
    clock.calls(streams, [1e-3] * 4000, gap=0.02)
    assert "latency_drift" in streams.active()


def test_stalls_alone_can_be_looked_for(clock: Clock) -> None:
    """How long calls mostly take is learnt for that, and nothing is told of it."""
    streams = clock.monitor.streams("m", kinds=["stall"])
    noise, rng = lognormal(0.1), random.Random(2)
    clock.calls(streams, [1e-3 * one for one in noise(rng, 10_000)])
    assert streams.active() == {"stall": False}
    slow = [1e-3 * one * (20.0 if rng.random() < 0.05 else 1.0) for one in noise(rng, 600)]
    assert kinds(clock.calls(streams, slow)) == [("entered", "stall")]
    assert clock.calls(streams, [2.5e-3 * one for one in noise(rng, 600)]) == []
    assert streams.active() == {"stall": True}


def test_a_stream_that_fails_takes_nothing_with_it(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same model and of others: what they have found is told, and what comes later is judged as ever."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    first, broken, last = (clock.monitor.streams(name) for name in ("first", "broken", "last"))
    for at in (1.0, 100.0):
        for streams in (first, broken, last):
            # No number: whoever observes has failed.
            streams.read("relative_error", "y", None if streams is broken else 0.1, at)
            streams.fact("fallback", "CUDA", 1.0, at)
        told = clock.monitor.judge(at)
        assert [found.streams for found in told] == ([first, broken, last] if at == 1.0 else [])
    broken.over("fallback", 200.0)
    assert kinds(clock.monitor.judge(200.0)) == [("left", "fallback")]


def test_a_sketch_of_the_largest_numbers_is_judged(clock: Clock) -> None:
    """Masks of the least float64 in an input: their sum is no float."""
    streams, most = clock.monitor.streams("m"), sys.float_info.max
    for i in range(900):
        streams.read("input_distribution", "x", {"low": -most, "high": most if i % 2 else -most}, float(i))
        assert clock.judge() == []
    assert streams.active() == {"input_distribution": False}
    assert not streams.suspicious()


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
