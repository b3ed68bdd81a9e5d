"""What judging costs beside the calls: processor time of the worker's thread, and memory of what is watched.

``python benchmarks/detection_cost.py [--seconds N] [--json FILE] [--strict]``

A one-op session is called in a closed loop with default settings until its baselines are learnt (more than 30 s), and
then for ``--seconds``; the processor time of the background thread meanwhile, over the calls. It is told also for calls
that come 5,000 a second, all of which are ranked. Then streams of models with several classes of shapes are fed with
made durations, and the bytes that Python has allocated for them are told while they learn and when they are watched.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from figures import conditions, verdict
from workloads import WORKLOADS, session_options

MOST_MICROSECONDS = 2.0
MOST_BYTES = 20_000
MOST_BYTES_LEARNING = 24_000
MODELS = 4
CLASSES = (1, 4)
LEARNING_TAKES = 60  # seconds until which the baselines are learnt, on a busy machine too


def background(seconds: float, rate: float | None, *, learn: bool) -> tuple[float, int]:
    """Microseconds of the worker's processor time for each call of a session, and the number of calls."""
    from otel_quantmon.process.worker import worker

    cls: Any = WORKLOADS["ort"].runtime()
    session = cls(str(WORKLOADS["ort"].model()), session_options(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones(4, np.float32), "y": np.ones(4, np.float32)}

    def call(until: float) -> int:
        calls, began = 0, time.perf_counter()
        while time.perf_counter() < until:
            # In portions: a sleep for each call would be longer than that.
            for _ in range(50):
                session.run(None, feeds)
            calls += 50
            if rate is not None:
                time.sleep(max(0.0, began + calls / rate - time.perf_counter()))
        return calls

    def spent() -> int:
        found: list[int] = []
        over = threading.Event()
        worker.submit(lambda: (found.append(time.thread_time_ns()), over.set()))
        over.wait(60)
        return found[0]

    streams = None
    deadline = time.perf_counter() + (LEARNING_TAKES if learn else 0)
    while time.perf_counter() < deadline:
        call(time.perf_counter() + 1.0)
        streams = next(iter(session._quantmon_probe.states.values())).series.streams
        if streams.active().get("latency_drift") is not None:
            break
    before = spent()
    calls = call(time.perf_counter() + seconds)
    return (spent() - before) / 1e3 / calls, calls


def memory(classes: int) -> tuple[float, float]:
    """Bytes for each model and class of shapes: at most while they learn, and when they are watched."""
    from otel_quantmon.detection.monitor import Monitor

    rng = random.Random(0)
    # One each: the models of one monitor share what it may rank at a time.
    monitors = [Monitor(1.0) for _ in range(MODELS)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    models = [monitor.streams("model") for monitor in monitors]
    sizes: list[float] = []
    while not all(model.active().get("latency_drift") is not None for model in models):
        _feed(monitors, models, classes, len(sizes), rng)
        sizes.append((tracemalloc.get_traced_memory()[0] - before) / (MODELS * classes))
    _feed(monitors, models, classes, len(sizes), rng, 10)
    gc.collect()
    watched = (tracemalloc.get_traced_memory()[0] - before) / (MODELS * classes)
    tracemalloc.stop()
    return max(sizes), watched


def _feed(
    monitors: list[Any], models: list[Any], classes: int, start: int, rng: random.Random, steps: int = 1
) -> None:
    for step in range(start, start + steps):
        now = 100.0 + step
        for monitor, model in zip(monitors, models, strict=True):
            for of in range(classes):
                durations = [int(20_000 * (1 + of) * rng.lognormvariate(0, 0.1)) for _ in range(100)]
                ends = [int(now * 1e9) + 200_000 * i for i in range(100)]
                model.durations(f"{of}", ends, durations)
            model.ended(100 * classes)
            monitor.judge(now + 0.1)


def main() -> int:
    """Measure and print; 1 if a target was missed and --strict was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    arguments = parser.parse_args()

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from otel_quantmon import ONNXRuntimeInstrumentor

    # The tables of bets are made once, and all models of a process share them.
    for classes in CLASSES:
        memory(classes)
    learning, watched = zip(*[memory(classes) for classes in CLASSES], strict=True)
    ONNXRuntimeInstrumentor().instrument(
        tracer_provider=TracerProvider(),
        meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()]),
    )
    closed, calls = background(arguments.seconds, None, learn=True)
    paced, paced_calls = background(arguments.seconds, 5_000, learn=True)
    report = {
        "conditions": conditions(("onnxruntime", "opentelemetry-sdk")),
        "classes": CLASSES,
        "bytes_learning": learning,
        "bytes_watched": watched,
        "microseconds_a_call": {"closed loop": closed, "5,000 a second": paced},
        "calls": {"closed loop": calls, "5,000 a second": paced_calls},
    }
    print(json.dumps(report["conditions"]))
    reached = True
    for what, measured, most, unit in (
        ("background, calls in a closed loop", closed, MOST_MICROSECONDS, "µs of processor time a call"),
        ("background, 5,000 calls a second", paced, MOST_MICROSECONDS, "µs of processor time a call"),
        *[
            (f"watched, {classes} classes a model", size, MOST_BYTES, "bytes a model and class")
            for classes, size in zip(CLASSES, watched, strict=True)
        ],
        *[
            (f"learning, {classes} classes a model", size, MOST_BYTES_LEARNING, "bytes a model and class")
            for classes, size in zip(CLASSES, learning, strict=True)
        ],
    ):
        met = measured <= most
        reached = reached and met
        print(f"{verdict(reached=met)}  {what:<36} {measured:>9.2f} {unit} (at most {most:g})")
    print(f"calls a second: {calls / arguments.seconds:,.0f} and {paced_calls / arguments.seconds:,.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if arguments.strict and not reached else 0


if __name__ == "__main__":
    sys.exit(main())
