"""A reference whose file is replaced, as a deployment does it while the application runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from otel_quantmon.fidelity.reference import evaluation
from otel_quantmon.fidelity.reference.evaluation import Evaluator, Task
from otel_quantmon.models.formats import read_facts


def multiplying(by: float) -> onnx.ModelProto:
    """Return a model of ``y = by * x`` for rows of 300."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 300]) for name in "xy"]
    weights = numpy_helper.from_array(np.full((1, 300), by, np.float32), "w")
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "multiplying", ends[:1], ends[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def write(path: Path, by: float) -> None:
    """Put a model in the place of the file, in one step."""
    new = path.with_suffix(".new")
    onnx.save(multiplying(by), new)
    new.replace(path)


def write_data(folder: Path, by: float) -> None:
    """Write the model's external data; the file of the model is the same whatever is in it."""
    new = folder / "w.new"
    new.write_bytes(np.full((1, 300), by, np.float32).tobytes())
    new.replace(folder / "w.data")


def error_of(evaluator: Evaluator, path: Path, by: float) -> float | str:
    """Return the relative error of a model that multiplies, or why there is none."""
    x = np.ones((1, 300), np.float32)
    task = Task(
        model="m",
        reference=str(path),
        quantized=None,
        mapping={},
        inputs={"x": x},
        outputs={"y": by * x},
        facts=(),
        median_norms={},
        seconds=30.0,
    )
    found = evaluator.evaluate(task)
    if found.error is not None:
        return found.error
    (one,) = found.comparisons
    assert one.measures is not None
    return one.measures.relative_error


def test_a_replaced_reference_is_loaded_anew(tmp_path: Path) -> None:
    """A new release of both models under the old names: it is not compared with the old float model."""
    path, evaluator = tmp_path / "float.onnx", Evaluator()
    write(path, 1.0)
    first = evaluator.engine(str(path))
    assert error_of(evaluator, path, 1.0) == 0.0
    assert evaluator.engine(str(path)) is first
    write(path, 2.0)
    assert error_of(evaluator, path, 2.0) == 0.0
    assert len(evaluator._engines) == 1


def test_replaced_external_data_is_another_reference(tmp_path: Path) -> None:
    """The weights are in a file beside it, which is replaced alone."""
    path, evaluator = tmp_path / "float.onnx", Evaluator()
    onnx.save(
        multiplying(1.0),
        path,
        save_as_external_data=True,
        location="w.data",
        size_threshold=0,
        convert_attribute=False,
    )
    assert read_facts(str(path)).external == ("w.data",)
    write_data(tmp_path, 1.0)
    assert error_of(evaluator, path, 1.0) == 0.0
    write_data(tmp_path, 2.0)
    assert error_of(evaluator, path, 2.0) == 0.0


def test_a_reference_whose_file_is_gone_is_still_one(tmp_path: Path) -> None:
    """As one that was fetched into a temporary folder; and what cannot be loaded in its place is told."""
    path, evaluator = tmp_path / "float.onnx", Evaluator()
    write(path, 1.0)
    assert error_of(evaluator, path, 1.0) == 0.0
    path.unlink()
    assert error_of(evaluator, path, 1.0) == 0.0
    path.write_bytes(b"half of a model")
    assert isinstance(error_of(evaluator, path, 1.0), str)
    write(path, 2.0)
    assert error_of(evaluator, path, 2.0) == 0.0


def test_a_reference_that_is_not_asked_for_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another one is loaded, so that releases with paths of their own do not add up in memory."""
    evaluator = Evaluator()
    for release in ("1", "2", "3"):
        write(tmp_path / f"{release}.onnx", 1.0)
    evaluator.engine(str(tmp_path / "1.onnx"))
    evaluator.engine(str(tmp_path / "2.onnx"))
    assert len(evaluator._engines) == 2
    monkeypatch.setattr(evaluation, "_UNUSED", -1.0)
    evaluator.engine(str(tmp_path / "3.onnx"))
    assert evaluator._engines.keys() == {str(tmp_path / "3.onnx")}
