"""What the package adds to the start of a process that uses no model.

``python benchmarks/startup.py [--json FILE] [--rounds N]`` in an environment that has `opentelemetry-instrument`,
TensorFlow, ONNX Runtime and LiteRT, and not this package: ``opentelemetry-instrument python -c pass`` with and
without it, in turn. It is added as an installation would be, by its metadata and its source on the path. Then
both are started with ``PYTHONPROFILEIMPORTTIME``, and the modules that are imported only with it are listed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tomllib
from figures import conditions, spread, verdict

ROOT = Path(__file__).resolve().parent.parent
MOST_MILLISECONDS = 60.0
SHOWN_MODULES = 15
DISTRIBUTIONS = (
    "tensorflow",
    "onnxruntime",
    "ai-edge-litert",
    "opentelemetry-distro",
    "opentelemetry-instrumentation",
    "wrapt",
    "psutil",
)
_IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)$")


def write_metadata(folder: Path) -> None:
    """Write what an installer would into ``folder``: the name, the requirements and the entry points."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = ["Metadata-Version: 2.4", f"Name: {project['name']}", "Version: 0"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    for extra, requirements in project.get("optional-dependencies", {}).items():
        lines.append(f"Provides-Extra: {extra}")
        for requirement in requirements:
            name, _, marker = requirement.partition(";")
            condition = f"({marker.strip()}) and extra == '{extra}'" if marker else f"extra == '{extra}'"
            lines.append(f"Requires-Dist: {name.strip()}; {condition}")
    target = folder / f"{project['name'].replace('-', '_')}-0.dist-info"
    target.mkdir()
    (target / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (target / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")


def environment(site: Path | None, **more: str) -> dict[str, str]:
    """This process's, without anybody's settings; with ``site`` and the source tree on the path if given."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "QUANTMON_", "PYTHONPATH"))
    }
    # What is exported, and where to, is the same with the package and without it.
    kept |= dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")
    if site is not None:
        kept["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT / "src")])
    return kept | more


def start(code: str, variables: dict[str, str]) -> tuple[float, float, str]:
    """Milliseconds that a process took from start to exit, those of CPU time, and its standard error."""
    command = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, "-c", code]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - used.ru_utime + after.ru_stime - used.ru_stime
    return wall * 1e3, cpu * 1e3, done.stderr


def imported(variables: dict[str, str]) -> dict[str, float]:
    """Milliseconds that the import of each module took by itself, the least of three starts.

    The interpreter does not report what `importlib.import_module` is asked for itself, which is how entry points
    are loaded, only what that imports in turn.
    """
    least: dict[str, float] = {}
    for _ in range(3):
        for line in start("pass", variables | {"PYTHONPROFILEIMPORTTIME": "1"})[2].splitlines():
            match = _IMPORT.match(line)
            if match:
                cost = int(match[1]) / 1e3
                least[match[4]] = min(cost, least.get(match[4], cost))
    return least


def main() -> int:
    """Measure, print, write JSON where asked; 1 if the target was missed and --strict was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0, help="of the random orders")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 1 when the target is missed")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    try:
        importlib.metadata.version("otel-quantmon")
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        parser.error("otel-quantmon is installed here: run this in an environment without it")

    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        write_metadata(site)
        variants = {"without": environment(None), "with": environment(site)}
        check = "import sys; assert 'otel_quantmon.instrumentors' in sys.modules, 'not instrumented'"
        start(check, variants["with"])
        start("pass", variants["without"])
        times: dict[str, list[float]] = {
            f"{name}, {kind}": [] for name in variants for kind in ("wall", "cpu")
        }
        for _ in range(arguments.rounds):
            for name in rng.sample(list(variants), 2):
                wall, cpu, _ = start("pass", variants[name])
                times[f"{name}, wall"].append(wall)
                times[f"{name}, cpu"].append(cpu)
        profiles = {name: imported(variables) for name, variables in variants.items()}

    added = {
        f"added, {kind}": [
            b - a for a, b in zip(times[f"without, {kind}"], times[f"with, {kind}"], strict=True)
        ]
        for kind in ("wall", "cpu")
    }
    only = {name: cost for name, cost in profiles["with"].items() if name not in profiles["without"]}
    costly = dict(sorted(only.items(), key=lambda item: -item[1]))
    report: dict[str, Any] = {
        "conditions": conditions(DISTRIBUTIONS),
        "rounds": arguments.rounds,
        "milliseconds": times,
        "summary": {name: spread(values) for name, values in (times | added).items()},
        "imported_only_with": costly,
    }
    for name, figures in report["summary"].items():
        print(
            f"{name:<14} median {figures['median']:7.1f} ms [{figures['q1']:.1f}, {figures['q3']:.1f}],"
            f" least {figures['min']:.1f} ms"
        )
    print(
        f"{len(only)} modules are imported only with the package, {sum(only.values()):.1f} ms by themselves:"
    )
    for name, cost in list(costly.items())[:SHOWN_MODULES]:
        print(f"  {cost:6.2f} ms  {name}")
    measured = report["summary"]["added, wall"]["median"]
    reached = measured < MOST_MILLISECONDS
    report["targets"] = [
        {
            "what": "milliseconds added",
            "at_most": MOST_MILLISECONDS,
            "measured": measured,
            "reached": reached,
        }
    ]
    print(f"{verdict(reached=reached)}  added: {measured:.1f} ms (under {MOST_MILLISECONDS:.0f})")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if arguments.strict and not reached else 0


if __name__ == "__main__":
    sys.exit(main())
