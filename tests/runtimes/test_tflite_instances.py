"""Interpreters of TensorFlow Lite from their load to their end: failures, files and buffers, subclasses, views."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import real_models
from exported import Exported

from otel_quantmon import TFLiteInstrumentor
from runtimes.tflite_calls import interpreter_of, output, set_input

Instrument = Callable[..., None]

# The names that TensorFlow's converter gave the wake word's input and output.
AUDIO, CHANCE = "serving_default_input_audio:0", "StatefulPartitionedCall:0"


def test_an_overrun_is_reported_and_its_result_intact(
    module: ModuleType, exported: Exported, instrument: Instrument
) -> None:
    """A run cannot be ended from Python: the caller gets what it computed, telemetry says ``timeout``."""
    expected = module.Interpreter(model_path=str(real_models.wake_word()))
    expected.allocate_tensors()
    set_input(expected)
    expected.invoke()
    instrument(timeout=1e-9)
    interpreter = interpreter_of(module, str(real_models.wake_word()), exported)
    set_input(interpreter)
    interpreter.invoke()
    np.testing.assert_array_equal(output(interpreter), output(expected))
    span = exported.raw_spans()[0]
    assert (span.attributes or {})["error.type"] == "timeout"
    assert (span.status.status_code.name, span.status.description, span.events) == ("ERROR", None, ())
    assert exported.count(error_type="timeout") == exported.count() == 1


def test_a_failure_reaches_the_caller_and_telemetry(
    module: ModuleType, exported: Exported, instrument: Instrument
) -> None:
    """The interpreter's own error when there are no tensors yet; the interpreter works afterwards."""
    instrument(spans="auto")
    interpreter = module.Interpreter(model_path=str(real_models.wake_word()))
    with pytest.raises(RuntimeError) as raised:
        interpreter.invoke()
    assert raised.value.__cause__ is None
    assert exported.count(error_type="RuntimeError") == 1
    assert exported.raw_spans()[0].status.status_code.name == "ERROR"
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert exported.count() == 2


def test_a_load_that_fails_is_recorded(
    module: ModuleType, runtime: str, tmp_path: Path, exported: Exported, instrument: Instrument
) -> None:
    """With the class of the error and the name of the file."""
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3 it is not")
    instrument()
    with pytest.raises(ValueError, match=r"."):
        module.Interpreter(model_path=str(broken))
    point = exported.point("quantmon.model.load.duration", error_type="ValueError")
    assert point.attributes["quantmon.model.name"] == "broken"
    assert point.attributes["quantmon.runtime.name"] == runtime


def test_a_buffer_is_known_by_its_content(
    module: ModuleType, exported: Exported, instrument: Instrument
) -> None:
    """Facts, size and a name of its own, from ``model_content``; nothing keeps the interpreter from running."""
    instrument()
    content = real_models.wake_word().read_bytes()
    interpreter = module.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert exported.point("quantmon.memory.usage", memory_type="model_file").value == len(content)
    info = exported.point("quantmon.model.info")
    assert info.attributes["quantmon.quantization.scheme"] == "full_integer"
    assert info.attributes["quantmon.model.name"] not in {"unnamed", ""}


def test_a_path_of_bytes_is_a_path(module: ModuleType, exported: Exported, instrument: Instrument) -> None:
    """The interpreter takes one, and the model is known by its file all the same."""
    instrument()
    path = real_models.wake_word()
    interpreter_of(module, os.fsencode(path), exported).invoke()
    assert exported.count(model_name=path.stem) == 1


def test_an_interpreter_made_before_instrumenting_is_seen(
    module: ModuleType, exported: Exported, instrument: Instrument
) -> None:
    """It forgets the path it was made from, so that its file's facts are unknown; its calls are counted."""
    interpreter = module.Interpreter(model_path=str(real_models.wake_word()))
    interpreter.allocate_tensors()
    instrument()
    interpreter.invoke()
    assert exported.count(model_name="unnamed") == 1
    attributes = exported.raw_spans()[0].attributes or {}
    assert attributes["quantmon.quantization.scheme"] == "unknown"
    assert attributes["quantmon.input.shapes"] == (f"{AUDIO}:1x3x40",)


def test_a_subclass_counts_once(module: ModuleType, exported: Exported, instrument: Instrument) -> None:
    """One load and one call, though its methods call those of the interpreter."""

    class Checked(module.Interpreter):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)

        def invoke(self) -> None:
            super().invoke()

    instrument()
    interpreter = Checked(model_path=str(real_models.wake_word()))
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert exported.count() == 1
    assert exported.point("quantmon.model.load.duration").count == 1


def test_views_into_the_interpreter_work_as_before(
    module: ModuleType, exported: Exported, instrument: Instrument
) -> None:
    """The interpreter counts references to its inner wrapper before it runs; the observation holds none."""
    instrument()
    interpreter = interpreter_of(module, str(real_models.wake_word()), exported)
    view = interpreter.tensor(interpreter.get_input_details()[0]["index"])
    view()[:] = 3
    for _ in range(3):
        interpreter.invoke()
        interpreter.allocate_tensors()
    held = view()
    with pytest.raises(RuntimeError, match="reference to internal data"):
        interpreter.invoke()
    del held
    interpreter.invoke()
    assert exported.count() == 5


def test_uninstrument_leaves_nothing(module: ModuleType, exported: Exported, instrument: Instrument) -> None:
    """The classes have exactly what they had, and neither interpreter nor runner has an attribute more."""
    classes = (module.Interpreter, module.SignatureRunner)
    before = [dict(vars(cls)) for cls in classes]
    instrument()
    interpreter, signed = (module.Interpreter(model_path=str(real_models.wake_word())) for _ in range(2))
    # A runner holds its interpreter's inner wrapper, which keeps that one from `invoke`: observed or not.
    runner = signed.get_signature_runner()
    audio = np.ones((1, 3, 40), np.int8)
    interpreter.allocate_tensors()
    interpreter.invoke()
    runner(input_audio=audio)
    assert exported.count() == 2
    TFLiteInstrumentor().uninstrument()
    interpreter.invoke()
    runner(input_audio=audio)
    assert exported.count() == 2
    for holder in (interpreter, signed, runner):
        assert not hasattr(holder, "_quantmon_probe")
    for cls, members in zip(classes, before, strict=True):
        assert dict(vars(cls)) == members
