"""What speed-up a model is said to have over itself, by how long one run of it takes.

``python benchmarks/speedup.py [--json FILE] [--trials N]``

The model and its reference are two copies of one file, each in a session of its own, so the right answer is 1. Tried in
turns, with new sessions in each trial: ``first`` and ``shadow``, the evaluations that `quantmon.speedup` comes from,
one of them timed and four; ``compare``, what `quantmon compare` times; ``once``, one call of each, always the same one
first, on the clock of the wall, for contrast.

The column *call* is the share of a run that a model of one small operator takes as well: how far the call itself pulls
a speed-up towards 1. From 100 µs up every trial of ``shadow`` and ``compare`` has to be within 0.03 of 1;
where a median is below 50 µs, no value may be given.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from figures import conditions, verdict

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src")]

import numpy as np  # noqa: E402  the source tree comes first
from onnx import helper, numpy_helper  # noqa: E402

from otel_quantmon.cli.comparison import time_models  # noqa: E402
from otel_quantmon.fidelity.engines import open_engine  # noqa: E402
from otel_quantmon.fidelity.numerics.speedup import SHORTEST, speedup  # noqa: E402
from otel_quantmon.fidelity.reference.evaluation import Evaluator, Task  # noqa: E402

MOST_OFF = 0.03
FROM = 100e-6
_FLOAT = 1

# Width, layers and rows of networks of matrix products: from a run that is all call to one of some milliseconds.
SIZES = ((8, 1, 1), (64, 8, 16), (128, 16, 16), (128, 16, 32), (128, 16, 64), (256, 16, 64), (256, 16, 256))

Way = Callable[[str, str, dict[str, Any]], tuple[list[float], list[float]]]


def products(width: int, layers: int) -> bytes:
    """Matrix products one after another, float32 (n, ``width``)."""
    random = np.random.default_rng(0)
    names = ["x", *(f"t{i}" for i in range(1, layers)), "y"]
    weights = [
        numpy_helper.from_array((random.normal(size=(width, width)) / width**0.5).astype(np.float32), f"w{i}")
        for i in range(layers)
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)],
        "products",
        [helper.make_tensor_value_info("x", _FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", _FLOAT, ["n", width])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def evaluated(
    reference: str, model: str, inputs: dict[str, Any]
) -> Iterator[tuple[list[float], list[float]]]:
    """The times after each timed evaluation, as in the reference's process."""
    evaluator = Evaluator()
    outputs = open_engine(model).run(inputs)
    task = Task(
        model="m", reference=reference, quantized=model, mapping={}, inputs=inputs, outputs=outputs, facts=(),
        median_norms={}, seconds=60.0,
    )  # fmt: skip
    of_reference, of_model = list[float](), list[float]()
    while True:
        evaluation = evaluator.evaluate(task)
        of_reference += evaluation.reference_seconds
        of_model += evaluation.quantized_seconds
        if evaluation.quantized_seconds:
            yield of_reference, of_model


def first(reference: str, model: str, inputs: dict[str, Any]) -> tuple[list[float], list[float]]:
    """What the first value comes from."""
    return next(evaluated(reference, model, inputs))


def shadow(reference: str, model: str, inputs: dict[str, Any]) -> tuple[list[float], list[float]]:
    """What the fourth value comes from, some fifty evaluations later."""
    return next(itertools.islice(evaluated(reference, model, inputs), 3, None))


def by_command(reference: str, model: str, inputs: dict[str, Any]) -> tuple[list[float], list[float]]:
    """As `quantmon compare` times them, after it has compared them."""
    original, quantized = open_engine(reference), open_engine(model)
    quantized.run(inputs)
    original.run(inputs)
    return time_models(original, quantized, [inputs], {}, one_thread=True)


def once(reference: str, model: str, inputs: dict[str, Any]) -> tuple[list[float], list[float]]:
    """One after the other, with nothing before."""
    original, quantized = open_engine(reference), open_engine(model)
    began = time.perf_counter()
    quantized.run(inputs)
    between = time.perf_counter()
    original.run(inputs)
    return [time.perf_counter() - between], [between - began]


WAYS: dict[str, Way] = {"first": first, "shadow": shadow, "compare": by_command, "once": once}


def ratio(of_reference: list[float], of_model: list[float]) -> float:
    """The speed-up, also of runs that are too short or too few for one."""
    found = speedup([s * 1e6 for s in of_reference * 4], [s * 1e6 for s in of_model * 4])
    assert found is not None
    return found


def measured(folder: Path, trials: int) -> list[dict[str, Any]]:
    """One row for each size: the run's median seconds, and each way's ratios and speed-ups."""
    rows: list[dict[str, Any]] = []
    for width, layers, count in SIZES:
        paths = [str(folder / f"{name}.onnx") for name in ("reference", "model")]
        for path in paths:
            Path(path).write_bytes(products(width, layers))
        inputs = {"x": np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)}
        row: dict[str, Any] = {"ratios": {way: [] for way in WAYS}, "given": dict.fromkeys(WAYS, 0)}
        seconds: list[float] = []
        for _ in range(trials):
            for way, run in WAYS.items():
                of_reference, of_model = run(paths[0], paths[1], inputs)
                row["ratios"][way].append(
                    speedup([1e6 * s for s in of_reference * 4], [1e6 * s for s in of_model * 4])
                )
                row["given"][way] += speedup(of_reference, of_model) is not None
                if way == "compare":
                    seconds += of_model
        row["seconds"] = statistics.median(seconds)
        row["call"] = rows[0]["seconds"] / row["seconds"] if rows else 1.0
        rows.append(row)
    return rows


def judged(row: dict[str, Any], trials: int) -> bool:
    """True if what is said of this size is right, or nothing is said."""
    for way in ("shadow", "compare"):
        if row["seconds"] < 0.9 * SHORTEST and row["given"][way]:
            return False
        if row["seconds"] >= FROM and (
            row["given"][way] < trials or max(abs(ratio - 1) for ratio in row["ratios"][way]) > MOST_OFF
        ):
            return False
    return True


def main() -> int:
    """Print a table, and write all ratios if asked. Exit status 1 if a speed-up is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file to write all ratios to")
    parser.add_argument("--trials", type=int, default=20, help="new sessions for each size and way")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder), arguments.trials)
    print(f"{'run, us':>8} {'call':>6} " + "".join(f"{way + ': min, median, max':>28}" for way in WAYS))
    for row in rows:
        shown = "".join(
            f"{min(found):>15.3f} {statistics.median(found):.3f} {max(found):.3f}{' ' if row['given'][way] else '*'}"
            for way, found in row["ratios"].items()
        )
        reached = verdict(reached=judged(row, arguments.trials))
        print(f"{row['seconds'] * 1e6:>8.1f} {row['call']:>6.0%} {shown}  {reached}")
    print("*: no value is given in any trial; the ratio is shown all the same")
    if arguments.json:
        content = {"conditions": conditions(["onnxruntime", "numpy"]), "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1))
    return 0 if all(judged(row, arguments.trials) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
