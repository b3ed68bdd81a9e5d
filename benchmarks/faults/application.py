"""One model in service under ordinary instrumentation, and one fault part of the way: a process for each pair.

``python -m benchmarks.faults.application MODEL FAULT FOLDER`` prints what came of it as one line of JSON. Settings are
the defaults, and what an operator sets: a float reference where there is one, a timeout for the fault with timeouts.
What is told is read from the counter ``quantmon.anomalies`` of an ordinary reader, a collection after every few calls.

Beside the instrumentation it notes the numbers that a detector could look at, for the floor of delays and for peers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from array import array
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults import inputs
from benchmarks.faults.catalogue import FAULTS, TIMEOUT, Fault
from benchmarks.faults.inputs import Array, hash_of
from benchmarks.faults.services import SPECS, Reference, Service, Spec, Trouble

KEPT = 3000  # observations of each stream before the change, and after it
FLOOR_CALLS = 300  # after the change, at least
REFERENCES = 64  # evaluations before the change and after it, by the benchmark itself
MOST_SECONDS = 180.0  # that a fault lasts, and that a baseline is waited for
BURST = 8  # calls between two pauses, at most: about a thousand in a second
PAUSE = 0.007


class Telemetry:
    """An ordinary reader, and what it says."""

    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])
        self.anomalies: dict[str, int] = {}
        # Types with a baseline.
        self.watched: set[str] = set()
        self.evaluations = self.calls = 0

    def collect(self) -> None:
        """Read the counters."""
        data = self._reader.get_metrics_data()
        anomalies: dict[str, int] = {}
        watched: set[str] = set()
        evaluations = calls = 0
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == "quantmon.anomalies":
                        for point in metric.data.data_points:
                            kind = str(point.attributes["quantmon.anomaly.type"])
                            anomalies[kind] = anomalies.get(kind, 0) + int(point.value)
                    elif metric.name == "quantmon.anomaly.active":
                        watched |= {
                            str(point.attributes["quantmon.anomaly.type"])
                            for point in metric.data.data_points
                        }
                    elif metric.name == "quantmon.inference.duration":
                        calls += sum(point.count for point in metric.data.data_points)
                    elif metric.name == "quantmon.reference.evaluations":
                        for point in metric.data.data_points:
                            if point.attributes["quantmon.reference.outcome"] == "evaluated":
                                evaluations += int(point.value)
        self.anomalies, self.watched = anomalies, watched
        self.evaluations, self.calls = evaluations, calls


def sketch(spec: Spec, tensor: Array, outputs: list[Array]) -> dict[str, float]:
    """The numbers of one call: of its input, and of its outputs."""
    # A rather large tensor is looked at here and there.
    values = tensor.reshape(-1)[:: max(1, tensor.size // 4096)].astype(np.float64)
    finite = values[np.isfinite(values)]
    numbers = {"nonfinite": float(len(finite) < len(values))}
    if len(finite):
        for name, value in (
            ("low", finite.min()),
            ("high", finite.max()),
            ("mean", finite.mean()),
            ("spread", finite.std()),
        ):
            numbers[f"input {name}"] = float(value)
    for number, output in enumerate(outputs):
        flat = output.reshape(-1)[:: max(1, output.size // 4096)].astype(np.float64)
        if not np.isfinite(flat).all():
            numbers["nonfinite"] = 1.0
        elif spec.scores:
            shares = np.clip(flat, 1e-9, None) / max(flat.sum(), 1e-9)
            second, first = np.sort(shares)[-2:]
            numbers[f"output {number} margin"] = float(first - second)
            numbers[f"output {number} entropy"] = float(-(shares * np.log(shares)).sum())
        else:
            for share in (0.05, 0.5, 0.95) if flat.size > 2 else (0.5,):
                numbers[f"output {number} p{round(100 * share):02}"] = float(np.quantile(flat, share))
    return numbers


def error(found: list[Array], wanted: list[Array]) -> dict[str, float]:
    """The distance of the first output from that of the reference."""
    a, b = found[0].reshape(-1).astype(np.float64), wanted[0].reshape(-1).astype(np.float64)
    norm = float(np.linalg.norm(b))
    if not norm or not np.isfinite(a).all():
        return {}
    return {
        "relative error": float(np.linalg.norm(a - b)) / norm,
        "disagreement": float(a.argmax() != b.argmax()),
    }


class Streams:
    """Numbers of the calls before the change and after it: the last of those, the first of these.

    Memory for them is taken at the start: this process is watched for leaks.
    """

    def __init__(self) -> None:
        self._before: dict[str, Ring] = {}
        self._after: dict[str, Ring] = {}
        self.changed = False

    def add(self, numbers: dict[str, float]) -> None:
        """Take the numbers of one call."""
        for name, value in numbers.items():
            if name not in self._before:
                self._before[name], self._after[name] = Ring(), Ring()
            if not self.changed:
                self._before[name].add(value)
            elif self._after[name].count < KEPT:
                self._after[name].add(value)

    def as_json(self) -> dict[str, dict[str, list[float]]]:
        """By name, ``before`` and ``after``."""
        return {
            name: {"before": before.values(), "after": self._after[name].values()}
            for name, before in self._before.items()
        }


class Ring:
    """The last `KEPT` numbers."""

    def __init__(self) -> None:
        self._numbers = array("d", [1.0] * KEPT)
        self.count = 0

    def add(self, value: float) -> None:
        self._numbers[self.count % KEPT] = value
        self.count += 1

    def values(self) -> list[float]:
        """In the order in which they came."""
        numbers = self._numbers
        at = self.count % KEPT
        ordered = numbers[:at] if self.count <= at else numbers[at:] + numbers[:at]
        return [float(f"{value:.6g}") for value in ordered]


class Application:
    """Makes calls, and notes what comes of them."""

    def __init__(self, spec: Spec, folder: Path, seed: int) -> None:
        self.spec, self.random = spec, random.Random(seed)
        self.pool, self.at = inputs.kept(spec.name, spec.data), 0
        self.tensor: Any = None
        self.reference = Reference(spec, spec.reference()) if spec.reference is not None else None
        self.streams, self.calls = Streams(), 0
        self.telemetry = Telemetry()
        self._every = 1

        if spec.reference is not None:
            os.environ["QUANTMON_REFERENCE"] = f"{spec.name}={spec.reference()}"
        from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor

        for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
            instrumentor.instrument(meter_provider=self.telemetry.provider, skip_dep_check=True)
        path = folder / (spec.name + spec.path().suffix)
        shutil.copy(spec.path(), path)
        self.trouble = Trouble()
        self.service = Service(spec, path, self.trouble)

    def item(self) -> Array:
        """What comes next: sound in its order, files and pictures at random."""
        if self.spec.picture or self.spec.name == "magika":
            return self.pool[int(self.random.random() * len(self.pool))]
        self.at = (self.at + 1) % len(self.pool)
        return self.pool[self.at]

    def burst(self, calls: int = BURST, pause: float = PAUSE) -> None:
        """A few calls in a row, then a collection and a pause."""
        end = time.perf_counter() + 0.005 * calls / BURST
        for _ in range(calls):
            self.one()
            if time.perf_counter() > end:
                break
        self.telemetry.collect()
        time.sleep(pause)

    def one(self, *, compare: bool = False) -> None:
        """One call; with ``compare`` the reference runs on its input too."""
        spec, item = self.spec, self.item()
        tensor = self.tensor(spec, item) if self.tensor else spec.quantize(spec.normalize(item))
        state = self.service.state
        self.calls += 1
        try:
            outputs, took = self.service.call(tensor)
        except Exception:  # the application goes on, as a service does
            self.streams.add({"error": 1.0})
            return
        # Looking on takes longer than a small model itself.
        if self.streams.changed or self.calls % self._every == 0:
            self._every = 1 if took > 1e-4 else 8
            self.streams.add({"error": 0.0, "seconds": took, **sketch(spec, tensor, outputs)})
        if compare and self.reference is not None:
            self.streams.add(error(outputs, self.reference.outputs(as_float(tensor), state)))

    def healthy(self, seconds: float, calls: int, watched: AbstractSet[str], *, busy: bool = False) -> None:
        """Go on without a fault for so long and so many calls, and until these types have a baseline.

        Without pauses if ``busy``. A baseline of times is learnt anew where its halves differ, as on a host that is
        slow by turns; a fault before that would be a part of it.
        """
        began = time.monotonic()
        while (
            time.monotonic() - began < seconds
            or self.calls < calls
            or (watched - self.telemetry.watched and time.monotonic() - began < MOST_SECONDS)
        ):
            self.burst(*((20 * BURST, 0.0) if busy else ()))
        for _ in range(REFERENCES):
            self.one(compare=True)

    def fault(self, fault: Fault, least_seconds: float) -> list[dict[str, Any]]:
        """Go on with ``fault`` until it is told, or long enough; what was told, in its order."""
        self.telemetry.collect()
        known, evaluations = dict(self.telemetry.anomalies), self.telemetry.evaluations
        told: list[dict[str, Any]] = []
        end = fault.begin(self.service) if fault.begin is not None else None
        self.tensor = fault.tensor
        if fault.name == "another domain":
            self.pool, self.at = inputs.kept(f"{self.spec.name}-other", self.spec.domain), 0
        self.streams.changed = True
        began, first, compared = time.monotonic(), self.calls, 0
        try:
            while True:
                self.burst()
                passed, made = time.monotonic() - began, self.calls - first
                for kind, count in self.telemetry.anomalies.items():
                    if count > known.get(kind, 0):
                        known[kind] = count
                        seen = self.telemetry.evaluations - evaluations
                        told.append({"type": kind, "calls": made, "evaluations": seen, "seconds": passed})
                # The floor wants some numbers of after the change, however soon it is told.
                if compared < REFERENCES and made > 100 + 2 * compared:
                    self.one(compare=True)
                    compared += 1
                enough = (told and made >= FLOOR_CALLS) or (made >= fault.limit and passed >= least_seconds)
                if enough or passed >= MOST_SECONDS:
                    return told
        finally:
            if end is not None:
                end()


def as_float(tensor: Array) -> Array:
    """What the float model is given for the input of the quantized one."""
    return (tensor.astype(np.float32) + 128) * np.float32(1 / 255) if tensor.dtype == np.int8 else tensor


def count_checks() -> list[int]:
    """Counts the calls that are looked at without a reference, of which no metric tells."""
    from otel_quantmon.probe.sampling import Sampler

    count, begin = [0], Sampler.begin

    def counting(self: Any, *args: Any) -> Any:
        sample = begin(self, *args)
        count[0] += bool(sample is not None and sample.check)
        return sample

    Sampler.begin = counting
    return count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=SPECS)
    parser.add_argument("fault", choices=[*FAULTS, "none"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--calls", type=int, default=3300)
    parser.add_argument("--least-seconds", type=float, default=12.0)
    parser.add_argument("--state", type=Path, help="folder with baselines that were learnt before")
    options = parser.parse_args()
    fault = FAULTS.get(options.fault)
    if fault is not None and fault.name == "timeouts 2%":
        os.environ["QUANTMON_TIMEOUT"] = str(TIMEOUT)
    if options.state is not None:
        os.environ["QUANTMON_BASELINE_STATE"] = str(options.state)
    app = Application(SPECS[options.model], options.folder, hash_of(options.model + options.fault))
    app.trouble.wait = TIMEOUT * 1.5
    checks = count_checks()
    began = time.monotonic()
    watched = frozenset() if fault is None else fault.types & {"latency_drift", "stall", "memory_growth"}
    app.healthy(options.seconds, options.calls, watched, busy=fault is None)
    app.telemetry.collect()
    if app.telemetry.calls != app.calls:
        raise RuntimeError(f"of {app.calls} calls {app.telemetry.calls} were observed")
    result: dict[str, Any] = {
        "model": options.model,
        "fault": options.fault,
        "healthy_calls": app.calls,
        "healthy_seconds": time.monotonic() - began,
        "checks": checks[0],
        "evaluations": app.telemetry.evaluations,
        "before": dict(app.telemetry.anomalies),
        "told": [],
    }
    if fault is not None:
        result["told"] = app.fault(fault, options.least_seconds)
        result["calls"] = app.calls - result["healthy_calls"]
    result["streams"] = app.streams.as_json()
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    # A model that hangs or a reference that runs does not keep the benchmark.
    os._exit(0)


if __name__ == "__main__":
    main()
