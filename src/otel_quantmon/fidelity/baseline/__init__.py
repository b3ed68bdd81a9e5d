"""The golden baseline: recorded inputs, outputs and statistics of a model, in one safetensors file."""

from __future__ import annotations

from otel_quantmon.fidelity.baseline.capture import Capture, capture
from otel_quantmon.fidelity.baseline.file import (
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
from otel_quantmon.fidelity.baseline.inputs import MAX_INPUT_BYTES, InputFileError, load_inputs
from otel_quantmon.fidelity.baseline.recording import record, split_cases
from otel_quantmon.fidelity.baseline.replay import OutputReport, ReplayReport, check_baseline

__all__ = [
    "FORMAT_VERSION",
    "MAX_BASELINE_BYTES",
    "MAX_INPUT_BYTES",
    "Baseline",
    "BaselineError",
    "Capture",
    "Case",
    "Environment",
    "InputFileError",
    "InputStatistics",
    "LatencyStatistics",
    "OutputReport",
    "OutputStatistics",
    "ReplayReport",
    "capture",
    "check_baseline",
    "load_inputs",
    "read_baseline",
    "record",
    "split_cases",
    "write_baseline",
]
