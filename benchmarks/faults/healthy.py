"""False alarms: all models in one process, with all that a healthy service does.

``python -m benchmarks.faults.healthy [--calls N]`` prints one line of JSON. Phases follow each other in rounds until
there were so many calls: idle, steady and saturated loads, bursts and pauses, batches of many sizes, a neighbour that
takes the processor, and models that are loaded and dropped. Three readers collect every 0.5, 5 and 60 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import real_models

from benchmarks.faults import inputs
from benchmarks.faults.inputs import Array
from benchmarks.faults.services import SPECS, Service, Spec, Trouble, load


class Caller:
    """Makes calls of one model with its data."""

    def __init__(self, spec: Spec, folder: Path, seed: int) -> None:
        path = folder / (spec.name + spec.path().suffix)
        if not path.exists():
            shutil.copy(spec.path(), path)
        self.service = Service(spec, path, Trouble())
        self.spec, self._random, self._at = spec, random.Random(seed), seed
        items = inputs.kept(spec.name, spec.data)
        # So many that the rows of calls do not begin at the same one each time, within some 30 MB.
        most = max(300, 30_000_000 // items[0].nbytes // 4)
        self._tensors: list[Array] = [spec.quantize(spec.normalize(item)) for item in items[:most]]
        self.lock = threading.Lock()

    def calls(self, count: int) -> int:
        """So many calls in a row."""
        # A model in service has one caller at a time, as an interpreter must.
        with self.lock:
            for _ in range(count):
                self._at = (self._at + 1) % len(self._tensors)
                at = self._at
                if self.spec.picture or self.spec.name == "magika":
                    at = int(self._random.random() * len(self._tensors))
                self.service.call(self._tensors[at])
        return count


class Batches:
    """One session that is called with 1 to 16 items at once."""

    def __init__(self, folder: Path) -> None:
        shutil.copy(real_models.magika_dynamic(), path := folder / "batches.onnx")
        self._session = load("onnxruntime", path)
        self._items = np.concatenate(
            [SPECS["magika"].quantize(x) for x in inputs.kept("magika", SPECS["magika"].data)[:200]]
        )
        self._random = random.Random(3)

    def calls(self, count: int) -> int:
        """Calls, each of a batch of its own size."""
        for _ in range(count):
            size, at = 1 << int(self._random.random() * 5), int(self._random.random() * 180)
            self._session.run(None, {"bytes": self._items[at : at + size]})
        return count


class Healthy:
    """The process and its phases."""

    def __init__(self, folder: Path, readers: tuple[float, ...], seed: int) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import (
            ConsoleMetricExporter,
            InMemoryMetricReader,
            PeriodicExportingMetricReader,
        )

        self._reader = InMemoryMetricReader()
        nowhere = ConsoleMetricExporter(open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        periodic = [PeriodicExportingMetricReader(nowhere, export_interval_millis=1000 * s) for s in readers]
        provider = MeterProvider([self._reader, *periodic])
        references = [f"{s.name}={s.reference()}" for s in SPECS.values() if s.reference is not None]
        os.environ["QUANTMON_REFERENCE"] = ",".join(references)
        from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor

        for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
            instrumentor.instrument(meter_provider=provider, skip_dep_check=True)
        self._folder = folder
        self.callers = [Caller(spec, folder, seed + n) for n, spec in enumerate(SPECS.values())]
        self.batches = Batches(folder)
        self.random = random.Random(seed)
        # Shares of the calls go by what they cost, so that each model has its part of the time.
        self._rows = {
            "magika": 4,
            "silero": 40,
            "digits": 3000,
            "basic_pitch": 1,
            "wake_word": 3000,
            "face": 10,
        }

    def anomalies(self) -> dict[str, int]:
        """By type, all that were ever told."""
        found: dict[str, int] = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points if metric.name == "quantmon.anomalies" else ():
                        of = point.attributes
                        name = (
                            f"{of.get('quantmon.anomaly.type')} ({of.get('quantmon.model.name', 'process')})"
                        )
                        found[name] = found.get(name, 0) + int(point.value)
        return found

    def round(self, rows: float, pause: Callable[[], float], seconds: float) -> int:
        """All models in turn, with ``rows`` times their usual number of calls, and a pause after each."""
        made, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for caller in self.callers:
                # A model that takes long is not called each time in a quiet service.
                if rows < 0.1 and caller.spec.name == "basic_pitch" and self.random.random() > 0.1:
                    continue
                made += caller.calls(max(1, int(self._rows[caller.spec.name] * rows)))
                wait = pause()
                if wait:
                    time.sleep(wait)
        return made

    def idle(self, seconds: float) -> int:
        return self.round(0.002, lambda: 0.2, seconds)

    def steady(self, seconds: float) -> int:
        return self.round(0.1, lambda: 0.005, seconds)

    def saturated(self, seconds: float) -> int:
        """Two threads without a pause."""
        made = [0, 0]

        def work(n: int) -> None:
            made[n] = self.round(1.0, lambda: 0.0, seconds)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(made)

    def bursts(self, seconds: float) -> int:
        return self.round(
            1.0, lambda: self.random.expovariate(1.0) if self.random.random() < 0.3 else 0.0, seconds
        )

    def mixed_batches(self, seconds: float) -> int:
        made, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            made += self.batches.calls(5)
            made += self.callers[2].calls(200)
        return made

    def neighbour(self, seconds: float) -> int:
        """Two processes of others come and go."""
        burn = f"import time\nend = time.monotonic() + {seconds / 2}\nwhile time.monotonic() < end: pass"
        others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(2)]
        made = self.round(0.3, lambda: 0.001, seconds)
        for other in others:
            other.kill()
            other.wait()
        return made

    def coming_and_going(self, seconds: float) -> int:
        """Models are loaded, called and dropped."""
        made, end = 0, time.monotonic() + seconds
        specs = [SPECS["digits"], SPECS["silero"], SPECS["face"]]
        while time.monotonic() < end:
            spec = specs[int(self.random.random() * len(specs))]
            passing = Caller(spec, self._folder, made)
            made += passing.calls(int(100 + 2000 * self.random.random()))
            del passing
            made += self.callers[4].calls(300)
        return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=5_000_000)
    parser.add_argument("--seconds", type=float, default=7200.0, help="no round begins after so long")
    parser.add_argument("--seed", type=int, default=11, help="another one for a run beside it")
    parser.add_argument("--phase", type=float, default=10.0, help="seconds of each phase in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="otel-quantmon-healthy-") as folder:
        healthy = Healthy(Path(folder), (0.5, 5.0, 60.0), options.seed)
        phases = {
            "steady": healthy.steady,
            "saturated, two threads": healthy.saturated,
            "idle": healthy.idle,
            "bursts and pauses": healthy.bursts,
            "mixed batches": healthy.mixed_batches,
            "noisy neighbour": healthy.neighbour,
            "models come and go": healthy.coming_and_going,
        }
        parts: dict[str, Any] = {name: {"calls": 0, "anomalies": {}} for name in phases}
        known: dict[str, int] = {}
        began, made = time.monotonic(), 0
        while made < options.calls and time.monotonic() - began < options.seconds:
            for name, phase in phases.items():
                count = phase(options.phase)
                made += count
                part = parts[name]
                part["calls"] += count
                told = healthy.anomalies()
                for kind, total in told.items():
                    if total > known.get(kind, 0):
                        part["anomalies"][kind] = part["anomalies"].get(kind, 0) + total - known.get(kind, 0)
                known = told
            print(f"{made:,} calls, {time.monotonic() - began:.0f} s, {known}", file=sys.stderr, flush=True)
        result = {"calls": made, "seconds": time.monotonic() - began, "anomalies": known, "phases": parts}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
