"""What this package instruments, in the form that OpenTelemetry's tools read."""

from __future__ import annotations

__all__ = ["ONNXRUNTIME_DISTRIBUTIONS", "TFLITE_DISTRIBUTIONS", "_instruments", "_instruments_any"]

ONNXRUNTIME_DISTRIBUTIONS = (
    "onnxruntime >= 1.16",
    "onnxruntime-gpu >= 1.16",
    "onnxruntime-openvino >= 1.16",
    "onnxruntime-directml >= 1.16",
    "onnxruntime-qnn >= 1.16",
    "onnxruntime-migraphx >= 1.16",
    "onnxruntime-rocm >= 1.16",
    "onnxruntime-training >= 1.16",
    "ort-nightly >= 1.16",
)
"""Distributions that carry the module ``onnxruntime``."""

TFLITE_DISTRIBUTIONS = (
    "tensorflow >= 2.15",
    "tensorflow-cpu >= 2.15",
    "tensorflow-intel >= 2.15",
    "tensorflow-macos >= 2.15",
    "tf-nightly >= 2.15",
    "tf-nightly-cpu >= 2.15",
    "ai-edge-litert >= 1.0",
    "ai-edge-litert-nightly >= 1.0",
    "tflite-runtime >= 2.14",
)
"""Distributions that carry a TensorFlow Lite interpreter."""

_instruments: tuple[str, ...] = ()
_instruments_any = (*ONNXRUNTIME_DISTRIBUTIONS, *TFLITE_DISTRIBUTIONS)
