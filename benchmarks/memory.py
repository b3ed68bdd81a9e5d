"""What observing leaves behind: a million calls, and 10,000 sessions made and dropped.

``python benchmarks/memory.py [--json FILE] [--calls N] [--sessions N]``: each figure is taken in a process of its
own, bare and observed with default settings, on a one-op ONNX Runtime session. Resident memory is read after a
warm-up and at ten points from there on, each after a collection of metrics, an export and `gc.collect`.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from figures import conditions, verdict
from overhead import DISTRIBUTIONS, environment
from variants import global_pipeline, instrument
from workloads import WORKLOADS, session_options

MOST_BYTES = 1 << 20
POINTS = 10
WARM_UP_SHARE = 5  # a fifth: pools of the allocator, windows and queues are full by then
OURS = ("Probe", "Model", "CallState", "Series")


def child(kind: str, count: int, *, observed: bool) -> None:
    """Do the work and print resident bytes at each point and what is left of this project's objects."""
    import psutil

    from otel_quantmon.process.worker import worker

    workload = WORKLOADS["ort"]
    path = str(workload.model())
    model = Path(path).read_bytes()
    pipeline = None
    if observed:
        pipeline, _ = global_pipeline()
        instrument()
    session_class = workload.runtime()
    call = workload.calling(session_class, path)
    feeds = {"x": np.ones(4, np.float32), "y": np.ones(4, np.float32)}

    def work(times: int) -> None:
        if kind == "calls":
            for _ in range(times):
                call()
        else:
            for _ in range(times):
                session_class(model, session_options(), providers=["CPUExecutionProvider"]).run(None, feeds)

    process = psutil.Process()
    resident = []
    for times in (count // WARM_UP_SHARE, *[count // POINTS] * POINTS):
        work(times)
        if pipeline is not None:
            worker.flush(60)
            pipeline.flush()
        gc.collect()
        resident.append(process.memory_info().rss)
    left = Counter(type(thing).__name__ for thing in gc.get_objects() if _is_ours(thing))
    if observed and not left:
        raise RuntimeError(f"not even the session that is held has one of {OURS}: it was not observed")
    print(json.dumps({"resident": resident, "left": dict(left)}))


def _is_ours(thing: object) -> bool:
    # Some classes have a property of that name.
    module = str(type(thing).__module__)
    return module.startswith("otel_quantmon.probe") and type(thing).__name__ in OURS


def run(kind: str, count: int, *, observed: bool) -> dict[str, Any]:
    """The findings of a child, with what its resident memory grew by after the warm-up."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", kind, str(count), str(int(observed))],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # A single reading may be off by half a megabyte.
    found["grown"] = statistics.median(found["resident"][-POINTS // 2 :]) - found["resident"][0]
    found["grown_in_second_half"] = found["resident"][-1] - found["resident"][POINTS // 2]
    return found


def main() -> int:
    """Measure, print, write JSON where asked; 1 if a target was missed and --strict was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, count, observed = arguments.child
        child(kind, int(count), observed=observed == "1")
        return 0

    report: dict[str, Any] = {"conditions": conditions(DISTRIBUTIONS), "targets": []}
    for kind, count in (("calls", arguments.calls), ("sessions", arguments.sessions)):
        found = {name: run(kind, count, observed=name == "observed") for name in ("bare", "observed")}
        report[kind] = {"count": count, **found}
        for name, figures in found.items():
            grown = [round((point - figures["resident"][0]) / 1024) for point in figures["resident"]]
            print(f"{count:,} {kind}, {name}: grown by {figures['grown'] / 1024:.0f} KiB; on the way {grown}")
            print(f"  in the second half {figures['grown_in_second_half'] / count * 2:.2f} bytes each")
        left = found["observed"]["left"]
        print(f"  left of this project's objects: {left}")
        if kind == "calls":
            target = {"what": f"{count:,} calls: bytes grown, observed", "at_most": MOST_BYTES}
            report["targets"].append(target | {"measured": found["observed"]["grown"]})
        else:
            target = {"what": f"{count:,} sessions: alive, one being held", "at_most": 1}
            report["targets"].append(target | {"measured": max(left.values(), default=0)})
    for target in report["targets"]:
        target["reached"] = target["measured"] <= target["at_most"]
        word = verdict(reached=target["reached"])
        print(f"{word}  {target['what']}: {target['measured']:,} (at most {target['at_most']:,})")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if arguments.strict and not all(target["reached"] for target in report["targets"]) else 0


if __name__ == "__main__":
    sys.exit(main())
