"""Each way into TensorFlow Lite's interpreter, in every package that carries it and is installed here."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from inspect import cleandoc
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import real_models
from exported import Exported

from otel_quantmon import TFLiteInstrumentor
from otel_quantmon.models.formats import read_facts
from runtimes import tflite_models
from runtimes.expected import metrics_of_one_call

Instrument = Callable[..., None]

# The names that TensorFlow's converter gave the wake word's input and output.
AUDIO, CHANCE = "serving_default_input_audio:0", "StatefulPartitionedCall:0"


@pytest.fixture(
    scope="module",
    params=[
        "ai_edge_litert.interpreter",
        "tflite_runtime.interpreter",
        "tensorflow.lite.python.interpreter",
    ],
)
def module(request: pytest.FixtureRequest) -> ModuleType:
    """A module with `Interpreter`; TensorFlow's costs seconds to import, once."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip(request.param, exc_type=ModuleNotFoundError)


@pytest.fixture
def runtime(module: ModuleType) -> str:
    """Value of ``quantmon.runtime.name`` for `module`."""
    return "litert" if module.__name__.startswith("ai_edge_litert") else "tflite"


@pytest.fixture
def digits() -> str:
    """A full-integer net whose batch is dynamic."""
    try:
        return str(real_models.digits_tflite_full_integer())
    except (PackageNotFoundError, RuntimeError):
        pytest.skip("TensorFlow is not installed here to convert the model")


def interpreter_of(module: ModuleType, model: str | bytes, exported: Exported) -> Any:
    """An interpreter with its tensors, and all known of it that is read in the background."""
    interpreter = module.Interpreter(model_path=model)
    interpreter.allocate_tensors()
    exported.raw_metrics()
    return interpreter


def set_input(interpreter: Any, value: int = 1) -> Any:
    detail = interpreter.get_input_details()[0]
    data = np.full(detail["shape"], value, detail["dtype"])
    interpreter.set_tensor(detail["index"], data)
    return data


def output(interpreter: Any) -> Any:
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def provider_of(interpreter: Any) -> str:
    """What runs the last node, by the interpreter's own description of its operators."""
    return "XNNPACK" if interpreter._get_ops_details()[-1]["op_name"] == "DELEGATE" else "CPU"


def test_invoke_exports_one_whole_span(
    module: ModuleType, runtime: str, exported: Exported, instrument: Instrument
) -> None:
    """Name, kind, parent, status and every attribute with its type, of an int8 model with state."""
    instrument()
    interpreter = interpreter_of(module, str(real_models.wake_word()), exported)
    set_input(interpreter)
    with exported.tracer.start_as_current_span("request"):
        interpreter.invoke()
    taken_by = provider_of(interpreter)
    assert exported.spans() == cleandoc(
        f"""
            inference hey_jarvis (INTERNAL, parent request, UNSET)
              quantmon.execution_provider='{taken_by}'
              quantmon.input.shapes=('{AUDIO}:1x3x40',)
              quantmon.model.digest=<digest>
              quantmon.model.format='tflite'
              quantmon.model.name='hey_jarvis'
              quantmon.operation.name='invoke'
              quantmon.output.shapes=('{CHANCE}:1x1',)
              quantmon.quantization.activation_type='int8'
              quantmon.quantization.scheme='full_integer'
              quantmon.quantization.weight_type='int8'
              quantmon.runtime.name='{runtime}'
              quantmon.runtime.version=<version>
        """
    )


def test_invoke_exports_these_metrics_and_no_other(
    module: ModuleType, runtime: str, exported: Exported, instrument: Instrument
) -> None:
    """Every metric with its kind, unit and points; no batch size, for the batch is fixed."""
    instrument()
    interpreter = interpreter_of(module, str(real_models.wake_word()), exported)
    set_input(interpreter)
    interpreter.invoke()
    model = f"[hey_jarvis {runtime} full_integer {provider_of(interpreter)}]"
    loaded = f"[hey_jarvis {runtime} full_integer CPU]"
    assert exported.metrics() == metrics_of_one_call(
        model,
        call="invoke",
        span="inference hey_jarvis",
        info="quantmon.cpu.isa=<isa> quantmon.model.digest=<digest> quantmon.model.format='tflite' "
        "quantmon.quantization.activation_type='int8' quantmon.quantization.weight_type='int8' "
        "quantmon.runtime.version=<version>",
        nodes={loaded, model},
        clipped=AUDIO,
        allocated=1,
        memory={
            "io": 121,
            "model_file": real_models.wake_word().stat().st_size,
            "tensor_arena": read_facts(real_models.wake_word()).arena,
        },
        loaded=loaded,
    )


