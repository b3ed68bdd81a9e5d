"""Say what files are, with an int8 model on ONNX Runtime: an ordinary application that knows no OpenTelemetry.

    pip install onnxruntime onnx magika
    python onnx_app.py [FILE ...]

and the same observed:

    pip install otel-quantmon[otlp]
    opentelemetry-instrument --traces_exporter console --metrics_exporter console python onnx_app.py [FILE ...]

Without files it takes sources of Python's own library.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import onnxruntime
from magika_int8 import LABELS, features, int8_model, standard_library

session = onnxruntime.InferenceSession(str(int8_model()), providers=["CPUExecutionProvider"])


def classify(file: Path) -> tuple[str, float]:
    (scores,) = session.run(None, {"bytes": features(file.read_bytes())[None]})
    best = int(scores[0].argmax())
    return LABELS[best], float(scores[0, best])


def main(arguments: list[str]) -> None:
    files = [Path(argument) for argument in arguments] or standard_library(150)
    found: Counter[str] = Counter()
    for file in files:
        label, score = classify(file)
        found[label] += 1
        if arguments:
            print(f"{file}: {label} ({score:.0%})")
    print(f"{len(files)} files:", ", ".join(f"{count} {label}" for label, count in found.most_common()))


if __name__ == "__main__":
    main(sys.argv[1:])
