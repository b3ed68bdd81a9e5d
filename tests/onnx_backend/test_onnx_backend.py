"""ONNX's own backend tests, over 4,000, give the same results with and without instrumentation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.onnx_backend

_SCRIPT = Path(__file__).with_name("outcomes.py")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of the suite in each way, both run at once."""
    folder = tmp_path_factory.mktemp("onnx_backend")
    running = {
        way: subprocess.Popen(
            [sys.executable, str(_SCRIPT), way, str(folder / way)],
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{way}.log").open("wb"),
        )
        for way in ("bare", "instrumented")
    }
    for way, process in running.items():
        log = folder / f"{way}.log"
        assert process.wait() == 0, (
            f"the {way} run ended with {process.returncode}:\n{log.read_text()[-4000:]}"
        )
    return {way: json.loads((folder / way).read_text()) for way in running}


def test_every_outcome_is_the_same(reports: dict[str, dict[str, Any]]) -> None:
    """Test for test: passed, skipped, or failed with the same type of exception."""
    bare, instrumented = (reports[way]["outcomes"] for way in ("bare", "instrumented"))
    assert bare.keys() == instrumented.keys()
    different = {test: (bare[test], instrumented[test]) for test in bare if bare[test] != instrumented[test]}
    assert not different
    counts = Counter(outcome.partition(":")[0] for outcome in bare.values())
    assert len(bare) > 4_000, counts
    assert counts["passed"] > 1_000, counts


def test_every_run_is_observed(reports: dict[str, dict[str, Any]]) -> None:
    """As many inferences are recorded, and as many spans made, as a plain counter saw runs."""
    bare, instrumented = reports["bare"], reports["instrumented"]
    assert instrumented["runs"] == bare["runs"] > 1_000
    assert instrumented["recorded"] == instrumented["runs"]
    assert instrumented["spans"] == instrumented["runs"]
    assert (bare["recorded"], bare["spans"]) == (0, 0)
