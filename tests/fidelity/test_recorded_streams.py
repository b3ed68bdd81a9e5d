"""A recorded baseline file is the detectors' baseline from the first call on, where it has what they need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from opentelemetry.sdk._logs import LoggerProvider, export
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from runtimes.models import doubling

from otel_quantmon.fidelity.baseline import Baseline, record, write_baseline

from .waiting import anomalies, judge, pipeline_of, until

Instrument = Callable[..., None]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "doubling.onnx"
    path.write_bytes(doubling())
    return path


def recorded(model: Path, cases: int) -> Baseline:
    """A baseline of rows around 1, with the model as its own reference."""
    rng = np.random.default_rng(1)
    inputs = [{"x": rng.normal(1, 0.1, (1, 3)).astype(np.float32)} for _ in range(cases)]
    return record(str(model), inputs, reference=str(model))


def test_inputs_unlike_the_recorded_ones_are_found_without_learning(
    model: Path, tmp_path: Path, instrument: Instrument, exported: Exported
) -> None:
    """The service was never fed right since its start: what it would learn is wrong, and what was recorded is not."""
    path = tmp_path / "golden.safetensors"
    write_baseline(path, recorded(model, 250))
    # It has another name in older releases.
    logs: Any = (getattr(export, "InMemoryLogRecordExporter", None) or export.InMemoryLogExporter)()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(logs))
    instrument(
        baseline=str(path),
        baseline_interval=3600.0,
        reference_budget=1.0,
        check_budget=1.0,
        spans="none",
        anomalies=("input_distribution",),
        logger_provider=provider,
    )
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)

    def run() -> None:
        session.run(None, {"x": rng.normal(30, 3, (1, 3)).astype(np.float32)})
        judge(exported)

    until(lambda: bool(anomalies(exported)), run)
    until(lambda: bool(logs.get_finished_logs()), lambda: judge(exported))
    (told,) = [one.log_record for one in logs.get_finished_logs()]
    attributes = dict(told.attributes or {})
    assert attributes["quantmon.anomaly.type"] == "input_distribution"
    assert attributes["quantmon.baseline.source"] == "recorded"
    assert attributes["quantmon.anomaly.baseline"] == pytest.approx(1.0, abs=0.3)
    (series,) = pipeline_of(exported).live_series()
    assert series.calls < 200


def test_a_few_recorded_cases_leave_the_baseline_to_traffic(model: Path) -> None:
    """A detector needs more: of eight cases none is made, of 120 those of what is compared, of 250 all."""
    from otel_quantmon.fidelity.baseline.streams import states_of

    assert states_of(recorded(model, 8), {}) == {}
    compared = {"relative_error", "cosine", "disagreement"}
    assert set(states_of(recorded(model, 120), {})) == compared
    every = compared | {"input_distribution", "output_distribution"}
    assert set(states_of(recorded(model, 250), {})) == every
