"""``quantmon run --page --report`` and ``quantmon show --page`` around a real program."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from lifecycle.programs import SECONDS, environment
from runtimes.models import doubling

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("plotly", "uvicorn", "onnxruntime", "opentelemetry.distro")),
    reason="without the extra `page`, or otlp",
)
QUANTMON = [sys.executable, "-m", "otel_quantmon.cli"]
APP = """
import numpy as np, onnxruntime, sys
session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
for _ in range(25):
    session.run(None, {"x": np.ones((2, 3), np.float32)})
print("ready", flush=True)
sys.stdin.readline()
"""


def _data(report: Path) -> dict[str, object]:
    found = re.search(r'id="data">(.*?)</script>', report.read_text("utf-8"), re.DOTALL)
    assert found is not None
    told: dict[str, object] = json.loads(found[1])
    return told


def _answer(address: str) -> bytes:
    with urllib.request.urlopen(f"{address}/api/run", timeout=SECONDS) as answer:
        body: bytes = answer.read()
        return body


def _address(line: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found is not None, line
    return found[0]


def test_the_page_is_there_while_the_run_lasts_and_the_report_after_it(tmp_path: Path) -> None:
    """The page answers under the address that was told, ends with the run, and the report has every call."""
    (tmp_path / "net.onnx").write_bytes(doubling())
    (tmp_path / "app.py").write_text(APP)
    run = subprocess.Popen(
        [
            *QUANTMON,
            "run",
            "--page",
            "--report",
            "run.html",
            "--db",
            "run.db",
            "--",
            sys.executable,
            "app.py",
        ],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stderr is not None
    address = _address(run.stderr.readline())
    assert run.stdout.readline() == "ready\n"
    assert b'"ended":null' in _answer(address)
    _, errors = run.communicate("\n", timeout=SECONDS)
    assert run.returncode == 0, errors
    with pytest.raises(OSError):
        _answer(address)
    told = _data(tmp_path / "run.html")
    assert [model["calls"] for model in told["run"]["models"]] == [25]
    assert told["run"]["run"]["exit_status"] == 0

    shown = subprocess.Popen(
        [*QUANTMON, "show", "run.db", "--page", "--report", "again.html"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert shown.stderr is not None
    assert shown.stderr.readline() == "quantmon: the report is in again.html\n"
    assert json.loads(_answer(_address(shown.stderr.readline()))) == told["run"]
    shown.send_signal(signal.SIGINT)
    assert shown.wait(SECONDS) == 0
    shown.stderr.close()
    assert _data(tmp_path / "again.html") == told


def test_a_report_that_has_no_place_is_told_before_the_start(tmp_path: Path) -> None:
    """A folder that is missing is a mistake in the command, not one to be told of after an hour of running."""
    found = subprocess.run(
        [*QUANTMON, "run", "--report", "nowhere/run.html", "--", sys.executable, "-c", "print('started')"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert "there is no folder 'nowhere'" in found.stderr
    assert "Traceback" not in found.stderr
