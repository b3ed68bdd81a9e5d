"""Each class of shapes has its part of what is ranked, a baseline, and its own calls in the budget."""

from __future__ import annotations

import random

import pytest

from detection.clock import Clock, kinds
from detection.streams import lognormal
from otel_quantmon.detection.model_streams import Found


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


def test_a_model_that_is_called_each_minute_is_watched(clock: Clock) -> None:
    """Its calls come after pauses, and are compared with each other."""
    streams = clock.monitor.streams("m")
    noise, rng = lognormal(0.1), random.Random(15)
    assert clock.calls(streams, [1e-3 * one for one in noise(rng, 3100)], gap=60.0) == []
    assert streams.active()["latency_drift"] is False
    slow = clock.calls(streams, [2e-3 * one for one in noise(rng, 100)], gap=60.0)
    assert kinds(slow) == [("entered", "latency_drift")]


def test_one_class_of_shapes_does_not_keep_another_from_being_watched(clock: Clock) -> None:
    """Two that are called by turns, in a process with many models: both learn, and what becomes slower is told."""
    every = [clock.monitor.streams(f"m{i}") for i in range(20)]
    streams, rng, told = every[0], random.Random(16), list[Found]()
    for interval in range(400):
        clock.at += 100_000_000
        ends = [clock.at + 1_000_000 * i for i in range(50)]
        for of, base in ("1.1", 1e5), ("1.9", 5e5 if interval < 390 else 1e6):
            streams.durations(of, ends, [int(base * rng.lognormvariate(0.0, 0.1)) for _ in ends])
        streams.ended(100)
        told += clock.judge()
    assert kinds(told) == [("entered", "latency_drift")]
    assert told[0].transition.of.startswith("1.9")


def test_classes_of_shapes_do_not_multiply_false_alarms(clock: Clock) -> None:
    """Each has the level of one that sees as many of its own calls: all, with eight classes as with one."""
    one, eight = clock.monitor.streams("one"), clock.monitor.streams("eight")
    noise, rng = lognormal(0.1), random.Random(17)
    for _ in range(35):
        clock.calls(one, [1e-3 * value for value in noise(rng, 100)])
        for of in range(8):
            clock.calls(eight, [1e-3 * value for value in noise(rng, 100)], f"1.{of}")
    shares = one.shares()["latency_drift"], eight.shares()["latency_drift"]
    assert [set(by_class.values()) for by_class in shares] == [{1.0}, {1.0}]
    assert {f"1.{of}" for of in range(8)} <= shares[1].keys()


def test_calls_of_an_idle_service_are_no_anomaly(clock: Clock) -> None:
    """A baseline from busy traffic, then calls after pauses, of which one in five takes ten times as long: silence."""
    streams = clock.monitor.streams("m")
    noise, rng = lognormal(0.1), random.Random(2)
    assert clock.calls(streams, [1e-3 * one for one in noise(rng, 8000)]) == []
    idle = [1e-3 * one * (10.0 if rng.random() < 0.2 else 1.5) for one in noise(rng, 1000)]
    assert clock.calls(streams, idle, gap=0.2) == []


def test_many_models_share_what_is_ranked(clock: Clock) -> None:
    """With a hundred models each has a part of what one would have."""
    every = [clock.monitor.streams(f"m{i}") for i in range(100)]
    clock.judge()
    for streams in every:
        streams.durations("1.1", range(512), [1000] * 512)
    clock.judge()
    assert sum(streams.ranked for streams in every) == 1600


def test_what_waits_is_bounded(clock: Clock) -> None:
    """Of calls that come faster than they can be ranked, those of each interval that came first are."""
    streams = clock.monitor.streams("m")
    for _ in range(100):
        streams.durations("1.1", range(512), [1000] * 512)
        streams.ended(512)
    clock.judge()
    assert (streams.calls, streams.ranked) == (51_200, 512)
