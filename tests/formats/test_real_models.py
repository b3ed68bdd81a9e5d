"""The models and inputs that other tests rely on are what their descriptions say."""

from __future__ import annotations

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


def test_magika_inputs_are_what_magika_extracts() -> None:
    """Our features, on the first sources of the library, equal those of magika's own code."""
    import sysconfig

    from magika import Magika
    from magika.types import Seekable

    library = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(path for path in library.glob("*.py") if path.stat().st_size > 8192)[:4]
    for row, source in zip(real_models.magika_inputs(4), sources, strict=True):
        with source.open("rb") as stream:
            features = Magika._extract_features_from_seekable(
                Seekable(stream), 1024, 0, 1024, 256, 4096, False
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


def test_two_processes_may_make_one_model_at_once(tmp_path: Path) -> None:
    """Both get a complete file under one name, and nothing else is left in the cache."""
    code = "import real_models; print(real_models.one_op_onnx())"
    environment = {"QUANTMON_TEST_CACHE": str(tmp_path), "PYTHONPATH": str(Path(real_models.__file__).parent)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert len(paths) == 1
    assert [str(path) for path in tmp_path.iterdir()] == list(paths)
    assert Path(paths.pop()).read_bytes() == real_models.one_op_onnx().read_bytes()
