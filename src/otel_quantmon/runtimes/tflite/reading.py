"""What the TensorFlow Lite interpreter says: of a model, of its tensors, and of what a call moved.

All reading of it is here. Nothing is imported but what describes a model, so that an engine reads with it too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from otel_quantmon.models.description import IO, Call, LoadedModel, Shapes, fixed_io, named_shape, source_of
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts
from otel_quantmon.semconv import RuntimeName, bounded

__all__ = [
    "buffer_of",
    "describe",
    "measure_signature",
    "read_inputs",
    "read_outputs",
    "read_signature_inputs",
    "read_signature_outputs",
    "runtime_of",
    "shapes_of_signature",
    "tensor",
]


def describe(package: str, interpreter: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoadedModel:
    """Describe ``interpreter``; see `otel_quantmon.runtimes.attachment.Describe`."""
    runtime, version = runtime_of(package)
    path = args[0] if args else kwargs.get("model_path")
    content = args[1] if len(args) > 1 else kwargs.get("model_content")
    source = source_of(path or content)
    if interpreter is None:
        return LoadedModel(runtime=runtime, runtime_version=version, provider="unknown", source=source)
    if source is None:
        # Where the construction was not seen, the interpreter still holds the buffer; a path it forgets.
        source = source_of(buffer_of(interpreter))
    details = interpreter.get_input_details()
    inputs = tuple(tensor(detail) for detail in details)
    outputs = tuple(tensor(detail) for detail in interpreter.get_output_details())
    io = fixed_io(inputs, outputs)
    dynamic = bool(details) and _is_dynamic(details[0])
    if io is not None and dynamic and inputs[0].shape:
        io = IO(inputs[0].shape[0], io.input_bytes, io.output_bytes)
    return LoadedModel(
        runtime=runtime,
        runtime_version=version,
        provider=_provider(interpreter),
        source=source,
        inputs=inputs,
        outputs=outputs,
        batch_input=inputs[0].name if dynamic else None,
        io=io,
    )


def runtime_of(package: str) -> tuple[RuntimeName, str]:
    """Value of ``quantmon.runtime.name`` for the interpreter in ``package``, and the version."""
    name: RuntimeName = "litert" if package == "ai_edge_litert" else "tflite"
    return name, str(getattr(sys.modules.get(package), "__version__", "unknown"))


def buffer_of(interpreter: Any) -> Any:
    """Return the buffer that ``interpreter`` was made from, which it keeps for its own use; None if that was a file."""
    return getattr(interpreter, "_model_content", None)


def tensor(detail: Mapping[str, Any]) -> TensorFacts:
    """Return a tensor from its details, with its quantization parameters."""
    parameters: dict[str, Any] = detail.get("quantization_parameters") or {}
    scales = tuple(float(scale) for scale in parameters.get("scales", ()))
    # Where there are tensors there is numpy, whose older releases name some types differently from their dtype.
    dtype = str(sys.modules["numpy"].dtype(detail["dtype"]).name)
    quantization = None
    # Tensors that hold shapes come with a scale of 0: nothing was quantized.
    if scales and all(scale > 0 for scale in scales):
        zero_points = tuple(int(point) for point in parameters["zero_points"])
        axis = int(parameters["quantized_dimension"]) if len(scales) > 1 else None
        quantization = QuantizationParameters(scales, zero_points, dtype, axis)
    return TensorFacts(str(detail["name"]), dtype, tuple(int(d) for d in detail["shape"]), quantization)


def _is_dynamic(detail: dict[str, Any]) -> bool:
    signature = detail.get("shape_signature")
    return signature is not None and len(signature) > 0 and int(signature[0]) < 0


def _provider(interpreter: Any) -> str:
    """Return the application's delegate by its library's name, else XNNPACK once that has taken nodes, else CPU."""
    for delegate in getattr(interpreter, "_delegates", None) or ():
        library = getattr(getattr(delegate, "_library", None), "_name", None)
        return bounded(os.path.basename(str(library))) if library else "delegate"
    # The inner wrapper is used and let go at once: the interpreter counts the references to it before a run.
    try:
        nodes = interpreter._interpreter.NumNodes()
        delegated = nodes > 0 and interpreter._interpreter.NodeName(nodes - 1) == "DELEGATE"
    except AttributeError:
        return "CPU"
    return "XNNPACK" if delegated else "CPU"


def read_inputs(
    _loaded: LoadedModel, interpreter: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    """Return the inputs before a call of `invoke`, by name."""
    details = interpreter.get_input_details()
    try:
        # get_tensor() copies: a view would keep the interpreter from running.
        return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in details}
    except ValueError:
        # There are no tensors yet, as the run is about to say itself.
        return {}


def read_outputs(_loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    """Return the outputs after a call of `invoke`, by name."""
    interpreter = call[0]
    return {
        detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()
    }


def read_signature_inputs(
    _loaded: LoadedModel, runner: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    """Return the inputs of a call of a signature runner, by the names of their tensors."""
    # By the tensors' names, which is how the file and a reference know them.
    details = runner.get_input_details()
    return {details[name]["name"]: _array(value) for name, value in kwargs.items()}


def read_signature_outputs(_loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    """Return the outputs of a call of a signature runner, by the names of their tensors."""
    details = call[0].get_output_details()
    return {details[name]["name"]: value for name, value in call[3].items()}


def measure_signature(
    loaded: LoadedModel,
    _: tuple[Any, ...],
    inputs: dict[str, Any],
    outputs: Any,
) -> IO:
    """Return what a call of a signature runner moved."""
    batch = None
    if loaded.batch_input is not None and inputs:
        shape = next(iter(inputs.values())).shape
        batch = int(shape[0]) if shape else None
    return IO(
        batch, sum([_array(v).nbytes for v in inputs.values()]), sum([v.nbytes for v in outputs.values()])
    )


def _array(value: Any) -> Any:
    """An input of a signature runner, which also takes eager tensors of TensorFlow, as an array."""
    return value.numpy() if hasattr(value, "numpy") else value


def shapes_of_signature(_: LoadedModel, call: Call) -> Shapes:
    """Return the shapes of a call of a signature runner, by the signature's names."""
    inputs: dict[str, Any] = call[2]
    outputs: dict[str, Any] = call[3] or {}
    return Shapes(
        tuple(named_shape(name, value.shape) for name, value in inputs.items()),
        tuple(named_shape(name, value.shape) for name, value in outputs.items()),
    )
