"""What observing a call costs: this project, code written by hand, and peers, in one interleaved run.

``python benchmarks/overhead.py [--json FILE] [--rounds N] [--calls N] [--workload NAME]... [--variant NAME]...``

Each variant has a process of its own (`worker.py`), and all of them wait while one measures. In each round every
process, in a random order, makes ``--calls`` calls observed, and half as many bare before and after them.
An added cost is the difference of the two in one round and one process, over the bare one: a shared machine is twice
as fast in one second as in the next, and then both are. Tables show the median over rounds and the quartiles, as
microseconds of a machine on which the bare call takes its median over all rounds and processes.

Wall time is the caller's: with fewer than 512 calls in a round the SDK exports no batch within it, with more
(``--calls 1500``) exports contend for the interpreter as under sustained load. CPU time is of the whole process,
after everything that waits has been exported and metrics were collected once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from figures import conditions, spread, verdict
from variants import (
    BY_HAND,
    BY_HAND_PARENT,
    DEFAULT,
    DEFAULT_PARENT,
    DISABLED,
    NO_PROVIDER,
    VARIANTS,
)
from workloads import ROOT, WORKLOADS, Workload

WORKER = Path(__file__).with_name("worker.py")
DISTRIBUTIONS = (
    "onnxruntime",
    "ai-edge-litert",
    "numpy",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "wrapt",
    "prometheus-client",
    "sentry-sdk",
    "ddtrace",
    "logfire",
)

# Variant, what it is compared with, wall or cpu, and the largest share of that which it may add.
SHARES = (
    (DEFAULT_PARENT, BY_HAND_PARENT, "wall", 0.20),
    (DEFAULT_PARENT, BY_HAND_PARENT, "cpu", 0.60),
    (DEFAULT, BY_HAND, "wall", 0.012),
    (DEFAULT, BY_HAND, "cpu", 0.15),
    (DISABLED, BY_HAND, "wall", 0.006),
    (NO_PROVIDER, BY_HAND, "wall", 0.006),
)
SHARES_OF = "ort"
# Workloads that may add so many times what the first one adds, by variant.
ORDINARY = ("ort-dynamic", "ort-three-outputs", "ort-iobinding", "ort-async")
ORDINARY_MOST = 1.5
LEAST_THROUGHPUT = 0.5
THROUGHPUTS_OF = ("wakeword", "wakeword-invoke")

Rounds = dict[str, list[dict[str, Any]]]


class Process:
    """A worker process, idle between its rounds."""

    def __init__(self, workload: str, model: str, variant: str, described: str) -> None:
        self.variant = variant
        # Shown only if the process fails; closed when this is left.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), workload, model, variant, described],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment() | VARIANTS[variant].environment,
        )

    def __enter__(self) -> Process:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()

    def answer(self) -> dict[str, Any]:
        """The next line, which the process must have been asked for."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"the process of {self.variant!r} ended:\n{self._errors.read()}")
        return json.loads(line)

    def round(self, calls: int) -> dict[str, Any]:
        """Nanoseconds per call, bare and observed."""
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps({"calls": calls}) + "\n")
            self._process.stdin.flush()
        return self.answer()


