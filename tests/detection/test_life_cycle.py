"""Entered, stays, left: hysteresis, flapping, the least change worth telling, and one event for many models."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from detection.streams import baseline_of, lognormal
from otel_quantmon.detection.bernoulli import FactDetector, RateDetector
from otel_quantmon.detection.detector import Judgement
from otel_quantmon.detection.e_detector import RankEDetector
from otel_quantmon.detection.life_cycle import Bulletin, LifeCycle, Transition


def _latency(least: float = 0.0) -> LifeCycle[float]:
    baseline = baseline_of(lognormal(0.3)(random.Random(1), 3000))
    return LifeCycle(RankEDetector(baseline, alarm=2e7), kind="latency_drift", model="m", least=least)


def _run(cycle: LifeCycle[float], values: list[float], begin: float, step: float = 0.1) -> list[Transition]:
    told = [cycle.update(value, begin + step * i) for i, value in enumerate(values)]
    return [transition for transition in told if transition is not None]


def test_an_anomaly_is_entered_once_and_left_once() -> None:
    """However long it lasts, there is one event at each end, and the state between them."""
    rng = random.Random(2)
    cycle = _latency()
    assert _run(cycle, lognormal(0.3)(rng, 2000), 0.0) == []
    (entered,) = _run(cycle, lognormal(0.3, 3.0)(rng, 3000), 200.0)
    assert (entered.what, entered.kind, entered.model) == ("entered", "latency_drift", "m")
    assert entered.judgement.evidence is not None
    assert entered.judgement.evidence >= 2e7
    assert 200.0 < entered.at < 205.0
    assert cycle.active == entered.judgement
    (left,) = _run(cycle, lognormal(0.3)(rng, 3000), 500.0)
    assert left.what == "left"
    assert left.judgement.returned
    assert 500.0 < left.at < 560.0
    assert left.lasted == left.at - entered.at
    assert cycle.active is None


def test_a_batch_tells_which_observation_decided() -> None:
    """So that the trace of that call can be named."""
    rng = random.Random(3)
    cycle = _latency()
    healthy = lognormal(0.3)(rng, 100)
    (entered,) = cycle.update_many([*healthy, *lognormal(0.3, 3.0)(rng, 100)], 1.0)
    assert 100 <= entered.index < 112


def test_a_short_anomaly_is_held() -> None:
    """What is over within a second stays raised for a minute, so that a gauge that is read now and then shows it."""
    rng = random.Random(4)
    cycle = _latency()
    (entered,) = _run(cycle, lognormal(0.3, 3.0)(rng, 12), 0.0, step=0.01)
    (left,) = _run(cycle, lognormal(0.3)(rng, 20_000), 1.0, step=0.01)
    assert 60.0 <= left.at - entered.at < 70.0


def test_a_rate_that_stays_is_not_left_by_what_comes_while_it_is_held() -> None:
    """Trials without an event count as little in that minute as events do: else all that is seen speaks for its end."""
    cycle = LifeCycle(RateDetector(20, 20_000, alarm=1e7), kind="stall")
    entered = [change for at in range(40) if (change := cycle.update(1.0, float(at)))]
    assert [change.what for change in entered] == ["entered"]
    for second in range(40, 60):
        assert cycle.update(1.0, float(second)) is None
        assert cycle.pass_over(33, float(second)) is None
        assert cycle.suspicion == 1.0
    # Three in a hundred are few of them, and far from the one in a thousand of the baseline.
    assert cycle.pass_over(33, 120.0) is None
    assert cycle.update(1.0, 120.0) is None
    assert cycle.suspicion < 10.0
    assert cycle.active is not None
    # And it is left when it is over.
    left = cycle.pass_over(10_000, 121.0)
    assert left is not None
    assert left.what == "left"


def test_a_stream_that_flaps_tells_less_and_less() -> None:
    """A change that comes and goes each minute for ten hours is 600 changes, and ten pairs of events at most."""
    cycle = LifeCycle(FactDetector(), kind="fallback", hold=60.0)
    told = _run(cycle, [float(minute % 2) for minute in range(600)], 0.0, step=60.0)
    assert [transition.what for transition in told[:4]] == ["entered", "left", "entered", "left"]
    assert 6 <= len(told) <= 20


def test_after_a_quiet_hour_flapping_is_forgiven() -> None:
    """The next anomaly may be left as soon as the first one."""
    cycle = LifeCycle(FactDetector(), kind="fallback", hold=60.0, forgiven=3600.0)
    for begin in (0.0, 10_000.0, 20_000.0):
        (entered, left) = _run(cycle, [1.0, 0.0, 0.0, 0.0], begin, step=30.0)
        assert left.at - entered.at == 60.0


def test_a_change_that_is_not_worth_telling_is_counted_and_a_worse_one_still_seen() -> None:
    """A tenth slower, where only a half matters: silence; three times slower: an event."""
    rng = random.Random(5)
    cycle = _latency(least=0.5)
    assert _run(cycle, lognormal(0.3, 1.15)(rng, 3000), 0.0) == []
    assert cycle.untold >= 1
    assert cycle.active is None
    (entered,) = _run(cycle, lognormal(0.3, 3.0)(rng, 100), 300.0)
    assert entered.judgement.change > 0.5


def _transition(
    model: str, at: float, kind: str = "latency_drift", evidence: float | None = 1e8
) -> Transition:
    return Transition("entered", kind, model, "", Judgement(evidence, 2.0, 1.0, "p50", "up", 9), at)


def test_a_fault_of_the_host_is_one_event_that_names_the_models() -> None:
    """All that enter the same kind of anomaly within seconds, once each, with the surest of them."""
    bulletin = Bulletin(patience=5.0)
    for i in range(190):
        bulletin.add(_transition(f"model {i % 100}", i / 100, evidence=1e8 + i))
    bulletin.add(_transition("model 3", 0.5, kind="fallback", evidence=None))
    assert bulletin.due(4.0) == []
    latency, fallback = bulletin.due(6.0)
    assert (latency.what, latency.kind, latency.count) == ("entered", "latency_drift", 190)
    assert latency.models == tuple(f"model {i}" for i in range(100))
    assert latency.first.judgement.evidence == 1e8 + 189
    assert fallback.models == ("model 3",)
    assert bulletin.due(100.0) == []


def test_an_event_waits_while_more_is_being_found_out() -> None:
    """Those of its kind wait with it, the others do not, and not even the end of the process hurries it."""
    bulletin = Bulletin(patience=5.0)
    bulletin.add(_transition("slow", 0.0, kind="cosine"))
    bulletin.add(_transition("other", 0.0, kind="fallback"))
    held = {"slow"}
    assert [news.models for news in bulletin.due(6.0, held=lambda one: one.model in held)] == [("other",)]
    assert bulletin.due(60.0, at_once=True, held=lambda one: one.model in held) == []
    held.clear()
    assert [news.models for news in bulletin.due(61.0, held=lambda one: one.model in held)] == [("slow",)]


def test_events_are_rate_limited_and_none_is_lost() -> None:
    """Past the burst they wait, and come merged; at the end of the process they come whatever the limit."""
    bulletin = Bulletin(patience=0.0, burst=3, per_hour=60.0)
    told = []
    for second in range(120):
        bulletin.add(_transition(f"m{second}", float(second)))
        told += bulletin.due(float(second))
    assert len(told) == 4  # the burst, and one in each minute: the second of those is due at 120 s
    rest = bulletin.due(119.5, at_once=True)
    names = [name for news in [*told, *rest] for name in news.models]
    assert sorted(names) == sorted(f"m{second}" for second in range(120))


@given(values=st.lists(st.booleans(), max_size=200), step=st.floats(1.0, 600.0))
def test_an_anomaly_is_entered_and_left_in_turns(values: list[bool], step: float) -> None:
    """Whatever a stream does: entered comes first, each is followed by the other, and it lasts as long as is held."""
    cycle = LifeCycle(FactDetector(), kind="fallback", hold=60.0)
    changes = _run(cycle, [float(value) for value in values], 0.0, step=step)
    assert [change.what for change in changes] == ["entered", "left"] * (len(changes) // 2) + ["entered"] * (
        len(changes) % 2
    )
    for entered, left in zip(changes[::2], changes[1::2], strict=False):
        assert left.at - entered.at >= 60.0
        assert left.lasted == left.at - entered.at
    assert (cycle.active is not None) == (len(changes) % 2 == 1)


@given(
    arrivals=st.lists(
        st.tuples(st.floats(0.0, 7200.0), st.sampled_from("abcde"), st.sampled_from(["cosine", "stall"])),
        max_size=100,
    ),
    burst=st.integers(1, 5),
    per_hour=st.floats(1.0, 600.0),
)
def test_whatever_comes_is_told_once_and_not_too_often(
    arrivals: list[tuple[float, str, str]], burst: int, per_hour: float
) -> None:
    """No transition is lost or told twice, and in any time there are no more events than the limit lets through."""
    bulletin = Bulletin(patience=5.0, burst=burst, per_hour=per_hour)
    waiting = sorted(arrivals)
    events = []
    for second in range(0, 7210, 10):
        while waiting and waiting[0][0] <= second:
            at, model, kind = waiting.pop(0)
            bulletin.add(_transition(model, at, kind=kind))
        events += [(second, news) for news in bulletin.due(float(second))]
    assert len(events) <= burst + per_hour * 2.01
    events += [(7210, news) for news in bulletin.due(7210.0, at_once=True)]
    assert sum(news.count for _, news in events) == len(arrivals)
    for kind in ("cosine", "stall"):
        told = {model for _, news in events if news.kind == kind for model in news.models}
        assert told == {model for _, model, of in arrivals if of == kind}
    for _, news in events:
        assert len(set(news.models)) == len(news.models)
