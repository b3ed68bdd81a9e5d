"""What the TensorFlow Lite interpreter says: of a model, of its tensors, and of what a call moved.

All reading of it is here. Nothing is imported but what describes a model, so that an engine reads with it too.
"""

from __future__ import annotations

import math
import os
import sys
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from otel_quantmon.models.description import (
    IO,
    Call,
    LoadedModel,
    Shapes,
    declared_shapes,
    fixed_io,
    has_fixed_width,
    named_shape,
    source_of,
)
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts, distinct_names
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
    "shapes_of_invoke",
    "shapes_of_signature",
    "tensor",
    "tensors",
    "values",
]

_Details = Collection[Mapping[str, Any]]


def describe(package: str, interpreter: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoadedModel:
    """Describe ``interpreter``; see `otel_quantmon.runtimes.attachment.Describe`."""
    runtime, version = runtime_of(package)
    path = args[0] if args else kwargs.get("model_path")
    content = args[1] if len(args) > 1 else kwargs.get("model_content")
    # A path may be bytes as well, which elsewhere are a buffer.
    source = source_of(os.fsdecode(path) if isinstance(path, bytes) else path or content)
    if interpreter is None:
        return LoadedModel(runtime=runtime, runtime_version=version, provider="unknown", source=source)
    if source is None:
        # Where the construction was not seen, the interpreter still holds the buffer; a path it forgets.
        source = source_of(buffer_of(interpreter))
    details, output_details = interpreter.get_input_details(), interpreter.get_output_details()
    inputs = tensors(details, "input")
    outputs = tuple(
        replace(one, shape=_before_run(detail))
        for one, detail in zip(tensors(output_details, "output"), output_details, strict=True)
    )
    io = fixed_io(inputs, outputs)
    dynamic = bool(details) and _is_dynamic(details[0])
    batch = inputs[0].shape[0] if dynamic and inputs[0].shape else None
    return LoadedModel(
        runtime=runtime,
        runtime_version=version,
        provider=_provider(interpreter),
        source=source,
        inputs=inputs,
        outputs=outputs,
        batch_input=inputs[0].name if dynamic else None,
        batch_aliases=_names_in_signatures(interpreter, details[0]["index"]) if dynamic else frozenset(),
        io=None if io is None else IO(batch, io.input_bytes, io.output_bytes),
        measure=_measure_invoke(interpreter, inputs, outputs, batch) if io is None else None,
    )


def runtime_of(package: str) -> tuple[RuntimeName, str]:
    """Value of ``quantmon.runtime.name`` for the interpreter in ``package``, and the version."""
    name: RuntimeName = "litert" if package == "ai_edge_litert" else "tflite"
    return name, str(getattr(sys.modules.get(package), "__version__", "unknown"))


def buffer_of(interpreter: Any) -> Any:
    """Return the buffer that ``interpreter`` was made from, which it keeps for its own use; None if that was a file."""
    return getattr(interpreter, "_model_content", None)


def tensors(details: _Details, kind: Literal["input", "output"]) -> tuple[TensorFacts, ...]:
    """Return all inputs or outputs from their details, by the names that they have in the facts of the file too."""
    names = _names(details, kind)
    return tuple(replace(tensor(detail), name=name) for name, detail in zip(names, details, strict=True))


def values(interpreter: Any, details: _Details, kind: Literal["input", "output"]) -> dict[str, Any]:
    """Return copies of the values of all inputs or outputs, by the names that `tensors` gives them.

    Args:
        interpreter: Interpreter that has the tensors.
        details: Details of the tensors, as they are now.
        kind: Which of them they are.

    Raises:
        ValueError: There are no tensors yet.
    """
    return {
        name: _value(interpreter, detail) for name, detail in zip(_names(details, kind), details, strict=True)
    }


def _names(details: _Details, kind: Literal["input", "output"]) -> list[str]:
    return distinct_names((str(detail["name"]) for detail in details), kind)


def _value(interpreter: Any, detail: Mapping[str, Any]) -> Any:
    try:
        # It copies: a view would keep the interpreter from running.
        return interpreter.get_tensor(detail["index"])
    except ValueError:
        if 0 not in detail["shape"]:
            raise
        # Of no elements, as where a detector has found nothing, there is no data that it could give.
        return sys.modules["numpy"].empty(detail["shape"], detail["dtype"])


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


def _before_run(detail: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Return the shape of an output as far as it is known before a run.

    What its details say of a dynamic dimension may then be of an earlier run: it may follow from what is in the inputs,
    and XNNPACK resizes outputs as it runs, not in `allocate_tensors`.
    """
    shape = tuple(int(d) for d in detail["shape"])
    signature = detail.get("shape_signature")
    if signature is None or len(signature) != len(shape):
        return shape
    return tuple(None if stated < 0 else d for stated, d in zip(signature, shape, strict=True))


def _names_in_signatures(interpreter: Any, index: int) -> frozenset[str]:
    """Names that the signatures of the main graph have for an input of it."""
    try:
        return frozenset(
            str(name)
            for key, signature in interpreter._get_full_signature_list().items()
            if interpreter._interpreter.GetSubgraphIndexFromSignature(key) == 0
            for name, at in signature["inputs"].items()
            if at == index
        )
    except AttributeError:
        return frozenset()


def _measure_invoke(
    interpreter: Any, inputs: tuple[TensorFacts, ...], outputs: tuple[TensorFacts, ...], batch: int | None
) -> Callable[..., IO | None] | None:
    """Return what says what the last run moved, where outputs get their shapes in it; None if nothing can say it."""
    known = tuple(one for one in outputs if None not in (one.shape or ()))
    fixed = fixed_io(inputs, known)
    if fixed is None or not all(map(has_fixed_width, outputs)):
        return None
    late = [
        (int(detail["index"]), sys.modules["numpy"].dtype(detail["dtype"]).itemsize)
        for one, detail in zip(outputs, interpreter.get_output_details(), strict=True)
        if one not in known
    ]
    # The description of a model does not keep it alive.
    reference = weakref.ref(interpreter)

    def measure(*_: Any) -> IO | None:
        living = reference()
        if living is None:
            return None
        output_bytes = fixed.output_bytes
        for index, width in late:
            # The inner wrapper is used and let go at once, see `_provider`. The details take seven times as long.
            output_bytes += math.prod(living._interpreter.TensorSize(index, 0).tolist()) * width
        return IO(batch, fixed.input_bytes, output_bytes)

    return measure


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
    try:
        return values(interpreter, interpreter.get_input_details(), "input")
    except ValueError:
        # There are no tensors yet, as the run is about to say itself.
        return {}


def read_outputs(_loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    """Return the outputs after a call of `invoke`, by name."""
    interpreter = call[0]
    return values(interpreter, interpreter.get_output_details(), "output")


def shapes_of_invoke(loaded: LoadedModel, call: Call) -> Shapes:
    """Return the shapes of a call of `invoke`, those of the outputs as it left them."""
    details = call[0].get_output_details()
    outputs = (named_shape(one.name, d["shape"]) for one, d in zip(loaded.outputs, details, strict=True))
    return Shapes(declared_shapes(loaded).inputs, tuple(outputs))


def read_signature_inputs(
    _loaded: LoadedModel, runner: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    """Return the inputs of a call of a signature runner, by the names of their tensors."""
    # By the tensors' names, which is how the file and a reference know them.
    details = runner.get_input_details()
    names = dict(zip(details, _names(details.values(), "input"), strict=True))
    return {names[name]: _array(value) for name, value in kwargs.items()}


def read_signature_outputs(_loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    """Return the outputs of a call of a signature runner, by the names of their tensors."""
    details = call[0].get_output_details()
    names = dict(zip(details, _names(details.values(), "output"), strict=True))
    return {names[name]: value for name, value in call[3].items()}


def measure_signature(
    loaded: LoadedModel,
    _: tuple[Any, ...],
    inputs: dict[str, Any],
    outputs: Any,
) -> IO:
    """Return what a call of a signature runner moved."""
    batch = None
    for name in loaded.batch_aliases:
        if name in inputs:
            batch = int(inputs[name].shape[0])
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
