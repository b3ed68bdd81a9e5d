"""What ``quantmon run`` adds to an application beyond plain zero-code instrumentation: to its calls, and to its start.

``python benchmarks/run.py [--json FILE] [--rounds N] [--calls N]`` in an environment that has this package with its
extras. The same program in turn, in random orders: by itself, under `opentelemetry-instrument` with an endpoint that
refuses, and under ``quantmon run`` with its receiver and its store beside it on the same cores. It times its own calls;
its start is the time from here to its first line.
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
from pathlib import Path
from statistics import median

from figures import conditions

_PROGRAM = """
import time
print(time.time(), flush=True)
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
x = {"x": np.ones((1, 64), np.float32)}
for _ in range(2000):
    session.run(None, x)
calls = int(sys.argv[1])
began = time.perf_counter()
for _ in range(calls):
    session.run(None, x)
print((time.perf_counter() - began) / calls)
"""


def write_model(path: Path) -> None:
    """One operator, as small as a model gets: whatever is added to a call shows most."""
    from onnx import TensorProto, helper, save

    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", tensor[:1], tensor[1:])
    save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def environment(**more: str) -> dict[str, str]:
    """This process's, without anybody's settings."""
    left_out = ("OTEL_", "QUANTMON_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | more


def start(command: list[str], folder: str, variables: dict[str, str]) -> tuple[float, float]:
    """Milliseconds from here to the program's first line, and microseconds of a call."""
    began = time.time()
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True)
    first, call = map(float, done.stdout.split())
    return (first - began) * 1e3, call * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0, help="of the random orders")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    beside = Path(sys.executable)
    program = [sys.executable, "app.py", str(arguments.calls)]
    # An endpoint that refuses at once: the exporters do their work, and there is nobody beside to take it.
    closed = environment(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"
    )
    variants = {
        "bare": (program, environment()),
        "zero-code": ([str(beside.with_name("opentelemetry-instrument")), *program], closed),
        "quantmon run": ([str(beside.with_name("quantmon")), "run", "--", *program], environment()),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder, "net.onnx"))
        Path(folder, "app.py").write_text(_PROGRAM, encoding="utf-8")
        for _ in range(arguments.rounds):
            for name in rng.sample(list(variants), len(variants)):
                command, variables = variants[name]
                times[name].append(start(command, folder, variables))
    found = {
        name: {"start_ms": median(first for first, _ in runs), "call_us": median(call for _, call in runs)}
        for name, runs in times.items()
    }
    print(f"{'':14}{'start, ms':>12}{'call, us':>12}")
    for name, figures in found.items():
        print(f"{name:14}{figures['start_ms']:12.0f}{figures['call_us']:12.2f}")
    if arguments.json:
        told = {
            "conditions": conditions(("onnxruntime", "opentelemetry-sdk", "otel-quantmon")),
            "medians": found,
            "runs": times,
        }
        arguments.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
