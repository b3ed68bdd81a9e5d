"""Change detectors on synthetic streams: false alarms without a change, delays with one, and what an update costs.

``python benchmarks/detectors.py [--short] [--json FILE]`` with this package installed. Where river is installed as
well, its ADWIN, PageHinkley and KSWIN run on the same streams, fewer of them, at their default settings; a two-sided
CUSUM that is set to 10 alarms in 10^6 observations of Gaussian noise always does. Streams depend on the seed alone, and
times on the machine.

Prints Markdown tables, which docs/detection.md shows. With ``--short`` it takes half a minute, and exits with 1
if a promise is broken, for continuous integration.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from detection.streams import (
    STATIONARY,
    Stream,
    autoregressive,
    baseline_of,
    diurnal,
    gaussian,
    lognormal,
    stalls,
)

from otel_quantmon.detection.bernoulli import RateDetector
from otel_quantmon.detection.e_detector import RankEDetector

LEVEL = 2e7  # one false alarm in 10^6 calls that feed 20 streams each
LOW_LEVEL = 1e5  # what the peers are set to: 10 in 10^6
LENGTHS = (50, 200, 1000, 3000, 5000)
LONGEST = 5000  # calls after a change that are waited for


class Peer(Protocol):
    def feed(self, value: float) -> bool: ...

    def count(self, values: list[float]) -> int: ...


class OneByOne:
    def count(self, values: list[float]) -> int:
        """Alarms in all of them."""
        return sum(map(self.feed, values))


class Rank:
    """Ours, reset after each alarm."""

    def __init__(self, learnt: list[float], level: float, margin: float = 0.0) -> None:
        self.detector = RankEDetector(baseline_of(learnt), alarm=level, seed=1, margin=margin)

    def feed(self, value: float) -> bool:
        if self.detector.update(value) is None:
            return False
        self.detector.reset()
        return True

    def count(self, values: list[float]) -> int:
        alarms = at = 0
        while at < len(values):
            at, judgement = self.detector.update_many(values, at)
            if judgement is not None:
                alarms += 1
                self.detector.reset()
        return alarms


class Cusum(OneByOne):
    """Page's, two-sided, on values standardized by the baseline, for shifts of one standard deviation.

    Siegmund's approximation of the run length, (e^b - b - 1) / 0.5 with b = h + 1.166, is 2e5 on each side for
    h = 10.35.
    """

    def __init__(self, learnt: list[float]) -> None:
        self.mean, self.spread = statistics.fmean(learnt), statistics.pstdev(learnt)
        self.up = self.down = 0.0

    def feed(self, value: float) -> bool:
        z = (value - self.mean) / self.spread
        self.up, self.down = max(0.0, self.up + z - 0.5), max(0.0, self.down - z - 0.5)
        if max(self.up, self.down) < 10.35:
            return False
        self.up = self.down = 0.0
        return True


class River(OneByOne):
    """A drift detector of river, which learns as it goes: it has seen the baseline, and then what comes."""

    def __init__(self, learnt: list[float], make: Callable[[], Any]) -> None:
        self.detector = make()
        for value in learnt[-1000:]:
            self.detector.update(value)

    def feed(self, value: float) -> bool:
        self.detector.update(value)
        return bool(self.detector.drift_detected)


def peers() -> dict[str, Callable[[list[float]], Peer]]:
    found: dict[str, Callable[[list[float]], Peer]] = {
        "rank e-detector, 2e7": lambda learnt: Rank(learnt, LEVEL),
        "rank e-detector, 1e5": lambda learnt: Rank(learnt, LOW_LEVEL),
        "CUSUM, 1e5": Cusum,
    }
    try:
        from river import drift
    except ImportError:
        return found
    found["river ADWIN"] = lambda learnt: River(learnt, drift.ADWIN)
    found["river PageHinkley"] = lambda learnt: River(learnt, drift.PageHinkley)
    found["river KSWIN"] = lambda learnt: River(learnt, lambda: drift.KSWIN(seed=1))
    return found


def false_alarms(
    make: Callable[[list[float]], Peer], stream: Stream, length: int, runs: int, count: int
) -> float:
    """Alarms in 10^6 observations without a change, over ``runs`` baselines."""
    alarms = 0
    for run in range(runs):
        rng = random.Random(f"{length} {run}")
        peer = make(stream(rng, length))
        alarms += peer.count(stream(rng, count))
    return alarms / (runs * count) * 1e6


@dataclass(frozen=True)
class Change:
    """A change, and the Kullback-Leibler divergence of one call after it from one before; 0 where it has no bound."""

    name: str
    before: Stream
    after: Stream
    divergence: float


def _slower(sigma: float, factor: float) -> Change:
    name = f"latency ×{factor:g}, log-sigma {sigma:g}"
    return Change(name, lognormal(sigma), lognormal(sigma, factor), (math.log(factor) / sigma) ** 2 / 2)


def _shifted(phi: float, shift: float) -> Change:
    # What a shift adds to the innovations of an AR(1) process, whose standard deviation is 1.
    moved = shift * (1 - phi) / math.sqrt(1 - phi * phi)
    return Change(
        f"AR {phi:g}, {shift:g} sd up", autoregressive(phi), autoregressive(phi, shift), moved * moved / 2
    )


CHANGES = [
    *(_slower(sigma, factor) for factor in (1.3, 3.0) for sigma in (0.1, 0.3, 0.5, 1.0)),
    Change("stalls ×20 in 5%", lognormal(0.3), stalls(0.05, 20.0), 0.0),
    Change("stalls ×20 in 2%", lognormal(0.3), stalls(0.02, 20.0), 0.0),
    *(_shifted(phi, 2.0) for phi in (0.2, 0.5, 0.8)),
]


def delay(make: Callable[[list[float]], Peer], change: Change, length: int, runs: int) -> float:
    """Median of the calls from the change to the alarm; infinite where most are not found."""
    delays: list[float] = []
    for run in range(runs):
        rng = random.Random(f"{change.name} {length} {run}")
        peer = make(change.before(rng, length))
        for value in change.before(rng, 500):
            peer.feed(value)
        after = change.after(rng, LONGEST)
        delays.append(next((i for i, value in enumerate(after, 1) if peer.feed(value)), math.inf))
    return statistics.median(delays)


def rates(runs: int) -> list[list[str]]:
    """Delays of errors: usual rate, rate after, floor and median delay, with 20,000 trials of baseline."""
    rows: list[list[str]] = []
    for usual, after in ((0.0, 0.01), (0.001, 0.01), (0.001, 0.02), (0.01, 0.05)):
        delays: list[float] = []
        for run in range(runs):
            rng = random.Random(f"{usual} {after} {run}")
            detector = RateDetector(round(usual * 20_000), 20_000, alarm=LEVEL)
            values = [float(rng.random() < after) for _ in range(20_000)]
            count, judgement = detector.update_many(values)
            delays.append(count if judgement else math.inf)
        divergence = (
            after * math.log(after / usual) + (1 - after) * math.log((1 - after) / (1 - usual))
            if usual
            else 0
        )
        rows.append([f"{usual:.1%}", f"{after:.0%}", *_against(statistics.median(delays), divergence, LEVEL)])
    return rows


def rare(runs: int) -> list[list[str]]:
    """Delays of events that were never seen before, by calls without one, of which the first 3,000 are the baseline."""
    rows: list[list[str]] = []
    for after in (0.05, 0.02, 0.01):
        row = [f"{after:.0%}"]
        for healthy in (3000, 20_000, 100_000, 1_000_000):
            delays: list[float] = []
            for run in range(runs):
                rng = random.Random(f"{after} {run}")
                detector = RateDetector(0, 3000, alarm=LEVEL, certain_after=0)
                for _ in range(healthy // 1000 - 3):
                    detector.pass_over(1000)
                count, judgement = detector.update_many([float(rng.random() < after) for _ in range(5000)])
                delays.append(count if judgement else math.inf)
            row.append(f"{statistics.median(delays):.0f}")
        rows.append(row)
    return rows


def _against(found: float, divergence: float, level: float) -> tuple[str, str, str]:
    floor = max(1, math.ceil(math.log(level) / divergence)) if divergence else 0
    shown = f"{found:.0f}" if math.isfinite(found) else f"over {LONGEST}"
    return (str(floor or "–"), shown, f"{found / floor:.1f}" if floor and math.isfinite(found) else "–")


def cost() -> list[tuple[str, float]]:
    """Microseconds an update, the least of five."""
    rng = random.Random(1)
    learnt, values = gaussian(rng, 3000), gaussian(rng, 20_000)
    kinds = {
        "both sides": {},
        "both sides, margin 5%": {"margin": 0.05},
        "one side, margin 5%": {"margin": 0.05, "sides": "up"},
    }
    found: list[tuple[str, float]] = []
    for name, options in kinds.items():
        times: list[float] = []
        for _ in range(5):
            detector = RankEDetector(baseline_of(learnt), alarm=1e300, **options)
            began = time.perf_counter()
            detector.update_many(values)
            times.append((time.perf_counter() - began) / len(values) * 1e6)
        found.append((name, min(times)))
    return found


def table(head: list[str], rows: list[list[str]]) -> None:
    print("|", " | ".join(head), "|")
    print("|", " | ".join(["---", *["---:"] * (len(head) - 1)]), "|")
    for row in rows:
        print("|", " | ".join(row), "|")
    print(flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--short", action="store_true", help="few runs, ours alone; exit with 1 if a promise is broken"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    runs, count, delays = (2, 25_000, 3) if options.short else (10, 100_000, 15)
    makes = dict(list(peers().items())[:2]) if options.short else peers()
    streams = {**STATIONARY, "diurnal ±4%, margin 10%": diurnal(0.04, 20_000)}
    figures: dict[str, Any] = {"false_alarms": {}, "delays": {}}
    broken = 0

    print(
        f"False alarms in 10^6 observations without a change ({runs} baselines, {runs * count:,} observations each)\n"
    )
    for name, make in makes.items():
        lengths = LENGTHS if name.startswith("rank") else (50, 3000)
        # River takes up to a millisecond a value, and rings often enough for fewer of them.
        baselines, values = (1, 20_000) if name.startswith("river") else (runs, count)
        rows: list[list[str]] = []
        for noise, stream in streams.items():
            using = make
            if noise.startswith("diurnal") and name.startswith("rank"):
                level = LEVEL if name.endswith("2e7") else LOW_LEVEL
                using = lambda learnt, level=level: Rank(learnt, level, 0.1)  # noqa: E731
            found = [false_alarms(using, stream, length, baselines, values) for length in lengths]
            figures["false_alarms"][f"{name}, {noise}"] = dict(zip(lengths, found, strict=True))
            promised = 1e6 / LEVEL if name.endswith("2e7") else 1e6 / LOW_LEVEL
            # The chance of one alarm more than promised is small, not zero; ten times as many is a defect.
            broken += name.startswith("rank") and any(f > 10 * promised + 1e6 / (runs * count) for f in found)
            rows.append([noise, *(f"{f:.1f}" if f else "0" for f in found)])
        print(f"**{name}**\n")
        table(["noise", *(f"baseline {length:,}" for length in lengths)], rows)

    print(f"Median delay in calls ({delays} runs), baselines of 3,000, beside Lorden's floor ln(A) / KL\n")
    rows = []
    for change in CHANGES:
        found = [
            delay(make, change, 3000, min(delays, 5) if name.startswith("river") else delays)
            for name, make in makes.items()
        ]
        figures["delays"][change.name] = dict(zip(makes, found, strict=True))
        first, *others = found
        shown = [f"{f:.0f}" if math.isfinite(f) else f"over {LONGEST}" for f in others]
        rows.append([change.name, *_against(first, change.divergence, LEVEL), *shown])
    first, *others = makes
    table(["change", "floor", first, "times the floor", *others], rows)

    print("Short baselines: median delay of the rank e-detector at 2e7\n")
    rows = []
    for change in CHANGES[:8]:
        found = [delay(next(iter(makes.values())), change, length, delays) for length in LENGTHS]
        rows.append([change.name, *(f"{f:.0f}" if math.isfinite(f) else f"over {LONGEST}" for f in found)])
    table(["change", *(f"{length:,}" for length in LENGTHS)], rows)

    print("Errors: median delay at 2e7, baselines of 20,000 calls\n")
    table(["usual rate", "rate after", "floor", "delay", "times the floor"], rates(delays))

    print("Events that were never seen before, such as stalls: median delay at 2e7, by calls without one\n")
    table(["rate after", "3,000", "20,000", "100,000", "1,000,000"], rare(delays))

    figures["microseconds"] = dict(cost())
    print("Cost of an update in a batch, in microseconds\n")
    table(
        ["rank e-detector", "µs"],
        [[name, f"{micros:.2f}"] for name, micros in figures["microseconds"].items()],
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
