"""`capture` records a baseline from the calls that an application makes, and leaves the application as it was."""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from real_models import (
    digits_tflite_float,
    digits_tflite_full_integer,
    magika_float,
    magika_inputs,
    magika_qdq,
    wake_word,
)

from otel_quantmon.fidelity.baseline import BaselineError, capture, check_baseline, read_baseline
from otel_quantmon.fidelity.engines import open_engine


def test_calls_of_a_session(tmp_path, instrument, exported):
    """The next calls of an instrumented session, from whichever thread, are cases; later ones are left alone."""
    path = tmp_path / "captured.safetensors"
    instrument()
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    rows = magika_inputs(10)
    results = {}

    def serve(numbers):
        for number in numbers:
            feeds = {"bytes": rows[number][None].copy()}
            results[number] = session.run(None, feeds)[0].copy()
            # The application goes on with its own arrays.
            feeds["bytes"][:] = 0

    with capture(session, path, calls=8, reference=str(magika_float())) as captured:
        threads = [threading.Thread(target=serve, args=(range(start, 10, 2),)) for start in range(2)]
        for thread in threads:
            thread.start()
        assert captured.done.wait(120)
        for thread in threads:
            thread.join()
    baseline = read_baseline(path)
    assert len(baseline.cases) == 8
    for case in baseline.cases:
        (number,) = (i for i, row in enumerate(rows) if (case.inputs["bytes"] == row).all())
        np.testing.assert_array_equal(case.outputs["target_label"], results[number])
    assert baseline.latency.count == 8
    assert baseline.reference_digest is not None
    assert check_baseline(baseline, open_engine(str(magika_qdq()))).passed
    assert exported.count() == 10
    assert "run" not in vars(session)


def test_calls_of_an_interpreter(tmp_path):
    """An interpreter that nothing instruments is captured too, with its integer inputs and outputs."""
    path = tmp_path / "captured.safetensors"
    interpreter = Interpreter(str(digits_tflite_full_integer()))
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    reference = str(digits_tflite_float())
    with capture(interpreter, path, calls=3, model=str(digits_tflite_full_integer()), reference=reference):
        for value in (-128, 0, 127):
            interpreter.set_tensor(given["index"], np.full((1, 8, 8, 1), value, np.int8))
            interpreter.invoke()
    baseline = read_baseline(path)
    assert [int(case.inputs[given["name"]][0, 0, 0, 0]) for case in baseline.cases] == [-128, 0, 127]
    assert check_baseline(baseline, open_engine(str(digits_tflite_full_integer()))).outputs
    assert "invoke" not in vars(interpreter)


def test_a_failing_call_is_the_applications(tmp_path):
    """The application's own error reaches it as it was, and is no case."""
    path = tmp_path / "captured.safetensors"
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    with capture(session, path, calls=2):
        with pytest.raises(Exception, match="bytes"):
            session.run(None, {"bytes": np.zeros((1, 2, 3), np.int32)})
        session.run(None, {"bytes": magika_inputs(1)})
    assert len(read_baseline(path).cases) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: capture(object(), path, calls=1), "cannot be captured"),
        (
            lambda path: capture(Interpreter(str(wake_word())), path, calls=1),
            "give the model's path as model=",
        ),
        (
            lambda path: capture(Interpreter(str(wake_word())), path, calls=1, model=str(wake_word())),
            "keeps state between its calls",
        ),
        (lambda path: capture(object(), path, calls=0), "at least 1"),
    ],
)
def test_what_cannot_be_captured(tmp_path, make, message):
    """What is no model, or has a state that nobody knows, is refused before the first call, with a reason."""
    with pytest.raises(BaselineError, match=message), make(tmp_path / "captured.safetensors"):
        pass
    assert not list(tmp_path.iterdir())


def test_no_file_without_calls(tmp_path):
    """Nothing captured is an error, and an error of the application is not hidden behind one; no file is written."""
    path = tmp_path / "captured.safetensors"
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    with pytest.raises(BaselineError, match="no call was made"), capture(session, path, calls=1):
        pass
    with pytest.raises(ZeroDivisionError), capture(session, path, calls=1):
        raise ZeroDivisionError
    assert not path.exists()
