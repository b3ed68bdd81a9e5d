"""The golden baseline: recorded inputs, outputs and statistics of a model, in one safetensors file."""

from __future__ import annotations

from otel_quantmon.baseline.file import (
    FORMAT_VERSION,
    MAX_BASELINE_BYTES,
    Baseline,
    BaselineError,
    Case,
    Environment,
    InputStatistics,
    LatencyStatistics,
    OutputStatistics,
    read_baseline,
    write_baseline,
)
from otel_quantmon.baseline.inputs import MAX_INPUT_BYTES, InputFileError, load_inputs

__all__ = [
    "FORMAT_VERSION",
    "MAX_BASELINE_BYTES",
    "MAX_INPUT_BYTES",
    "Baseline",
    "BaselineError",
    "Case",
    "Environment",
    "InputFileError",
    "InputStatistics",
    "LatencyStatistics",
    "OutputStatistics",
    "load_inputs",
    "read_baseline",
    "write_baseline",
]
