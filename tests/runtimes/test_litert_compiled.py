"""Each way into LiteRT's compiled models: both factories, both ways to run."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models
from exported import Exported

from otel_quantmon import TFLiteInstrumentor
from runtimes.expected import metrics_of_one_call

compiled_model = pytest.importorskip("ai_edge_litert.compiled_model", exc_type=ImportError)

Instrument = Callable[..., None]


def from_file(path: Path) -> Any:
    return compiled_model.CompiledModel.from_file(str(path))


def from_buffer(path: Path) -> Any:
    return compiled_model.CompiledModel.from_buffer(path.read_bytes())


def run_by_index(model: Any) -> Any:
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(np.ones(120, np.int8))
    model.run_by_index(0, inputs, outputs)
    return outputs[0].read(1, np.uint8)


def run_by_name(model: Any) -> Any:
    key = "serving_default"
    given = model.create_input_buffer_by_name(key, "input_audio")
    taken = model.create_output_buffer_by_name(key, "dense")
    given.write(np.ones(120, np.int8))
    model.run_by_name(key, {"input_audio": given}, {"dense": taken})
    return taken.read(1, np.uint8)


@pytest.mark.parametrize("run", [run_by_index, run_by_name])
@pytest.mark.parametrize("make", [from_file, from_buffer])
def test_a_call_exports_one_whole_span_and_these_metrics(
    make: Callable[[Path], Any], run: Callable[[Any], Any], exported: Exported, instrument: Instrument
) -> None:
    """From either factory and by either way; the call gives what it gives without instrumentation."""
    path = real_models.wake_word()
    expected = run(make(path))
    instrument()
    model = make(path)
    exported.raw_metrics()
    with exported.tracer.start_as_current_span("request"):
        np.testing.assert_array_equal(run(model), expected)
    name = "hey_jarvis" if make is from_file else exported.raw_spans()[0].name.removeprefix("inference ")
    assert exported.spans() == cleandoc(
        f"""
            inference {name} (INTERNAL, parent request, UNSET)
              quantmon.execution_provider='CPU'
              quantmon.input.shapes=('input_audio:1x3x40',)
              quantmon.model.digest=<digest>
              quantmon.model.format='tflite'
              quantmon.model.name='{name}'
              quantmon.operation.name='{run.__name__}'
              quantmon.output.shapes=('dense:1x1',)
              quantmon.quantization.activation_type='int8'
              quantmon.quantization.scheme='full_integer'
              quantmon.quantization.weight_type='int8'
              quantmon.runtime.name='litert'
              quantmon.runtime.version=<version>
        """
    )
    metrics = exported.metrics()
    assert metrics == metrics_of_one_call(
        f"[{name} litert full_integer CPU]",
        call=run.__name__,
        span=f"inference {name}",
        info="quantmon.cpu.isa=<isa> quantmon.model.digest=<digest> quantmon.model.format='tflite' "
        "quantmon.quantization.activation_type='int8' quantmon.quantization.weight_type='int8' "
        "quantmon.runtime.version=<version>",
        allocated=1,
        memory={
            "io": 121,
            "model_file": path.stat().st_size,
            "tensor_arena": exported.point("quantmon.memory.usage", memory_type="tensor_arena").value,
        },
    )


@pytest.mark.parametrize("positional", [False, True])
def test_the_accelerator_is_read_as_the_factory_reads_it(
    positional: bool, exported: Exported, instrument: Instrument
) -> None:
    """By its position or by its name; a combination under the names that it has."""
    wanted = compiled_model.HardwareAccelerator.CPU
    instrument()
    arguments: dict[str, Any] = {} if positional else {"hardware_accel": wanted}
    path = str(real_models.wake_word())
    model = compiled_model.CompiledModel.from_file(path, *([wanted] if positional else []), **arguments)
    run_by_index(model)
    assert exported.count(execution_provider="CPU") == 1


def test_a_load_that_fails_is_recorded(tmp_path: Path, exported: Exported, instrument: Instrument) -> None:
    """The runtime's own exception, and its class in the load histogram."""
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"not a model")
    instrument()
    with pytest.raises(Exception, match=r".") as raised:
        from_file(broken)
    point = exported.point("quantmon.model.load.duration", error_type=type(raised.value).__name__)
    assert point.attributes["quantmon.model.name"] == "broken"


def test_a_failed_run_reaches_the_caller_and_telemetry(exported: Exported, instrument: Instrument) -> None:
    """A closed model has nothing to run."""
    instrument(spans="auto")
    model = from_file(real_models.wake_word())
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    model.close()
    with pytest.raises(AttributeError):
        model.run_by_index(0, inputs, outputs)
    assert exported.count(error_type="AttributeError") == 1
    assert exported.raw_spans()[0].status.status_code.name == "ERROR"


def test_a_model_made_before_instrumenting_is_seen(exported: Exported, instrument: Instrument) -> None:
    """What it was made from is not known any more; its calls and shapes are."""
    model = from_file(real_models.wake_word())
    instrument()
    run_by_index(model)
    assert exported.count(model_name="unnamed") == 1
    assert (exported.raw_spans()[0].attributes or {})["quantmon.input.shapes"] == ("input_audio:1x3x40",)


def test_uninstrument_leaves_nothing(exported: Exported, instrument: Instrument) -> None:
    """The class has exactly what it had, its classmethods among it, and the model has no attribute more."""
    cls = compiled_model.CompiledModel
    before = dict(vars(cls))
    instrument()
    model = from_file(real_models.wake_word())
    run_by_index(model)
    TFLiteInstrumentor().uninstrument()
    run_by_index(model)
    assert exported.count() == 1
    assert dict(vars(cls)) == before
    assert "_quantmon_probe" not in vars(model)
