"""Faults in real models under ordinary instrumentation: found or not, how soon, and by which name.

``python -m benchmarks.faults [--short] [--json FILE] [--model NAME]... [--fault NAME]... [--jobs N]``: each pair of a
model and a fault in a process of its own (`application.py`). Pairs that the file has already are not run again.

``python -m benchmarks.faults --healthy [--calls N]``: false alarms without a fault (`healthy.py`).

``python -m benchmarks.faults --report --json FILE [--picture FILE]``: the tables of docs/detection.md, and its picture.

Inputs, faults and their places are the same at each run; times are the machine's. All pairs take an hour or two.
``--short`` takes two minutes: a few pairs, and one round of healthy calls. It exits with 1 where what is certain is not
found, or where something rings that should not. What rings about time is shown and is no failure: it is the machine's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from overhead import environment

from benchmarks.faults import ROOT, report
from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.services import SPECS

# Facts that wait for no baseline of the data, so that they are found in a few seconds.
SHORT = (
    ("digits", "errors 1%"),
    ("magika", "another file"),
    ("silero", "lost provider"),
    ("face", "NaN in 1%"),
)


# Types of anomaly that a busy machine is rightly reported by.
OF_TIME = {"latency_drift", "stall", "speedup"}

# Seconds of a first start in which baselines are learnt, without pauses between calls: of a model of 2 µs one call in
# some 2,000 is looked at, and the float original of another takes so long that it runs a few times in ten seconds.
LEARNING = 200.0
LEARNING_LONG = {"basic_pitch": 480.0}

# Seconds of a start before the fault. The memory of a process has no kept baseline, and its blocks are of 128 calls.
# Nor have times here, where the machine is in another mood at each start: 3,000 calls are learnt, over 30 s at least.
BEFORE = 6.0
BEFORE_LEAK = {"basic_pitch": 300.0}
BEFORE_TIME = {"basic_pitch": 120.0}


def before(model: str, fault: str) -> tuple[float, bool]:
    """Seconds before the fault, and whether kept baselines are used."""
    if fault.startswith("leak"):
        return BEFORE_LEAK.get(model, 45.0), True
    if fault.startswith(("latency", "stalls", "starving")):
        return BEFORE_TIME.get(model, 40.0), False
    return BEFORE, True


def child(module: str, *arguments: str) -> dict[str, Any]:
    """What a process of this benchmark says in its last line."""
    command = [sys.executable, "-m", f"benchmarks.faults.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"failed": done.stderr[-2000:] or f"exit status {done.returncode}"}


def run_pair(model: str, fault: str, state: Path | None, more: list[str]) -> dict[str, Any]:
    """One pair, with a copy of the baselines that are kept in ``state``."""
    with tempfile.TemporaryDirectory(prefix="otel-quantmon-faults-") as folder:
        if state is not None:
            shutil.copytree(state, own := Path(folder) / "state")
            more = [*more, "--state", str(own)]
        found = child("application", model, fault, folder, *more)
    return {"model": model, "fault": fault, **found}


def learn(model: str, state: Path) -> None:
    """Let a model run without a fault until its baselines are kept in ``state``, which is made once."""
    if state.exists():
        return
    state.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="otel-quantmon-faults-") as folder:
        seconds = str(LEARNING_LONG.get(model, LEARNING))
        found = child("application", model, "none", folder, "--seconds", seconds, "--state", str(state))
    # Times are those of a busy process here, and of the machine's mood: they are learnt anew, see `before`.
    for path in state.glob("*.json"):
        kept = json.loads(path.read_text())
        kept["streams"] = {k: v for k, v in kept["streams"].items() if k not in ("latency_drift", "stall")}
        path.write_text(json.dumps(kept))
    told = found.get("failed") or f"{found['healthy_calls']:,} calls, {found['before'] or 'no alarm'}"
    print(f"{model}, learning: {told}", file=sys.stderr, flush=True)


def rang(healthy: dict[str, Any]) -> bool:
    """Return True if the run without a fault has failed, or had an alarm that is not about time."""
    if healthy.get("failed"):
        return True
    return any(name.partition(" ")[0] not in OF_TIME for name in healthy["anomalies"])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="two minutes, for continuous integration")
    parser.add_argument("--json", type=Path, help="add results to this file, which may have some")
    parser.add_argument("--model", action="append", choices=SPECS)
    parser.add_argument("--fault", action="append", choices=FAULTS)
    parser.add_argument("--jobs", type=int, default=1, help="pairs at once; more disturb each other's times")
    parser.add_argument("--state", type=Path, help="keep learnt baselines here, for other runs")
    parser.add_argument("--healthy", action="store_true", help="only calls without a fault")
    parser.add_argument("--calls", type=int, default=5_000_000, help="of them")
    parser.add_argument("--seconds", type=float, default=7200.0, help="for them, at most")
    parser.add_argument("--report", action="store_true", help="only tables, of what the file has")
    parser.add_argument("--picture", type=Path, help="draw the pairs here")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    results: dict[str, Any] = {"pairs": [], "healthy": []}
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text())
    lock = threading.Lock()

    def keep(kind: str, result: dict[str, Any]) -> None:
        with lock:
            results[kind].append(result)
            if options.json:
                options.json.write_text(json.dumps(results))

    pairs = [(m, f) for f in options.fault or FAULTS for m in options.model or SPECS]
    calls = options.calls
    if options.short:
        pairs, calls = list(SHORT), min(calls, 200_000)
    known = {(r["model"], r["fault"]) for r in results["pairs"] if "failed" not in r}
    pairs = [p for p in pairs if p not in known and not FAULTS[p[1]].never(SPECS[p[0]])]

    def run(pair: tuple[str, str]) -> None:
        model, fault = pair
        seconds, kept = before(model, fault)
        state = states / model if kept and not options.short else None
        # A baseline of memory is of 64 blocks of 128 calls.
        calls = "10000" if fault.startswith("leak") else "300" if kept else "3300"
        result = run_pair(model, fault, state, ["--seconds", str(seconds), "--calls", calls])
        keep("pairs", result)
        told = ", ".join(f"{t['type']} after {t['calls']}" for t in result.get("told", [])) or "nothing"
        print(f"{pair[0]}, {pair[1]}: {result.get('failed') or told}", file=sys.stderr, flush=True)

    if not (options.report or options.healthy):
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
            states = options.state or Path(scratch)
            if not options.short:
                # Most of them wait most of the time, so all learn at once.
                with ThreadPoolExecutor(len(SPECS)) as learners:
                    list(learners.map(lambda m: learn(m, states / m), sorted({m for m, _ in pairs})))
            list(pool.map(run, pairs))
    if options.healthy or options.short:
        more = ["--seconds", "20", "--phase", "3"] if options.short else ["--seconds", str(options.seconds)]
        keep("healthy", child("healthy", "--calls", str(calls), *more))

    print(report.pairs_table(results["pairs"]))
    print(report.summary(results["pairs"]))
    if not options.short:
        print(report.peers_table(results["pairs"]))
    print(report.healthy_table(results["healthy"]))
    if options.picture:
        report.draw(results["pairs"], options.picture)
    if options.short:
        missed = [r for r in results["pairs"] if not report.found(r)]
        return int(bool(missed) or any(map(rang, results["healthy"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
