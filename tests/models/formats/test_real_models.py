"""The models and inputs that other tests rely on are what their descriptions say."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import real_models
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_digits
from source_texts import source_texts


def test_magika_inputs_are_what_magika_extracts() -> None:
    """Our features equal those of magika's own code."""
    from magika import Magika
    from magika.types import Seekable

    for row, source in zip(real_models.magika_inputs(12), source_texts(12, 8193), strict=True):
        features = Magika._extract_features_from_seekable(
            Seekable(io.BytesIO(source)), 1024, 0, 1024, 256, 4096, False
        )
        assert row.tolist() == [*features.beg, *features.end]


@pytest.mark.parametrize(
    ("model", "share"),
    [
        (real_models.magika_float, 1.0),
        (real_models.magika_dynamic, 0.9),
        (real_models.magika_qdq, 0.9),
        (real_models.magika_qoperator, 0.9),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_magika_models_mostly_agree_with_the_float_model(model: Callable[[], Path], share: float) -> None:
    """Quantized magika still works: it gives the float model's answer for at least this share of sources."""
    inputs = {"bytes": real_models.magika_inputs(32)}
    run = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs)[0]
        for path in (real_models.magika_float(), model())
    ]
    assert np.mean(np.argmax(run[0], axis=1) == np.argmax(run[1], axis=1)) >= share


@pytest.mark.parametrize(
    "model",
    [
        real_models.digits_tflite_float,
        real_models.digits_tflite_full_integer,
        real_models.digits_tflite_float16,
        real_models.digits_tflite_dynamic,
    ],
    ids=lambda f: f.__name__,
)
def test_digits_models_recognise_digits(model: Callable[[], Path]) -> None:
    """Each form of the digits net is right on nine in ten images, so its errors mean something."""
    interpreter = Interpreter(model_path=str(model()))
    interpreter.allocate_tensors()
    source, sink = (interpreter.get_input_details()[0], interpreter.get_output_details()[0])
    right = 0
    labels = np.asarray(load_digits().target)[:200]
    for image, label in zip(real_models.digits_inputs(200), labels, strict=True):
        scale, zero = source["quantization"]
        value = np.round(image / scale + zero).astype(source["dtype"]) if scale else image
        interpreter.set_tensor(source["index"], value[None])
        interpreter.invoke()
        right += int(np.argmax(interpreter.get_tensor(sink["index"])) == label)
    assert right >= 180


def test_two_processes_that_ask_for_one_model_make_it_once(tmp_path: Path) -> None:
    """One makes it while the other waits; both get a complete file under one name, and no other file is left."""
    code = """
import pathlib, sys
import real_models

make = real_models._run_recipe

def counted(name, target):
    with open(sys.argv[1], "a") as made:
        made.write(name + "\\n")
    make(name, target)

real_models._run_recipe = counted
print("ready", flush=True)
sys.stdin.readline()
print(real_models.one_op_onnx())
"""
    cache, made = tmp_path / "cache", tmp_path / "made"
    environment = {"QUANTMON_TEST_CACHE": str(cache), "PYTHONPATH": str(Path(real_models.__file__).parent)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(made)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    paths = {process.communicate("\n", timeout=120)[0].strip() for process in processes}
    assert len(paths) == 1
    assert made.read_text() == "one_op_onnx\n"
    assert [str(path) for path in cache.iterdir() if path.name[0] != "."] == list(paths)
    assert Path(paths.pop()).read_bytes() == real_models.one_op_onnx().read_bytes()
