"""What all fidelity measures of one large output cost, against the one measure of ONNX Runtime's own tool.

``python benchmarks/measures.py [--json FILE] [--elements N] [--rounds N]``: rounds are interleaved, each
figure is the median over rounds, and the ratio is that of medians. Run it with OPENBLAS_NUM_THREADS unset and
set to 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization.qdq_loss_debug import compute_signal_to_quantization_noice_ratio

from otel_quantmon.fidelity.numerics.measures import measure

TARGET = 2.5


def cases(elements: int) -> dict[str, Callable[[], object]]:
    """The peer, and ours on the same float32 values in several shapes and types."""
    rng = np.random.default_rng(0)
    f = rng.standard_normal(elements, dtype=np.float32)
    q = f + rng.standard_normal(elements, dtype=np.float32) * np.float32(0.01)

    def ours(*shape: int, dtype: type = np.float32) -> Callable[[], object]:
        pair = (q.astype(dtype).reshape(shape), f.astype(dtype).reshape(shape))
        return lambda: measure([pair])

    return {
        "peer: SQNR alone": lambda: compute_signal_to_quantization_noice_ratio(f, q),
        "all measures, one row": ours(-1),
        "all measures, 1000 classes": ours(-1, 1000),
        "all measures, 10 classes": ours(-1, 10),
        "all measures, 250,000 classes": ours(-1, 250_000),
        "all measures, 1000 classes, float64": ours(-1, 1000, dtype=np.float64),
    }


def interleaved(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each function."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if round_:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--elements", type=int, default=8_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    medians = interleaved(cases(arguments.elements), arguments.rounds)
    peer = next(iter(medians.values()))
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "unset")
    print(f"{arguments.elements:,} elements, {arguments.rounds} rounds, OPENBLAS_NUM_THREADS {threads}")
    for name, seconds in medians.items():
        print(f"{name:<40}{seconds * 1e3:8.2f} ms   {peer / seconds:5.2f} times as fast as the peer")
    print(f"to reach for float32: {TARGET}")
    if arguments.json:
        report = {
            "elements": arguments.elements,
            "rounds": arguments.rounds,
            "openblas_num_threads": threads,
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
            "machine": platform.machine(),
            "target": TARGET,
            "median_seconds": medians,
            "times_as_fast": {name: peer / seconds for name, seconds in medians.items()},
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