def test_a_signature_runner_exports_one_whole_span(
    module: ModuleType, runtime: str, digits: str, exported: Exported, instrument: Instrument
) -> None:
    """It does not go through `invoke`, and is a way in of its own, with the signature's names and real shapes."""
    instrument()
    interpreter = interpreter_of(module, digits, exported)
    runner = interpreter.get_signature_runner()
    with exported.tracer.start_as_current_span("request"):
        result = runner(image=np.ones((5, 8, 8, 1), np.int8))
    # Keras 2 named outputs after the layer, Keras 3 counts them.
    [(name, scores)] = result.items()
    assert scores.shape == (5, 10)
    assert exported.spans() == cleandoc(
        f"""
            inference {Path(digits).stem} (INTERNAL, parent request, UNSET)
              quantmon.batch.size=5
              quantmon.execution_provider='{provider_of(interpreter)}'
              quantmon.input.shapes=('image:5x8x8x1',)
              quantmon.model.digest=<digest>
              quantmon.model.format='tflite'
              quantmon.model.name='{Path(digits).stem}'
              quantmon.operation.name='__call__'
              quantmon.output.shapes=('{name}:5x10',)
              quantmon.quantization.activation_type='int8'
              quantmon.quantization.scheme='full_integer'
              quantmon.quantization.weight_type='int8'
              quantmon.runtime.name='{runtime}'
              quantmon.runtime.version=<version>
        """
    )
    assert exported.point("quantmon.inference.batch_size").sum == 5
    assert exported.point("quantmon.memory.allocated").value == 50
    assert exported.point("quantmon.memory.usage", memory_type="io").value == 5 * 64 + 50


def test_a_signature_runner_is_measured_when_it_is_given_tensors_of_tensorflow(
    digits: str, exported: Exported, instrument: Instrument
) -> None:
    """TensorFlow's runner takes its eager tensors as inputs: their bytes and batch are those of an array."""
    tensorflow = pytest.importorskip("tensorflow")
    instrument()
    runner = tensorflow.lite.Interpreter(digits).get_signature_runner()
    runner(image=tensorflow.ones((5, 8, 8, 1), tensorflow.int8))
    assert exported.point("quantmon.inference.batch_size").sum == 5
    assert exported.point("quantmon.memory.usage", memory_type="io").value == 5 * 64 + 50


def test_shapes_follow_a_resized_input(
    module: ModuleType, digits: str, exported: Exported, instrument: Instrument
) -> None:
    """After each `allocate_tensors` the sizes are those of the tensors as they are now, and calls are counted on."""
    instrument()
    interpreter = interpreter_of(module, digits, exported)
    for batch in (1, 4, 2, 4):
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [batch, 8, 8, 1])
        interpreter.allocate_tensors()
        set_input(interpreter)
        interpreter.invoke()
        assert output(interpreter).shape == (batch, 10)
    batches = [(span.attributes or {})["quantmon.batch.size"] for span in exported.raw_spans()]
    assert batches == [1, 4, 2, 4]
    assert exported.point("quantmon.inference.batch_size").sum == 11
    shapes = [(span.attributes or {})["quantmon.input.shapes"] for span in exported.raw_spans()]
    assert [shape[0].partition(":0:")[2] for shape in shapes] == [f"{batch}x8x8x1" for batch in batches]
    assert exported.count() == 4


def test_a_warm_model_stays_warm_when_it_is_resized_twice(
    module: ModuleType, digits: str, exported: Exported, instrument: Instrument
) -> None:
    """Without a call in between, as where an application sets one input after another."""
    instrument(warmup=1)
    interpreter = interpreter_of(module, digits, exported)
    for batches in ((1,), (4, 2)):
        for batch in batches:
            interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [batch, 8, 8, 1])
            interpreter.allocate_tensors()
        set_input(interpreter)
        interpreter.invoke()
    assert [(span.attributes or {}).get("quantmon.warmup") for span in exported.raw_spans()] == [True, None]


