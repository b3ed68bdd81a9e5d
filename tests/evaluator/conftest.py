"""Samples of real models, as a service would have written them, and a worker for them."""

from __future__ import annotations

import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import real_models
from exported import Exported

from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.ledger import Ledger
from otel_quantmon.evaluator.references import FloatModels, read_models
from otel_quantmon.evaluator.reporting import Reporting
from otel_quantmon.evaluator.worker import EvaluatorWorker
from otel_quantmon.fidelity.remote.record import SampleRecord, encode
from otel_quantmon.fidelity.remote.spool import Spool
from otel_quantmon.models.formats import read_facts

LEASE = 100.0


@pytest.fixture(scope="session")
def calls() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Inputs and outputs of real calls of the quantized magika."""
    session = onnxruntime.InferenceSession(str(real_models.magika_qdq()), providers=["CPUExecutionProvider"])
    found = []
    for row in real_models.magika_inputs(6):
        inputs = {"bytes": row[None]}
        found.append((inputs, {"target_label": session.run(None, inputs)[0]}))
    return found


@pytest.fixture(scope="session")
def made(calls: list[tuple[dict[str, Any], dict[str, Any]]]) -> Callable[..., SampleRecord]:
    """Makes the sample of the call of a number; what is given replaces its fields."""
    facts = read_facts(str(real_models.magika_qdq()))

    def make(number: int = 0, **changed: Any) -> SampleRecord:
        inputs, outputs = calls[number % len(calls)]
        values: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "model": "magika_int8",
            "runtime": "onnxruntime",
            "scheme": "qdq",
            "provider": "CPUExecutionProvider",
            "digest": None,
            "version": None,
            "host": "edge",
            "service": "ocr",
            "instructions": "x86_64+avx2",
            "golden": False,
            "time": 1,
            "trace_id": 0,
            "span_id": 0,
            "inputs": inputs,
            "outputs": outputs,
            "facts": (*facts.inputs, *facts.outputs),
        }
        return SampleRecord(**(values | changed))

    return make


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "samples"


@pytest.fixture
def put(directory: Path) -> Callable[..., None]:
    """Puts samples into the directory, or bytes under a name."""
    spool = Spool(directory)

    def put(*records: SampleRecord, **raw: bytes) -> None:
        for record in records:
            assert spool.put(record.id, encode(record))
        for name, data in raw.items():
            assert spool.put(name, data)

    return put


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The file that names the float model."""
    path = tmp_path / "models.toml"
    path.write_text(f'[models."magika_*"]\nreference = "{real_models.magika_float()}"\n')
    return path


@pytest.fixture
def worker(directory: Path, models: Path, exported: Exported) -> Callable[..., EvaluatorWorker]:
    """Makes workers of the directory, which report to `exported`."""

    def make(name: str = "worker", lease: float = LEASE, **given: Any) -> EvaluatorWorker:
        settings = read_models(str(models))
        return EvaluatorWorker(
            given.get("source") or DirectorySource(str(directory), lease),
            given.get("models") or FloatModels(settings, 1),
            Ledger(directory / "state.sqlite", name),
            Reporting(settings, exported.meter_provider),
        )

    return make


def files(directory: Path, folder: str) -> list[str]:
    """Names of the files in a folder of the directory."""
    return sorted(path.name for path in (directory / folder).iterdir())


def suspects(directory: Path) -> dict[str, int]:
    """How many workers have ended over a sample, by its identity."""
    database = sqlite3.connect(directory / "state.sqlite")
    try:
        return dict(
            Counter(one for (ids,) in database.execute("SELECT ids FROM at_hand") for one in ids.split())
        )
    finally:
        database.close()


def outcomes(exported: Exported) -> dict[str, int]:
    """Samples by what became of them."""
    found: Counter[str] = Counter()
    for point in exported.points("quantmon.reference.evaluations"):
        found[point.attributes["quantmon.reference.outcome"]] += point.value
    return dict(found)


def errors(exported: Exported) -> Any:
    """The point of the histogram of errors."""
    return exported.point("quantmon.output.error")
