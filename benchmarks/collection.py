"""What a collection of metrics costs with many models, and how long a caller waits for it.

``python benchmarks/collection.py [--json FILE] [--models N]... [--rounds N]``

For each number of models a process loads as many sessions of the one-op model, each under a name of its own, with
default settings and a full window. A collection is timed as processor time of the thread that collects, which a busy
machine hardly disturbs. Beside it, in turns, a second provider gives the same points from observations that are made
beforehand: what the SDK takes for them by itself. The difference is what this project adds. It is measured with five
new calls of each model since the last collection, and with a thousand, so that every window is new.

A thread makes calls in a closed loop meanwhile, and its longest call in each collection is taken: during collections,
during those of the SDK alone, and while nothing is collected. What of it is due to this project, in whatever way
threads are scheduled, is bounded by the longest time for which a collection holds the lock that callers may wait for.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import conditions, spread, verdict
from overhead import DISTRIBUTIONS, environment
from workloads import WORKLOADS, Calling

NUMBERS = (1, 10, 50, 100, 200)
WINDOW = 1000
# A single model bears alone what a collection costs whatever there is.
MOST_PER_MODEL = 100e-6
MOST_AT_ALL = 300e-6
MOST_WAIT = 2e-3


def prepared(data: Any) -> Callable[[], object]:
    """What collects the points of ``data`` from a provider that has them ready."""
    from opentelemetry.metrics import Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("prepared")
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind, points = type(metric.data).__name__, metric.data.data_points
                if kind == "Histogram":
                    histogram = meter.create_histogram(metric.name)
                    for point in points:
                        histogram.record(1.0, dict(point.attributes))
                    continue
                observations = [Observation(point.value, dict(point.attributes)) for point in points]
                create = (
                    meter.create_observable_gauge
                    if kind == "Gauge"
                    else meter.create_observable_counter
                    if metric.data.is_monotonic
                    else meter.create_observable_up_down_counter
                )
                create(metric.name, [lambda _, given=observations: given])
    return reader.get_metrics_data


class TimedLock:
    """A lock, and the longest processor time for which the collecting thread has held it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._began = 0.0
        self._collecting = threading.get_ident()
        self.longest = 0.0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._began = time.thread_time()

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() == self._collecting:
            self.longest = max(self.longest, time.thread_time() - self._began)
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


class Caller:
    """A thread that makes calls until it is left, and its longest one."""

    def __init__(self, calls: list[Calling]) -> None:
        self._calls = calls
        self._over = False
        self._thread = threading.Thread(target=self._work)
        self.longest = 0.0

    def __enter__(self) -> Caller:  # noqa: PYI034  Self is not in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def _work(self) -> None:
        while not self._over:
            for call in self._calls:
                began = time.perf_counter()
                call()
                self.longest = max(self.longest, time.perf_counter() - began)

    def during(self, work: Callable[[], object]) -> float:
        """Seconds of the longest call that ends while ``work`` is done, or with it."""
        self.longest = 0.0
        work()
        return self.longest


def child(number: int, rounds: int) -> None:
    """Measure with ``number`` models and print what was found."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from otel_quantmon import ONNXRuntimeInstrumentor
    from otel_quantmon.pipeline import pipelines
    from otel_quantmon.process.worker import worker

    logging.disable()
    reader = InMemoryMetricReader()
    ONNXRuntimeInstrumentor().instrument(meter_provider=MeterProvider([reader]))
    workload = WORKLOADS["ort"]
    with tempfile.TemporaryDirectory() as folder:
        calls: list[Calling] = []
        for index in range(number):
            path = Path(folder, f"model{index:03}.onnx")
            shutil.copy(workload.model(), path)
            calls.append(workload.calling(workload.runtime(), str(path)))
        worker.flush(60)

    def call_all(times: int) -> None:
        for call in calls:
            for _ in range(times):
                call()

    call_all(WINDOW + 100)
    # Until there are slopes of memory too.
    for _ in range(6):
        reader.get_metrics_data()
        call_all(5)
    data = reader.get_metrics_data()
    alone = prepared(data)
    (recorder,) = [pipeline.recorder for pipeline in pipelines()]
    lock = recorder.lock = TimedLock(recorder.lock)

    def timed(collect: Callable[[], object]) -> float:
        began = time.thread_time()
        collect()
        return time.thread_time() - began

    found: dict[str, list[float]] = {name: [] for name in ("few", "many", "alone", "held", *WAITS)}
    for _ in range(rounds):
        for name, times in (("few", 5), ("many", WINDOW)):
            call_all(times)
            found[name].append(timed(reader.get_metrics_data))
            found["alone"].append(timed(alone))
    with Caller(calls) as caller:
        for _ in range(rounds):
            lock.longest = 0.0
            began = time.perf_counter()
            found["wait"].append(caller.during(reader.get_metrics_data))
            lasted = time.perf_counter() - began
            found["held"].append(lock.longest)
            found["wait_alone"].append(caller.during(alone))
            found["wait_idle"].append(caller.during(lambda seconds=lasted: time.sleep(seconds)))
    points = sum(
        len(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
    print(json.dumps({"points": points, "seconds": found}))


WAITS = ("wait", "wait_alone", "wait_idle")


def run(number: int, rounds: int) -> dict[str, Any]:
    """The row of ``number`` models."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(number), str(rounds)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    seconds = found["seconds"]
    row = {"models": number, **found, **{name: spread(values) for name, values in seconds.items()}}
    alone = statistics.median(seconds["alone"])
    for name in ("few", "many"):
        row[f"added_{name}"] = row[name]["median"] - alone
    return row


def main() -> int:
    """Measure, print a table, and write JSON where asked; 1 if a target was missed and --strict was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, action="append", help="a number of models; 1 to 200 by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--child", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0

    print("milliseconds; added and SDK alone: processor time of a collection; waits: longest call in one")
    print(
        f"{'models':>6}{'points':>8}{'SDK alone':>11}{'added, 5 new':>14}{'a model':>9}{'added, 1000 new':>17}"
        f"{'a model':>9}{'lock held':>11}{'wait':>8}{'SDK alone':>11}{'idle':>8}"
    )
    rows = []
    targets = []
    for number in arguments.models or NUMBERS:
        row = run(number, arguments.rounds)
        rows.append(row)
        few, many = row["added_few"] * 1e3, row["added_many"] * 1e3
        waits = [row[name]["median"] * 1e3 for name in WAITS]
        print(
            f"{number:6}{row['points']:8}{row['alone']['median'] * 1e3:11.2f}{few:14.2f}{few / number:9.3f}{many:17.2f}"
            f"{many / number:9.3f}{max(row['seconds']['held']) * 1e3:11.2f}"
            f"{waits[0]:8.2f}{waits[1]:11.2f}{waits[2]:8.2f}",
            flush=True,
        )
        limit = max(MOST_AT_ALL, number * MOST_PER_MODEL)
        held = max(row["seconds"]["held"])
        targets += [
            {"what": f"{number} models: seconds added", "at_most": limit, "measured": row["added_few"]},
            {"what": f"{number} models: seconds a lock is held", "at_most": MOST_WAIT, "measured": held},
        ]
    for target in targets:
        target["reached"] = target["measured"] <= target["at_most"]
        print(
            f"{verdict(reached=target['reached'])}  {target['what']}: {target['measured']:.6f} "
            f"(at most {target['at_most']:.6f})"
        )
    if arguments.json:
        report = {"conditions": conditions(DISTRIBUTIONS), "rows": rows, "targets": targets}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if arguments.strict and not all(target["reached"] for target in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