def test_sizes_of_outputs_follow_a_resized_input(
    module: ModuleType, digits: str, exported: Exported, instrument: Instrument
) -> None:
    """Shapes on the span and bytes in the total are those of the output that the call gave."""
    instrument()
    interpreter = interpreter_of(module, digits, exported)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [4, 8, 8, 1])
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert output(interpreter).shape == (4, 10)
    # XNNPACK of newer releases resizes outputs as it runs, not in `allocate_tensors`.
    shapes = (exported.raw_spans()[0].attributes or {})["quantmon.output.shapes"]
    assert [shape.rpartition(":")[2] for shape in shapes] == ["4x10"]
    assert exported.point("quantmon.memory.allocated").value == 40
    assert exported.point("quantmon.memory.usage", memory_type="io").value == 4 * 64 + 40


def test_outputs_whose_shapes_follow_from_the_values_are_measured_after_each_call(
    module: ModuleType, exported: Exported, instrument: Instrument
) -> None:
    """A WHERE finds as many places as there are: bytes and shapes are those of the call, also where it finds none."""
    instrument(response_hook=lambda *_: None, request_hook=lambda *_: None)
    interpreter = module.Interpreter(model_content=tflite_models.where())
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    for found in (8, 3, 0):
        interpreter.set_tensor(detail["index"], np.arange(8) < found)
        interpreter.invoke()
    shapes = [(span.attributes or {})["quantmon.output.shapes"] for span in exported.raw_spans()]
    assert shapes == [("places:8x1",), ("places:3x1",), ("places:0x1",)]
    assert exported.point("quantmon.memory.allocated").value == (8 + 3) * 8
    assert exported.point("quantmon.memory.usage", memory_type="io").value == 8


def test_an_output_of_no_elements_is_an_empty_array(
    module: ModuleType, exported: Exported, instrument: Instrument
) -> None:
    """The interpreter has no data to give of it; a sample of a detector without detections fails no more."""
    from otel_quantmon.fidelity.engines import open_engine
    from otel_quantmon.runtimes.tflite import reading

    interpreter = module.Interpreter(model_content=tflite_models.where())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros(8, bool))
    interpreter.invoke()
    with pytest.raises(ValueError, match="Invalid tensor size"):
        output(interpreter)
    loaded = reading.describe(module.__name__.partition(".")[0], interpreter, (), {})
    [(name, empty)] = reading.read_outputs(loaded, (interpreter, (), {}, None)).items()
    assert (name, empty.shape, empty.dtype) == ("places", (0, 1), np.int64)
    again = open_engine(tflite_models.where()).run({"chosen": np.zeros(8, bool)})["places"]
    assert (again.shape, again.dtype) == ((0, 1), np.int64)


def test_a_signature_s_batch_is_that_of_its_batch_input(
    module: ModuleType, exported: Exported, instrument: Instrument
) -> None:
    """Whichever input the caller names first, and whatever the signature calls it."""
    instrument()
    interpreter = module.Interpreter(model_content=tflite_models.scaled())
    runner = interpreter.get_signature_runner()
    result = runner(factors=np.ones(4, np.float32), rows=np.ones((7, 4), np.float32))
    assert result["scaled"].shape == (7, 4)
    assert exported.point("quantmon.inference.batch_size").sum == 7
    assert (exported.raw_spans()[0].attributes or {})["quantmon.batch.size"] == 7


def test_tensors_without_names_are_told_apart(
    module: ModuleType, exported: Exported, instrument: Instrument
) -> None:
    """Tools strip names to make models smaller: the file, the interpreter and the engine number such tensors alike."""
    from otel_quantmon.fidelity.engines import open_engine
    from otel_quantmon.runtimes.tflite import reading

    content = tflite_models.unnamed()
    facts = read_facts(content)
    names = ["input#0", "input#1"], ["output#0", "output#1"]
    assert ([t.name for t in facts.inputs], [t.name for t in facts.outputs]) == names
    interpreter = module.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), (5, 3), strict=True):
        interpreter.set_tensor(detail["index"], np.full((1, 4), value, np.float32))
    interpreter.invoke()
    loaded = reading.describe(module.__name__.partition(".")[0], interpreter, (), {})
    assert ([t.name for t in loaded.inputs], [t.name for t in loaded.outputs]) == names
    inputs = reading.read_inputs(loaded, interpreter, (), {})
    outputs = reading.read_outputs(loaded, (interpreter, (), {}, None))
    assert {name: value[0, 0] for name, value in inputs.items()} == {"input#0": 5, "input#1": 3}
    assert {name: value[0, 0] for name, value in outputs.items()} == {"output#0": 2, "output#1": 15}
    again = open_engine(content).run(inputs)
    assert {name: value[0, 0] for name, value in again.items()} == {"output#0": 2, "output#1": 15}


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
