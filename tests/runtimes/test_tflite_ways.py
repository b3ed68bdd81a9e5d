"""Each way into TensorFlow Lite's interpreter, in every package that carries it and is installed here."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import real_models
from exported import Exported

from otel_quantmon.models.formats import read_facts
from runtimes import tflite_models
from runtimes.expected import metrics_of_one_call
from runtimes.tflite_calls import interpreter_of, output, provider_of, set_input

Instrument = Callable[..., None]

# The names that TensorFlow's converter gave the wake word's input and output.
AUDIO, CHANCE = "serving_default_input_audio:0", "StatefulPartitionedCall:0"


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
