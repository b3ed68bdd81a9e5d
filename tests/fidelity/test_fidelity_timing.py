"""When an evaluation times the model beside its reference. The clock is the test's; the models are real, and small."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runtimes.models import doubling

from otel_quantmon.fidelity.reference.evaluation import Evaluation, Evaluator, Task


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A model and a reference that is a copy of it."""
    for name in ("model", "reference"):
        (tmp_path / f"{name}.onnx").write_bytes(doubling())
    x = np.ones((2, 3), np.float32)
    return Task(
        model="doubling",
        reference=str(tmp_path / "reference.onnx"),
        quantized=str(tmp_path / "model.onnx"),
        mapping={},
        inputs={"x": x},
        outputs={"y": 2 * x},
        facts=(),
        median_norms={},
        seconds=30.0,
    )


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is looked at, which is once before and once after a run."""
    ticks = itertools.count()
    return lambda: next(ticks) * seconds


def timed_at(evaluations: list[Evaluation]) -> list[int]:
    """The numbers of the evaluations that have times."""
    for one in evaluations:
        assert one.error is None
        assert [c.measures is not None for c in one.comparisons] == [True]
        assert len(one.reference_seconds) == len(one.quantized_seconds)
    return [number for number, one in enumerate(evaluations) if one.quantized_seconds]


def test_a_short_reference_is_timed_at_once_and_then_now_and_then(task: Task) -> None:
    """In the first evaluation and every sixteenth, in as many rounds as forty milliseconds hold, at most 64."""
    evaluator = Evaluator(ticking(0.0001))
    evaluations = [evaluator.evaluate(task) for _ in range(34)]
    assert timed_at(evaluations) == [0, 16, 32]
    assert len(evaluations[0].quantized_seconds) == 64
    assert evaluations[0].quantized_seconds == pytest.approx([0.0001] * 64)


def test_a_long_reference_first_tells_how_far_from_float_the_model_is(task: Task) -> None:
    """It is first timed in its third evaluation, each order of the two models twice."""
    evaluator = Evaluator(ticking(0.06))
    evaluations = [evaluator.evaluate(task) for _ in range(20)]
    assert timed_at(evaluations) == [2, 18]
    assert len(evaluations[2].quantized_seconds) == 4


def test_a_model_whose_file_has_gone_is_compared_without_times(task: Task) -> None:
    """The speed-up alone is unknown."""
    Path(task.quantized or "").unlink()
    evaluator = Evaluator()
    assert timed_at([evaluator.evaluate(task) for _ in range(3)]) == []
