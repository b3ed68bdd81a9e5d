"""Which float models are given several samples at once: those for which that changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from otel_quantmon.fidelity.engines import open_engine
from otel_quantmon.fidelity.engines.batching import run_together
from otel_quantmon.fidelity.reference.evaluation import Evaluation, Evaluator, Task
from otel_quantmon.models.formats import read_facts


def model(folder: Path, operator: str, first: str | int) -> str:
    """A model of one operator on ``x`` (first, 3): ``Relu``, or ``CumSum`` along the first dimension."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [first, 3]) for name in "xy")
    constants = []
    inputs = ["x"]
    if operator == "CumSum":
        constants.append(helper.make_tensor("axis", TensorProto.INT64, [], [0]))
        inputs.append("axis")
    node = helper.make_node(operator, inputs, ["y"])
    graph = helper.make_graph([node], "g", [x], [y], constants)
    path = folder / f"{operator}_{first}.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    return str(path)


def tasks(path: str, rows: tuple[int, ...]) -> list[Task]:
    random = np.random.default_rng(1)
    facts = read_facts(path)
    return [
        Task(
            model="m",
            reference=path,
            quantized=None,
            mapping={},
            inputs={"x": random.normal(size=(count, 3)).astype(np.float32)},
            outputs={"y": random.normal(size=(count, 3)).astype(np.float32)},
            facts=(*facts.inputs, *facts.outputs),
            median_norms={},
            seconds=30.0,
        )
        for count in rows
    ]


def evaluated(evaluator: Evaluator, some: list[Task]) -> list[Evaluation]:
    """Run together, and compared."""
    return list(map(evaluator.compared, some, evaluator.run_together(some)))


@pytest.mark.parametrize(("operator", "first"), [("Relu", "n"), ("CumSum", "n"), ("Relu", 2)])
def test_samples_together_are_as_alone(tmp_path: Path, operator: str, first: str | int) -> None:
    """Rows that know nothing of each other, a first dimension that is one of time, and one that is fixed."""
    path = model(tmp_path, operator, first)
    some = tasks(path, (2, 2, 2) if first == 2 else (1, 3, 2))
    evaluator = Evaluator()
    alone = [evaluator.evaluate(task).comparisons for task in some]
    for _ in range(2):
        together = evaluated(evaluator, some)
        assert [evaluation.error for evaluation in together] == [None] * 3
        assert [evaluation.comparisons for evaluation in together] == alone


def test_rows_come_back_to_the_call_that_brought_them(tmp_path: Path) -> None:
    """Calls of different lengths share one run."""
    engine = open_engine(model(tmp_path, "Relu", "n"))
    calls = [task.inputs for task in tasks(model(tmp_path, "Relu", "n"), (1, 3, 2))]
    results = run_together(engine, calls, seconds=30)
    assert results is not None
    for call, result in zip(calls, results, strict=True):
        assert np.array_equal(result["y"], np.maximum(call["x"], 0))


def test_one_that_does_not_fit_has_its_own_error(tmp_path: Path) -> None:
    """Beside it the others are evaluated."""
    path = model(tmp_path, "Relu", "n")
    good, bad = tasks(path, (1, 1))
    bad.inputs["x"] = np.zeros((1, 4), np.float32)
    evaluations = evaluated(Evaluator(), [good, bad, good])
    assert [evaluation.error is None for evaluation in evaluations] == [True, False, True]
