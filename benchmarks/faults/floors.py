"""How soon a change could be told at all, and what other rules make of the same numbers.

Lorden's floor of the delay is ``ln(A)`` by the Kullback-Leibler divergence of an observation after the change from one
before it. ``A`` is 2·10⁷ observations: one false alarm in 10⁶ calls over 20 streams. The divergence is taken from the
numbers themselves, in 16 bins between quantiles of those before and what lies beyond them on either side. Where
numbers depend on those before them, it is divided by how many times as far their sums wander as those of independent
ones (`otel_quantmon.detection.blocks`): for AR(1) noise that moves, it is then the divergence of its innovations.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from otel_quantmon.detection.blocks import choose_blocks

LEVEL = 2e7
BINS = 16
_ENOUGH = 50  # numbers that show how they depend on each other
_SEEN = 20  # numbers of after the change that a divergence is taken from, at least


def divergence(before: Sequence[float], after: Sequence[float]) -> float:
    """Nats an observation; 0 where it is not beyond what chance gives."""
    if len(before) < 50 or len(after) < _SEEN:
        return 0.0
    ordered = sorted(before)
    cuts = sorted({ordered[len(ordered) * i // BINS] for i in range(1, BINS)} | {ordered[0], ordered[-1]})
    # A value has a bin of its own, and so have those between two: numbers may be few, such as 0 and 1.
    place = lambda value: bisect_left(cuts, value) + bisect_right(cuts, value)  # noqa: E731
    was, now = [0] * (2 * len(cuts) + 1), [0] * (2 * len(cuts) + 1)
    for value in before:
        was[place(value)] += 1
    for value in after:
        now[place(value)] += 1
    used = [(a, b) for a, b in zip(was, now, strict=True) if a or b]
    total = math.fsum(
        b / len(after) * math.log(b / len(after) / ((a + 0.5) / (len(before) + 0.5 * len(used))))
        for a, b in used
        if b
    )
    # Of numbers that have not changed the estimate is about chi-square over twice their number.
    degrees = len(used) - 1
    chance = (degrees + 3.0 * math.sqrt(2.0 * degrees)) / 2.0 * (1.0 / len(after) + 1.0 / len(before))
    return total if total > chance else 0.0


def interval(result: dict[str, Any], stream: str) -> float:
    """Calls for each observation of ``stream`` by what watches it; infinite where nothing does."""
    if stream in ("seconds", "error", "timeout"):
        return 1.0
    if stream in ("relative error", "disagreement"):
        return result["healthy_calls"] / result["evaluations"] if result["evaluations"] else math.inf
    return result["healthy_calls"] / result["checks"] if result["checks"] else math.inf


def _concerns(fault: str, stream: str) -> bool:
    """Whether ``fault`` can be what has changed ``stream``; a busy host changes times in any run."""
    if fault.startswith(("latency", "stalls", "starving")):
        return stream == "seconds"
    return stream != "seconds"


def floors(result: dict[str, Any]) -> dict[str, float]:
    """Of each stream that changed and is watched, the least delay in calls."""
    found: dict[str, float] = {}
    for stream, numbers in result["streams"].items():
        every = interval(result, stream)
        if not _concerns(result["fault"], stream) or math.isinf(every):
            continue
        nats = divergence(numbers["before"], numbers["after"])
        # As far apart as what watches it sees them.
        seen = numbers["before"][:: max(1, round(every))]
        if nats and len(seen) >= _ENOUGH:
            nats /= choose_blocks(seen).inflation
        if nats:
            found[stream] = max(1, math.ceil(math.log(LEVEL) / nats)) * every
    return found


def rate_floor(usual_trials: int, rate: float) -> float:
    """That of events which come in ``rate`` of the calls and came in none of so many: half of one is taken for it."""
    usual = 0.5 / usual_trials
    nats = rate * math.log(rate / usual) + (1 - rate) * math.log((1 - rate) / (1 - usual))
    return math.ceil(math.log(LEVEL) / nats)


# --- others' rules ----------------------------------------------------------------------------------------

Feed = Callable[[float], bool]


class Limit:
    """A limit that so many values in a row exceed: the rules before detectors, at their thresholds."""

    def __init__(self, enter: float, leave: float, samples: int = 3) -> None:
        self._enter, self._leave, self._samples = enter, leave, samples
        self._row, self._on = 0, False

    def __call__(self, value: float) -> bool:
        changing = value < self._leave if self._on else value > self._enter
        self._row = self._row + 1 if changing else 0
        if self._row < self._samples:
            return False
        self._row, self._on = 0, not self._on
        return self._on


class Drift:
    """The mean of the last 1,000 durations against that of the first 100, looked at every 100 calls."""

    def __init__(self) -> None:
        self._limit = Limit(0.5, 0.25)
        self._values: list[float] = []
        self._baseline = 0.0

    def __call__(self, value: float) -> bool:
        self._values.append(value)
        if len(self._values) == 100:
            self._baseline = sum(self._values) / 100
        if len(self._values) < 200 or len(self._values) % 100:
            return False
        window = self._values[-1000:]
        return self._limit(sum(window) / len(window) / self._baseline - 1.0)


def rule_of_before(stream: str) -> Feed | None:
    """That for ``stream``; none for most."""
    makes: dict[str, Callable[[], Feed]] = {
        "seconds": Drift,
        "relative error": lambda: Limit(0.05, 0.04),
        "disagreement": lambda: Limit(0.05, 0.025),
        "nonfinite": lambda: Limit(0.6, 0.4, 1),
        "timeout": lambda: Limit(0.6, 0.4, 1),
    }
    return makes[stream]() if stream in makes else None


def peers() -> dict[str, Callable[[str], Feed | None]]:
    """By name, from the name of a stream to what is fed with its numbers, and says when it rings."""
    found: dict[str, Callable[[str], Feed | None]] = {"limits of before": rule_of_before}
    try:
        from river import drift
    except ImportError:
        return found

    def river(make: Callable[[], Any]) -> Callable[[str], Feed]:
        def of(_: str) -> Feed:
            detector = make()

            def feed(value: float) -> bool:
                detector.update(value)
                return bool(detector.drift_detected)

            return feed

        return of

    found["river ADWIN"] = river(drift.ADWIN)
    found["river PageHinkley"] = river(drift.PageHinkley)
    found["river KSWIN"] = river(lambda: drift.KSWIN(seed=1))
    return found


def replay(
    result: dict[str, Any], peer: Callable[[str], Feed | None], most: int = 1000
) -> tuple[int, int, int | None]:
    """Feed the streams of one pair to a peer, as many as ``most`` numbers before the change and after it.

    Returns:
        Alarms before the change, not counting what it learns from in the first half; numbers they are of; and calls
        (or evaluations) from the change to the first alarm on any stream.
    """
    alarms = count = 0
    first: int | None = None
    for stream, numbers in result["streams"].items():
        feed = peer(stream)
        if feed is None:
            continue
        before = numbers["before"][-most:]
        for at, value in enumerate(before):
            rings = feed(value)
            if at >= len(before) // 2:
                alarms += rings
                count += 1
        for at, value in enumerate(numbers["after"][:most], 1):
            if feed(value):
                first = at if first is None else min(first, at)
                break
    return alarms, count, first
