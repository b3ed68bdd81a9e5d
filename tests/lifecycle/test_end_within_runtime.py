"""A process that ends while a thread of ours is in the midst of a call of a runtime ends as without us."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from real_models import magika_qdq
from runtimes.models import floats, model

from lifecycle.programs import run, run_zero_code
from lifecycle.sink import Sink
from otel_quantmon.fidelity.baseline import record, write_baseline

_NOWHERE = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}

_ONE_CALL = """
import sys
import numpy as np, onnxruntime
if len(sys.argv) > 2:
    from exported import Exported
    from otel_quantmon import ONNXRuntimeInstrumentor
    ONNXRuntimeInstrumentor().instrument(**Exported().providers)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
feeds = {one.name: np.zeros([one.shape[0] if isinstance(one.shape[0], int) else 1, *one.shape[1:]],
         np.int32 if "int32" in one.type else np.float32) for one in session.get_inputs()}
session.run(None, feeds)
print("done", flush=True)
"""

# Each of them ended with SIGABRT in most of its runs, not in all.
_RUNS = 4


@pytest.fixture
def application(tmp_path: Path) -> Path:
    file = tmp_path / "application.py"
    file.write_text(_ONE_CALL)
    return file


def test_one_call_of_a_qdq_model_and_the_end(application: Path) -> None:
    """The graph is inspected, by a second session, just when the interpreter ends; it aborted the process."""
    for _ in range(_RUNS):
        assert run_zero_code(application, str(magika_qdq()), variables=_NOWHERE).stdout == "done\n"


def test_one_call_of_a_qdq_model_and_the_end_with_instrument_in_code() -> None:
    """The same where the providers are the application's, and it does not shut them down."""
    for _ in range(_RUNS):
        assert run(_ONE_CALL, str(magika_qdq()), "in code").stdout == "done\n"


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A model whose run takes long enough that the process ends in the midst of it: some tenths of a second."""
    names = [f"y{i}" for i in range(60)]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in zip(["x", *names], names, strict=False)]
    sides = [floats("x", 700, 700)], [floats(names[-1], 700, 700)]
    weights = np.full((700, 700), 1e-3, np.float32)
    file = tmp_path / "slow.onnx"
    file.write_bytes(model(nodes, inputs=sides[0], outputs=sides[1], name="slow", constants={"w": weights}))
    return file


def test_one_call_and_the_end_while_a_baseline_is_replayed(application: Path, slow: Path, sink: Sink) -> None:
    """A replay runs the session on a thread of ours; the end waits for the case that is under way, and for no more."""
    baseline = slow.with_suffix(".safetensors")
    write_baseline(baseline, record(str(slow), [{"x": np.ones((700, 700), np.float32)}] * 3))
    variables = sink.variables(
        QUANTMON_BASELINE=str(baseline), QUANTMON_BASELINE_INTERVAL="1ms", QUANTMON_REFERENCE_BUDGET="1"
    )
    for _ in range(_RUNS):
        assert run_zero_code(application, str(slow), variables=variables).stdout == "done\n"
