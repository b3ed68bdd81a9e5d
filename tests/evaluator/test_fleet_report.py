"""What a worker that judges a fleet reports: from samples to metrics and lines of the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from exported import Exported

from otel_quantmon.evaluator.worker import EvaluatorWorker
from otel_quantmon.fidelity.remote.record import SampleRecord

MODEL = {
    "quantmon.model.name": "magika_int8",
    "quantmon.runtime.name": "onnxruntime",
    "quantmon.quantization.scheme": "qdq",
    "quantmon.execution_provider": "CPUExecutionProvider",
}


def test_a_host_that_disagrees_on_golden_inputs_is_reported(
    made: Callable[..., SampleRecord],
    put: Callable[..., None],
    worker: Callable[..., EvaluatorWorker],
    exported: Exported,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three hosts replay the same cases, one gets other outputs: it is named, with what its processor lacks."""
    for host in ("a", "b", "odd"):
        for number in range(3):
            one = made(number)
            isa = "x86_64+avx2" if host == "odd" else "x86_64+avx512_vnni+avx2"
            outputs = {name: value * (0.7 if host == "odd" else 1.0) for name, value in one.outputs.items()}
            outputs = {name: value.astype(one.outputs[name].dtype) for name, value in outputs.items()}
            put(made(number, host=host, instructions=isa, golden=True, outputs=outputs))
    put(made(host="a"), made(host="odd"))
    judging = worker()
    judging._reporting.join_fleet(tmp_path / "fleet.sqlite", "worker")
    with caplog.at_level(logging.WARNING):
        judging.run(until_empty=True)
    point = exported.point("quantmon.fleet.golden.error_ratio")
    assert dict(point.attributes) == MODEL | {
        "quantmon.fleet.host": "odd",
        "quantmon.fleet.lacking": "avx512_vnni",
    }
    assert point.value > 1.5
    assert exported.point("quantmon.fleet.size").value == 2
    active = exported.points("quantmon.fleet.anomaly.active")
    assert {(p.attributes["quantmon.fleet.scope"], p.value) for p in active} == {("everywhere", 0.0)}
    (line,) = (one.getMessage() for one in caplog.records if "golden inputs" in one.getMessage())
    assert "hosts odd, which lack avx512_vnni" in line
    assert "quantmon certify" in line
