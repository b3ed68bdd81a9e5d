"""Say what all files of a folder are, in batches, by worker processes, and write a table.

    pip install onnxruntime onnx magika
    python classify.py [FOLDER] [-o TABLE.csv]

and the same observed:

    pip install otel-quantmon[otlp]
    opentelemetry-instrument --traces_exporter console --metrics_exporter console python classify.py

An ordinary program that knows no OpenTelemetry. Without a folder it takes Python's own library.
"""

from __future__ import annotations

import argparse
import csv
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.append(str(Path(__file__).parents[1] / "zero-code"))
from magika_int8 import LABELS, features, int8_model

BATCH = 16


@cache
def session() -> onnxruntime.InferenceSession:
    """One for each worker process, made at its first batch."""
    return onnxruntime.InferenceSession(str(int8_model()), providers=["CPUExecutionProvider"])


def classify(files: Sequence[Path]) -> list[tuple[str, str, float]]:
    rows = np.stack([features(file.read_bytes()) for file in files])
    (scores,) = session().run(None, {"bytes": rows})
    return [
        (str(file), LABELS[int(row.argmax())], float(row.max()))
        for file, row in zip(files, scores, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Say what all files of a folder are.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(sysconfig.get_paths()["stdlib"]))
    parser.add_argument("-o", "--output", type=Path, help="a CSV file; by default the standard output")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    int8_model()  # once, before the workers all want it
    files = sorted(arguments.folder.glob("*.py"))
    batches = [files[at : at + BATCH] for at in range(0, len(files), BATCH)]
    # Workers of a pool that is used like this are ended by a signal, and deliver what they have counted all the same.
    with get_context("fork").Pool(arguments.workers) as pool:
        found = [row for rows in pool.imap(classify, batches) for row in rows]
    with open(
        arguments.output or sys.stdout.fileno(), "w", newline="", closefd=bool(arguments.output)
    ) as table:
        writer = csv.writer(table)
        writer.writerow(["file", "label", "score"])
        writer.writerows((file, label, f"{score:.3f}") for file, label, score in found)


if __name__ == "__main__":
    main()
