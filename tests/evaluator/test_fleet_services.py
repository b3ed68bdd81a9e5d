"""Two real services on two hosts, a real model, a directory, and ``quantmon evaluate --fleet`` between what they do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import real_models
from lifecycle.programs import SECONDS, environment

SERVICE = """
import random, sys
import onnxruntime
import real_models
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from otel_quantmon import ONNXRuntimeInstrumentor

host, fault, wanted, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
sent = 0

def count(model, inputs, outputs):
    global sent
    sent += 1
    return sent <= wanted

resource = Resource({{"host.name": host, "service.name": "files"}})
ONNXRuntimeInstrumentor().instrument(
    sample_hook=count, meter_provider=MeterProvider([InMemoryMetricReader()], resource)
)
session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
rows, chance = real_models.magika_inputs(200), random.Random(seed)
while sent < wanted:
    row = chance.choice(rows)[None]
    session.run(None, {{"bytes": (row * fault).astype(row.dtype)}})
"""


def serve(folder: Path, wanted: int, seed: int, **faults: float) -> None:
    """Both services at once, until each has sent so many samples."""
    program = folder / "app.py"
    program.write_text(SERVICE.format(model=str(real_models.magika_qdq())))
    remote = {
        "QUANTMON_REFERENCE": "remote",
        "QUANTMON_REMOTE_DIRECTORY": str(folder / "samples"),
        "QUANTMON_REMOTE_INTERVAL": "1ms",
        "QUANTMON_REFERENCE_BUDGET": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(real_models.__file__).parent), *sys.path]),
    }
    running = [
        subprocess.Popen(
            [sys.executable, str(program), host, str(fault), str(wanted), str(seed + number)],
            env=environment() | remote,
        )
        for number, (host, fault) in enumerate(faults.items())
    ]
    assert [one.wait(SECONDS) for one in running] == [0, 0]


def evaluate(folder: Path) -> dict[str, Any]:
    """What the command of docs/fleet.md shows."""
    models = folder / "models.toml"
    models.write_text(f'[models."magika_*"]\nreference = "{real_models.magika_float()}"\n')
    page = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text("utf-8")
    (line,) = re.findall(r"^quantmon (evaluate .*)$", page, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "otel_quantmon.cli", *line.split()],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown | {"log": done.stderr}


def places(shown: dict[str, Any]) -> dict[tuple[str, tuple[str, ...]], int]:
    """How many types of anomaly are on at each place."""
    return dict(Counter((one["scope"], tuple(one["hosts"])) for one in shown["fleet"]))


@pytest.mark.slow
def test_a_fault_in_one_service_is_that_hosts_and_in_both_the_datas(tmp_path: Path) -> None:
    """Healthy: nothing. One is fed a quarter of its values: it is named. Then both: everywhere. Then neither."""
    serve(tmp_path, 160, 0, edge_a=1.0, edge_b=1.0)
    shown = evaluate(tmp_path)
    assert shown["fleet"] == []
    (outcomes,) = shown["samples"].values()
    assert sum(outcomes.values()) == 320
    serve(tmp_path, 60, 10, edge_a=0.25, edge_b=1.0)
    shown = evaluate(tmp_path)
    assert set(places(shown)) == {("host", ("edge_a",))}, shown
    assert "has changed on edge_a alone" in shown["log"]
    assert "likely cause: machine" in shown["log"]
    serve(tmp_path, 60, 20, edge_a=0.25, edge_b=0.25)
    shown = evaluate(tmp_path)
    assert set(places(shown)) == {("everywhere", ())}, shown
    assert "likely cause: data" in shown["log"]
    serve(tmp_path, 160, 30, edge_a=1.0, edge_b=1.0)
    assert evaluate(tmp_path)["fleet"] == []
