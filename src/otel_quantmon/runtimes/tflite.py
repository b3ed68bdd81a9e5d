"""The TensorFlow Lite interpreter, in each of the packages that carry it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from otel_quantmon.formats.facts import QuantizationParameters, TensorFacts
from otel_quantmon.guard import internal_error
from otel_quantmon.hooks import Hooks
from otel_quantmon.probe.call import observed
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.loaded import (
    IO,
    Call,
    LoadedModel,
    Method,
    Shapes,
    declared_shapes,
    dimensions,
    fixed_io,
    source_of,
)
from otel_quantmon.probe.observer import Observer
from otel_quantmon.runtimes.attachment import Attachment
from otel_quantmon.runtimes.tflite_graph import inspect
from otel_quantmon.semconv import RuntimeName
from otel_quantmon.settings import Settings

__all__ = ["MODULES", "attach"]

MODULES = (
    "tensorflow.lite.python.interpreter",
    "ai_edge_litert.interpreter",
    "tflite_runtime.interpreter",
)
"""Modules that define `Interpreter` and `SignatureRunner`; patching waits until one is imported."""

F = TypeVar("F", bound=Callable[..., Any])


def attach(module: ModuleType, observer: Observer, settings: Settings, hooks: Hooks) -> Attachment:
    """Observe the interpreters of ``module``, one of `MODULES`."""
    package = module.__name__.partition(".")[0]
    runtime: RuntimeName = "litert" if package == "ai_edge_litert" else "tflite"

    def describe(interpreter: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoadedModel:
        version = str(getattr(sys.modules.get(package), "__version__", "unknown"))
        return _describe(interpreter, args, kwargs, runtime, version)

    # A run cannot be ended from Python, so there are no timeouts to give: an overrun is recorded as one.
    attachment = Attachment(describe, observer, settings, hooks, inspect=inspect, in_background=False)
    interpreter: type = module.Interpreter
    attachment.patch_construction(interpreter)
    # Shapes are final, and delegates applied, once the tensors are allocated.
    attachment.patch_change(interpreter, "allocate_tensors")
    attachment.patch_method(interpreter, Method("invoke", None, declared_shapes, _read_inputs, _read_outputs))

    def observed_runner(original: F, method: Method, lane_of: Callable[[Any, Method], Lane | None]) -> F:
        def lane_of_runner(runner: Any, method: Method) -> Lane | None:
            try:
                attachment.share(runner, runner._interpreter)
            except Exception as error:  # noqa: BLE001  the guard of the project
                internal_error(error)
                return None
            return lane_of(runner, method)

        return observed(original, method, lane_of_runner)

    runner = getattr(module, "SignatureRunner", None)
    if runner is not None:
        method = Method(
            "__call__",
            _measure_signature,
            _shapes_of_signature,
            _read_signature_inputs,
            _read_signature_outputs,
            resizes=True,
        )
        attachment.patch_method(runner, method, observed_runner)
    return attachment


def _describe(
    interpreter: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    runtime: RuntimeName,
    version: str,
) -> LoadedModel:
    path = args[0] if args else kwargs.get("model_path")
    content = args[1] if len(args) > 1 else kwargs.get("model_content")
    source = source_of(path or content)
    if interpreter is None:
        return LoadedModel(runtime=runtime, runtime_version=version, provider="unknown", source=source)
    if source is None:
        # Where the construction was not seen, the interpreter still holds the buffer; a path it forgets.
        source = source_of(getattr(interpreter, "_model_content", None))
    details = interpreter.get_input_details()
    inputs = tuple(_tensor(detail) for detail in details)
    outputs = tuple(_tensor(detail) for detail in interpreter.get_output_details())
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


def _tensor(detail: dict[str, Any]) -> TensorFacts:
    parameters: dict[str, Any] = detail.get("quantization_parameters") or {}
    scales = tuple(float(scale) for scale in parameters.get("scales", ()))
    dtype = detail["dtype"].__name__
    quantization = None
    if scales:
        zero_points = tuple(int(point) for point in parameters["zero_points"])
        axis = int(parameters["quantized_dimension"]) if len(scales) > 1 else None
        quantization = QuantizationParameters(scales, zero_points, dtype, axis)
    return TensorFacts(detail["name"], dtype, tuple(int(d) for d in detail["shape"]), quantization)


def _is_dynamic(detail: dict[str, Any]) -> bool:
    signature = detail.get("shape_signature")
    return signature is not None and len(signature) > 0 and int(signature[0]) < 0


def _provider(interpreter: Any) -> str:
    """The application's delegate by its library's name, else XNNPACK once that has taken nodes, else CPU."""
    for delegate in getattr(interpreter, "_delegates", None) or ():
        library = getattr(getattr(delegate, "_library", None), "_name", None)
        return os.path.basename(str(library)) if library else "delegate"
    # The inner wrapper is used and let go at once: the interpreter counts the references to it before a run.
    try:
        nodes = interpreter._interpreter.NumNodes()
        delegated = nodes > 0 and interpreter._interpreter.NodeName(nodes - 1) == "DELEGATE"
    except AttributeError:
        return "CPU"
    return "XNNPACK" if delegated else "CPU"


def _read_inputs(
    _loaded: LoadedModel, interpreter: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    details = interpreter.get_input_details()
    try:
        # get_tensor() copies: a view would keep the interpreter from running.
        return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in details}
    except ValueError:
        # There are no tensors yet, as the run is about to say itself.
        return {}


def _read_outputs(_loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    interpreter = call[0]
    return {
        detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()
    }


def _read_signature_inputs(
    _loaded: LoadedModel, runner: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    # By the tensors' names, which is how the file and a reference know them.
    details = runner.get_input_details()
    return {details[name]["name"]: value for name, value in kwargs.items()}


def _read_signature_outputs(_loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    details = call[0].get_output_details()
    return {details[name]["name"]: value for name, value in call[3].items()}


def _measure_signature(
    loaded: LoadedModel,
    _: tuple[Any, ...],
    inputs: dict[str, Any],
    outputs: Any,
) -> IO:
    batch = None
    if loaded.batch_input is not None and inputs:
        shape = next(iter(inputs.values())).shape
        batch = int(shape[0]) if shape else None
    return IO(batch, sum([v.nbytes for v in inputs.values()]), sum([v.nbytes for v in outputs.values()]))


def _shapes_of_signature(_: LoadedModel, call: Call) -> Shapes:
    inputs: dict[str, Any] = call[2]
    outputs: dict[str, Any] = call[3] or {}
    return Shapes(
        tuple(f"{name}:{dimensions(value.shape)}" for name, value in inputs.items()),
        tuple(f"{name}:{dimensions(value.shape)}" for name, value in outputs.items()),
    )
