"""What checking inputs and outputs without a reference costs at the default sampling, as a share of the model's time.

``python benchmarks/checks.py [--json FILE] [--rounds N] [--seconds S]``

A check costs too little, too seldom, to be seen in the time of a loop on a noisy machine. So its cost and its rate
are taken apart. The cost is the processor time of the whole process for one call that is checked, the worker's part
and the wake-up included, less that of a call that is not: the median over interleaved pairs. The rate is counted
over ``--seconds`` of a closed loop at the default settings with a collection each second. Time is that of the call.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from figures import conditions, spread, verdict

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import numpy as np  # noqa: E402  the source tree comes first
import onnxruntime  # noqa: E402
import real_models  # noqa: E402
from ai_edge_litert.interpreter import Interpreter  # noqa: E402
from references import Observed, Run, observed, timed  # noqa: E402

from otel_quantmon import Settings  # noqa: E402
from otel_quantmon.fidelity.assessment import Assessment  # noqa: E402
from otel_quantmon.fidelity.sample import Sample  # noqa: E402
from otel_quantmon.pipeline import Pipeline  # noqa: E402
from otel_quantmon.probe.call_state import CallState  # noqa: E402
from otel_quantmon.probe.sampling import Sampler  # noqa: E402
from otel_quantmon.process.worker import worker  # noqa: E402

# Of a model that takes at least a millisecond; below, a check may cost what a span may.
LONG = 1e-3
MOST_OF_LONG = 0.02
MOST_OF_SHORT = Settings().span_budget


def onnx_model(path: Path, feeds: dict[str, Any]) -> Run:
    """One call of a session on one thread: a pool that spins would drown the processor time of a check."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def tflite_model(path: Path) -> Run:
    """One invocation of an interpreter on noise."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (read,) = interpreter.get_input_details()
    noise = np.random.default_rng(1).normal(scale=0.2, size=read["shape"])
    value = (noise * 100).astype(np.int8) if read["dtype"] is np.int8 else noise.astype(read["dtype"])
    interpreter.set_tensor(read["index"], value)
    return interpreter.invoke


def models() -> dict[str, Run]:
    """From microseconds to tens of milliseconds."""
    magika = real_models.magika_qdq()
    return {
        "wake word TFLite": tflite_model(real_models.wake_word()),
        "digits TFLite": tflite_model(real_models.digits_tflite_full_integer()),
        "magika ONNX, 1 file": onnx_model(magika, {"bytes": real_models.magika_inputs(1)}),
        "magika ONNX, 8 files": onnx_model(magika, {"bytes": real_models.magika_inputs(8)}),
        "basic-pitch TFLite": tflite_model(real_models.basic_pitch_tflite_int8()),
    }


def sampler_of(pipeline: Pipeline, run: Run) -> Sampler:
    """That of the only call state that ``run`` has called."""
    before = {id(state) for state in pipeline.recorder._pending}
    run()
    (sampler,) = [
        state.sampler
        for state in pipeline.recorder._pending
        if isinstance(state, CallState) and id(state) not in before
    ]
    if sampler is None:
        raise RuntimeError("the calls of this model cannot be sampled")
    return sampler


def cost_of_a_check(sampler: Sampler, run: Run, rounds: int) -> list[float]:
    """Seconds of processor time, for each round."""
    costs: list[float] = []
    for number in range(rounds):
        spent = {}
        for checked in (True, False) if number % 2 else (False, True):
            worker.flush(10)
            sampler._checks = 0
            if checked:
                sampler.check()
            began = time.process_time()
            run()
            worker.flush(10)
            spent[checked] = time.process_time() - began
        costs.append(spent[True] - spent[False])
    return costs


class Counted:
    """Counts the checks of all models while it is entered."""

    def __enter__(self) -> Counted:  # noqa: PYI034  Self is not in Python 3.10
        self.checks = 0
        original = self._original = Assessment._check

        def check(assessment: Assessment, sample: Sample) -> None:
            self.checks += 1
            original(assessment, sample)

        Assessment._check = check  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Assessment._check = self._original  # type: ignore[method-assign]


def measure(each: Observed, name: str, run: Run, arguments: Any) -> dict[str, Any]:
    """The row of one model."""
    sampler = sampler_of(each.pipeline, run)
    timed(run, 1.0)
    with Counted() as counted:
        durations: list[float] = []
        for _ in range(max(1, round(arguments.seconds))):
            durations += timed(run, 1.0)
            # Sixty times as often as by default: calls add to the budget of checks when they are collected.
            each.evaluations()
        worker.flush(10)
    seconds = statistics.median(durations)
    cost = spread(cost_of_a_check(sampler, run, arguments.rounds))
    share = counted.checks / len(durations) * cost["median"] / seconds
    most = MOST_OF_LONG if seconds >= LONG else MOST_OF_SHORT
    return {
        "model": name,
        "microseconds": seconds * 1e6,
        "calls": len(durations),
        "checks": counted.checks,
        "check_seconds": cost,
        "share": share,
        "most": most,
        "reached": share <= most,
    }


def main() -> int:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()}")
    print(f"{'model':<22}{'µs':>10}{'calls':>9}{'checks':>8}{'µs a check':>12}{'share':>9}{'at most':>9}")
    rows: list[dict[str, Any]] = []
    with observed(Settings(warmup=0)) as each:
        for name, run in models().items():
            row = measure(each, name, run, arguments)
            rows.append(row)
            print(
                f"{name:<22}{row['microseconds']:10.1f}{row['calls']:9}{row['checks']:8}"
                f"{row['check_seconds']['median'] * 1e6:12.1f}{row['share']:9.4f}{row['most']:9}"
                f"  {verdict(reached=row['reached'])}",
                flush=True,
            )
    print(f"load average {os.getloadavg()}")
    if arguments.json:
        report = {
            "conditions": conditions(("onnxruntime", "ai-edge-litert", "numpy", "opentelemetry-sdk")),
            "models": rows,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["reached"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
