"""What several threads keep of their throughput, beside what one thread keeps.

``python benchmarks/threads.py [--rounds N] [--calls N] [--json FILE] [--strict]``

In one process, with default settings and no span around the calls: sessions of the one-op model, bare ones of a class
that kept `run` as it was, and observed ones. In each round and in a random order, one thread calls one session, and 8
threads call 16 sessions in turn; each bare, observed and bare again. *Kept* is the mean bare time over the observed
one; what is compared is that of many threads with that of one, in the same round. The same is told of the CPU time of
the process, which a busy machine disturbs less, and which has the price of handing the interpreter over in it.

``null`` stands for a wrapper that does nothing but read the clock twice and append to two lists: what no observation
written in Python can be better than.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter_ns, process_time_ns
from typing import Any

import numpy as np
from figures import conditions, spread, verdict
from workloads import WORKLOADS, session_options

MANY = 8, 16
LEAST_OF_ONE = 0.9
FEEDS = {"x": np.ones(4, np.float32), "y": np.ones(4, np.float32)}
DISTRIBUTIONS = "onnxruntime", "numpy", "opentelemetry-sdk"


def instrumented() -> None:
    """Observe what is loaded from now on, and collect nowhere."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from otel_quantmon import ONNXRuntimeInstrumentor

    ONNXRuntimeInstrumentor().instrument(
        tracer_provider=TracerProvider(),
        meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()]),
    )


def null_wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the least that observes."""
    ends: list[int] = []
    durations: list[int] = []

    def call(session: Any, names: Any, feeds: Any) -> Any:
        start = perf_counter_ns()
        result = original(session, names, feeds)
        end = perf_counter_ns()
        ends.append(end)
        durations.append(end - start)
        if len(ends) >= 512:
            ends.clear()
            durations.clear()
        return result

    return call


def elapsed(sessions: Sequence[Any], threads: int, calls: int) -> tuple[float, float]:
    """Return nanoseconds per call, by the clock and of CPU time.

    Args:
        sessions: Sessions that each thread calls in turn.
        threads: Number of threads.
        calls: Number of calls that they share.
    """
    gc.collect()
    gate = threading.Barrier(threads + 1)
    own = calls // threads // len(sessions)

    def work() -> None:
        gate.wait()
        for _ in range(own):
            for session in sessions:
                session.run(None, FEEDS)
        gate.wait()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    gate.wait()
    start, cpu = perf_counter_ns(), process_time_ns()
    gate.wait()
    took, used = perf_counter_ns() - start, process_time_ns() - cpu
    for worker in workers:
        worker.join()
    made = own * threads * len(sessions)
    return took / made, used / made


def kept(bare: Sequence[Any], observed: Sequence[Any], threads: int, calls: int) -> dict[str, float]:
    """Return the shares of the bare throughput that are kept, and nanoseconds of a bare call."""
    before = elapsed(bare, threads, calls // 2)
    with_it = elapsed(observed, threads, calls)
    behind = elapsed(bare, threads, calls // 2)
    without = [(one + other) / 2 for one, other in zip(before, behind, strict=True)]
    return {
        "wall": without[0] / with_it[0],
        "cpu": without[1] / with_it[1],
        "bare_wall_ns": without[0],
        "bare_cpu_ns": without[1],
    }


def main() -> int:
    """Measure and print; 1 if the target was missed and --strict was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--calls", type=int, default=16_000, help="observed, in a round of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 1 when the target is missed")
    arguments = parser.parse_args()

    workload = WORKLOADS["ort"]
    cls, model = workload.runtime(), str(workload.model())
    original = cls.run
    kinds = {
        "bare": type("Bare", (cls,), {"run": original}),
        "null": type("Null", (cls,), {"run": null_wrapper(original)}),
        "observed": cls,
    }
    instrumented()
    threads, count = MANY
    sessions = {
        kind: [owner(model, session_options(), providers=["CPUExecutionProvider"]) for _ in range(count)]
        for kind, owner in kinds.items()
    }
    rng = random.Random(arguments.seed)
    rounds: list[dict[str, float]] = []
    for several in sessions.values():
        elapsed(several, threads, arguments.calls)
    for _ in range(arguments.rounds):
        measured: dict[str, float] = {}
        for kind in rng.sample(["null", "observed"], 2):
            for name, own, number in rng.sample([("one", 1, 1), ("many", threads, count)], 2):
                found = kept(sessions["bare"][:number], sessions[kind][:number], own, arguments.calls)
                measured |= {f"{kind} {name} {what}": value for what, value in found.items()}
            for clock in ("wall", "cpu"):
                measured[f"{kind} many_of_one {clock}"] = (
                    measured[f"{kind} many {clock}"] / measured[f"{kind} one {clock}"]
                )
        rounds.append(measured)
    report: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "conditions": conditions(DISTRIBUTIONS),
        "calls": arguments.calls,
        "rounds": rounds,
        "summary": {name: spread([one[name] for one in rounds]) for name in rounds[0]},
    }
    print(json.dumps(report["conditions"]))
    for name, figures in sorted(report["summary"].items()):
        print(f"{name:<28}{figures['median']:>10.3f} [{figures['q1']:.3f}, {figures['q3']:.3f}]")
    of_one = median([one["observed many_of_one wall"] for one in rounds])
    reached = of_one >= LEAST_OF_ONE
    print(
        f"{verdict(reached=reached)}  8 threads on 16 sessions keep, of what one keeps: {of_one:.3f} (at least 0.9)"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if arguments.strict and not reached else 0


if __name__ == "__main__":
    sys.exit(main())