def environment() -> dict[str, str]:
    """This process's, without anybody's settings, and with the source tree first."""
    prefixes = ("OTEL_", "QUANTMON_", "DD_", "SENTRY_", "LOGFIRE_", "PROMETHEUS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), kept.get("PYTHONPATH")]))
    return kept


def rounds_of(
    name: str, workload: Workload, variants: Sequence[str], rounds: int, calls: int, rng: random.Random
) -> Rounds:
    """Measure one workload: for each variant its rounds."""
    model = str(workload.model())
    described = subprocess.run(
        [sys.executable, str(WORKER), "--describe", name, model],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    results: Rounds = {variant: [] for variant in variants}
    with ExitStack() as stack:
        processes = []
        # One after another: their warm-up would disturb each other's.
        for variant in variants:
            process = stack.enter_context(Process(name, model, variant, described))
            process.answer()
            processes.append(process)
        for number in range(rounds):
            for process in rng.sample(processes, len(processes)):
                measured = process.round(calls)
                results[process.variant].append(measured)
            print(f"\r{name}: round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    return results


def summary_of(results: Rounds, calls: int) -> dict[str, Any]:
    """For each variant the added cost in microseconds, and its share of that of the variant by hand."""
    summary: dict[str, Any] = {}
    bare = median([r["bare_wall"] for rounds in results.values() for r in rounds]) / 1e3
    for variant, rounds in results.items():
        entry: dict[str, Any] = {
            "title": VARIANTS[variant].title,
            "bare_us": spread([r["bare_wall"] / 1e3 for r in rounds]),
            "throughput_kept": spread([r["bare_wall"] / r["wall"] for r in rounds]),
        }
        for kind in ("wall", "caller", "cpu"):
            added = [(r[kind] / r[f"bare_{kind}"] - 1) * bare for r in rounds]
            entry[f"added_{kind}_us"] = spread(added)
        entry["spans_per_call"] = None
        if all(r["exported"] is not None for r in rounds):
            entry["spans_per_call"] = sum(r["exported"] for r in rounds) / (calls * len(rounds))
        summary[variant] = entry
    for variant, entry in summary.items():
        of = BY_HAND_PARENT if VARIANTS[variant].parent else BY_HAND
        if of in summary:
            for kind in ("wall", "caller", "cpu"):
                by_hand = summary[of][f"added_{kind}_us"]["median"]
                entry[f"share_{kind}"] = entry[f"added_{kind}_us"]["median"] / by_hand
    return summary


def targets_of(
    name: str, summary: dict[str, Any], fixed: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The targets that this workload has, with what was measured; ``fixed`` is the summary of `SHARES_OF`."""
    targets = []
    for variant in (DEFAULT, DEFAULT_PARENT):
        if name in ORDINARY and fixed is not None and variant in summary and variant in fixed:
            # Of the CPU time in the caller's thread: the difference is a fraction of a microsecond.
            times = (
                summary[variant]["added_caller_us"]["median"] / fixed[variant]["added_caller_us"]["median"]
            )
            what = f"{VARIANTS[variant].title}: added in the caller's thread, over that of {SHARES_OF}"
            targets.append(
                {"what": what, "at_most": ORDINARY_MOST, "measured": times, "reached": times <= ORDINARY_MOST}
            )
    if name == SHARES_OF:
        for variant, of, kind, limit in SHARES:
            if variant in summary and of in summary:
                share = summary[variant][f"share_{kind}"]
                what = f"{VARIANTS[variant].title}: {kind} added, share of by hand"
                target = {"what": what, "at_most": limit, "measured": share, "reached": share <= limit}
                # What a busy machine hardly disturbs.
                targets.append(target | {"in_caller_thread": summary[variant]["share_caller"]})
    if name in THROUGHPUTS_OF and DEFAULT in summary:
        kept = summary[DEFAULT]["throughput_kept"]["median"]
        targets.append(
            {
                "what": f"{VARIANTS[DEFAULT].title}: throughput kept",
                "at_least": LEAST_THROUGHPUT,
                "measured": kept,
                "reached": kept >= LEAST_THROUGHPUT,
            }
        )
    return targets


def show(title: str, summary: dict[str, Any], targets: Sequence[dict[str, Any]]) -> None:
    """Print the table of one workload."""
    print(f"\n{title}\nmicroseconds per call, median [quartiles] over rounds; share of the one by hand\n")
    print(f"{'variant':<60}{'bare':>7}{'added wall':>24}{'share':>7}{'added CPU':>24}{'share':>7}{'kept':>6}")
    for entry in summary.values():
        cells = [f"{entry['title']:<60}{entry['bare_us']['median']:>7.1f}"]
        for kind in ("wall", "cpu"):
            added = entry[f"added_{kind}_us"]
            cells.append(f"{added['median']:>8.2f} [{added['q1']:.2f}, {added['q3']:.2f}]".rjust(24))
            share = entry.get(f"share_{kind}")
            cells.append(f"{'' if share is None else format(share, '.3f'):>7}")
        print("".join(cells) + f"{entry['throughput_kept']['median']:>6.2f}")
        spans = entry["spans_per_call"]
        # Every call of these makes a span, so fewer mean that the batch processor's queue overflowed.
        if entry["title"].startswith("by hand") and spans is not None and spans < 0.999:
            print(f"    only {spans:.3f} spans per call were exported: choose fewer --calls")
    print()
    for target in targets:
        limit = f"at most {target['at_most']}" if "at_most" in target else f"at least {target['at_least']}"
        print(f"{verdict(reached=target['reached'])}  {target['what']}: {target['measured']:.3f} ({limit})")
        if "in_caller_thread" in target:
            print(f"      of CPU time in the caller's thread: {target['in_caller_thread']:.3f}")


def main() -> int:
    """Measure, print tables, write JSON where asked; 1 if a target was missed and --strict was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument(
        "--calls", type=int, default=500, help="in a round; with 2048 the SDK's span queue may overflow"
    )
    parser.add_argument(
        "--workload", action="append", choices=WORKLOADS, help="may be repeated; all by default"
    )
    parser.add_argument(
        "--variant", action="append", choices=VARIANTS, help="may be repeated; all by default"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random orders")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    arguments = parser.parse_args()

    rng = random.Random(arguments.seed)
    report: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "conditions": conditions(DISTRIBUTIONS),
        "rounds": arguments.rounds,
        "calls": arguments.calls,
        "seed": arguments.seed,
        "workloads": {},
    }
    print(json.dumps(report["conditions"]))
    reached = True
    for name in arguments.workload or WORKLOADS:
        workload = WORKLOADS[name]
        results = rounds_of(
            name, workload, arguments.variant or list(VARIANTS), arguments.rounds, arguments.calls, rng
        )
        summary = summary_of(results, arguments.calls)
        fixed = report["workloads"].get(SHARES_OF, {}).get("summary")
        targets = targets_of(name, summary, fixed)
        reached &= all(target["reached"] for target in targets)
        show(workload.title, summary, targets)
        report["workloads"][name] = {"summary": summary, "targets": targets, "nanoseconds": results}
    report["load_average_at_end"] = conditions(())["load_average"]
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if arguments.strict and not reached else 0


if __name__ == "__main__":
    sys.exit(main())
