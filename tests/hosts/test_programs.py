"""What other programs lose that start the application's code, as docs/deployment.md says."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from lifecycle.programs import SECONDS, ZERO_CODE, environment, zero_code
from lifecycle.sink import Sink
from real_models import one_op_onnx

from hosts.serving import QUEUE, WORKER, ask_worker, started, told, write_modules

TASK = """
@app.task
def infer():
    import model
    return model.infer()
"""

DELIVERS = """
from celery.signals import worker_process_shutdown

@worker_process_shutdown.connect
def at_the_end(**_):
    import deliver
    deliver.deliver()
"""


@pytest.mark.parametrize(
    ("ending", "arrived"), [("", 0), (DELIVERS, 60)], ids=["as it is", "told to deliver"]
)
def test_celery(ending: str, arrived: int, sink: Sink, tmp_path: Path) -> None:
    """The children of a worker that is stopped by SIGTERM leave past all exit handlers: they deliver if told so."""
    pytest.importorskip("celery")
    write_modules(tmp_path)
    (tmp_path / "tasks.py").write_text(QUEUE + TASK + ending)
    variables = zero_code(tmp_path, sink.variables(QUANTMON_TEST_GUARD="swallow"))
    command = [str(ZERO_CODE), sys.executable, "-m", *WORKER]
    with started(command, tmp_path, variables) as worker:
        results = ask_worker(worker, "infer.delay()", tmp_path, variables)
        worker.stop()
    assert len(results) == 60
    assert all(result[0] == "[" for result in results), worker.said
    assert sink.calls() == arrived, worker.said


def notebook(folder: Path, *cells: str) -> Path:
    """A notebook of these cells of code."""
    file = folder / "notebook.ipynb"
    made = [
        {
            "cell_type": "code",
            "id": f"cell{i}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": cell,
        }
        for i, cell in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    file.write_text(
        json.dumps({"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    )
    return file


CELLS = "import model", "for _ in range(20):\n    model.infer()"
FIRST = """
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from otel_quantmon import ONNXRuntimeInstrumentor

metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
ONNXRuntimeInstrumentor().instrument()
"""


@pytest.mark.parametrize(
    ("started", "cells", "arrived"),
    [([str(ZERO_CODE)], CELLS, 20), ([], CELLS, 0), ([], (FIRST, *CELLS), 20)],
    ids=["under the command", "without it", "in the first cell"],
)
def test_a_notebook(
    started: list[str], cells: tuple[str, ...], arrived: int, sink: Sink, tmp_path: Path
) -> None:
    """A kernel has the environment of what starts it, so it is instrumented if that is; else a cell does it."""
    pytest.importorskip("nbconvert")
    pytest.importorskip("ipykernel")
    write_modules(tmp_path)
    file = notebook(tmp_path, *cells)
    variables = zero_code(tmp_path, sink.variables(QUANTMON_TEST_GUARD="swallow"))
    command = [*started, sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", str(file)]
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert sink.calls() == arrived, done.stderr


FROZEN = """
import sys
import numpy, onnxruntime

if "initialize" in sys.argv:
    from opentelemetry.instrumentation.auto_instrumentation import initialize

    initialize()

feeds = {"x": numpy.ones(4, numpy.float32), "y": numpy.ones(4, numpy.float32)}
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for _ in range(20):
    session.run(None, feeds)
"""
# What lies about in the environment of tests, and PyInstaller would look through.
_WITHOUT = (
    "IPython",
    "onnx",
    "pytest",
    "scipy",
    "sklearn",
    "tkinter",
    "setuptools",
    "grpc",
    "matplotlib",
    "hypothesis",
)


def test_pyinstaller(sink: Sink, tmp_path: Path) -> None:
    """A bundle's interpreter does not look for the command's hook: nothing is observed, and nothing is said. With what
    entry points need bundled, the application switches it on by itself.
    """
    pytest.importorskip("PyInstaller")
    file = tmp_path / "application.py"
    file.write_text(FROZEN)
    # The command of docs/deployment.md, less its first and last words.
    options = shlex.split(told("sh").replace("\\\n", ""))[1:-1]
    options += [word for name in _WITHOUT for word in ("--exclude-module", name)]
    build = [sys.executable, "-m", "PyInstaller", "--onedir", "--log-level", "WARN", *options, str(file)]
    built = subprocess.run(
        build, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=4 * SECONDS
    )
    assert built.returncode == 0, built.stderr
    counted = []
    for arguments in ([], ["initialize"]):
        command = [str(ZERO_CODE), "dist/application/application", str(one_op_onnx()), *arguments]
        variables = environment(sink.variables(QUANTMON_TEST_GUARD="swallow"))
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=SECONDS
        )
        counted.append((done.returncode, done.stderr, sink.calls()))
    assert counted == [(0, "", 0), (0, "", 20)]
