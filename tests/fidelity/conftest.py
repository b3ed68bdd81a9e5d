"""What the tests of fidelity share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from onnx import helper
from runtimes.models import doubling, floats, model

from otel_quantmon.fidelity.reference import client
from otel_quantmon.pipeline import pipelines
from otel_quantmon.process.worker import reference_worker

from .logs import Logs
from .waiting import SECONDS


@pytest.fixture
def instrument(instrument: Callable[..., None]) -> Callable[..., None]:
    """As elsewhere, but without a baseline, which a busy machine's next call may be far from."""
    return lambda **given: instrument(**({"baseline_calls": 1_000_000} | given))


@pytest.fixture
def reference(tmp_path: Path) -> str:
    """``y = x + x``, in a file that no model names."""
    path = tmp_path / "reference.onnx"
    path.write_bytes(doubling())
    return str(path)


@pytest.fixture
def logs() -> Logs:
    return Logs()


@pytest.fixture(autouse=True)
def _no_nice_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The references' processes compete as the tests do: a nice one has a seventieth of a processor beside a busy
    program, and a test would wait for it for minutes. One test of the processes shows how nice they are.
    """
    monkeypatch.setattr(client, "niceness", lambda _: 0)


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    """Ends the references' processes with the test: what refers to them lives as long as its providers."""
    yield
    for pipeline in pipelines():
        reference_worker.submit(pipeline.references.process.close)
    assert reference_worker.flush(SECONDS)


@pytest.fixture
def square(tmp_path: Path) -> str:
    """``y = x * x``, as the reference of ``y = x + x``: equal where x is 2, far from it elsewhere."""
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    path = tmp_path / "square.onnx"
    path.write_bytes(
        model([node], inputs=[floats("x", "n", 3)], outputs=[floats("y", "n", 3)], name="square")
    )
    return str(path)
