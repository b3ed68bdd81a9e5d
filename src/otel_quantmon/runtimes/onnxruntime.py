"""ONNX Runtime: every method of `InferenceSession` that runs, loads or re-creates a session."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, cast

from otel_quantmon.formats.facts import TensorFacts
from otel_quantmon.formats.graph import bits, dtype_name
from otel_quantmon.formats.onnx import stated_name
from otel_quantmon.hooks import Hooks
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
from otel_quantmon.runtimes.onnxruntime_async import observed_async
from otel_quantmon.runtimes.onnxruntime_graph import inspect
from otel_quantmon.runtimes.onnxruntime_timeout import RunOptionsTimeouts
from otel_quantmon.settings import Settings

__all__ = ["MODULE", "attach"]

MODULE = "onnxruntime.capi.onnxruntime_inference_collection"
"""The module that defines `InferenceSession`; patching waits until the application has imported it."""


def attach(module: ModuleType, observer: Observer, settings: Settings, hooks: Hooks) -> Attachment:
    """Observe the sessions of ``module``, the one named `MODULE`."""
    attachment = Attachment(_describe, observer, settings, hooks, RunOptionsTimeouts(), inspect)
    session: type = module.InferenceSession
    attachment.patch_construction(session)
    attachment.patch_change(session, "set_providers")
    attachment.patch_method(session, Method("run", _measure_run, _shapes_of_run, _read_inputs, _read_outputs))
    attachment.patch_method(session, Method("run_async", _measure_run, _shapes_of_run), observed_async)
    attachment.patch_method(
        session,
        Method(
            "run_with_ort_values",
            _measure_ort_values,
            _shapes_of_ort_values,
            _read_ort_inputs,
            _read_ort_outputs,
        ),
    )
    # Their outputs stay in the application's own buffers, maybe on a device: not read for their size.
    attachment.patch_method(session, Method("run_with_iobinding", None, declared_shapes))
    attachment.patch_method(session, Method("run_with_ortvaluevector", None, declared_shapes))
    return attachment


def _describe(session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoadedModel:
    version = str(getattr(sys.modules.get("onnxruntime"), "__version__", "unknown"))
    if session is None:
        source = args[0] if args else kwargs.get("path_or_bytes")
        return LoadedModel(
            runtime="onnxruntime", runtime_version=version, provider="unknown", source=source_of(source)
        )
    inputs = tuple(_tensor(argument) for argument in session.get_inputs())
    outputs = tuple(_tensor(argument) for argument in session.get_outputs())
    first = inputs[0] if inputs else None
    providers = session.get_providers()
    return LoadedModel(
        runtime="onnxruntime",
        runtime_version=version,
        provider=str(providers[0]) if providers else "unknown",
        # Kept by the session in every release, and there also when its construction was not seen.
        source=source_of(getattr(session, "_model_path", None) or getattr(session, "_model_bytes", None)),
        requested=_requested(args, kwargs),
        providers=tuple(map(str, providers)),
        label=stated_name(session.get_modelmeta().graph_name) or None,
        inputs=inputs,
        outputs=outputs,
        batch_input=first.name if first and first.shape and first.shape[0] is None else None,
        io=fixed_io(inputs, outputs),
    )


def _requested(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
    wanted = args[2] if len(args) > 2 else kwargs.get("providers")
    return tuple(str(one if isinstance(one, str) else one[0]) for one in wanted or ())


def _tensor(argument: Any) -> TensorFacts:
    kind, _, element = str(argument.type).removesuffix(")").partition("(")
    shape = tuple(d if isinstance(d, int) else None for d in argument.shape) if kind == "tensor" else None
    return TensorFacts(argument.name, _NUMPY_NAMES.get(element, element) if kind == "tensor" else kind, shape)


# ONNX Runtime names C types.
_NUMPY_NAMES = {"float": "float32", "double": "float64"}


def _feeds(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if len(args) > 1:
        feeds: dict[str, Any] = args[1]
    else:
        feeds = kwargs["input_feed"] if "input_feed" in kwargs else kwargs["input_dict_ort_values"]
    return feeds


def _shape(value: Any) -> Sequence[int] | None:
    """Of an array, or of an `OrtValue` that is a tensor, which `run` takes too; None for anything else."""
    shape = getattr(value, "shape", None)
    if callable(shape):
        shape = shape() if value.is_tensor() else None
    return cast("Sequence[int] | None", shape)


def _output_names(loaded: LoadedModel, call: Call) -> list[str]:
    _, args, kwargs, _ = call
    names = args[0] if args else kwargs.get("output_names")
    return list(names) if names else [output.name for output in loaded.outputs]


def _measure_run(
    loaded: LoadedModel, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> IO | None:
    if loaded.io is not None and not (args[0] if args else kwargs.get("output_names")):
        return None
    feeds = _feeds(args, kwargs)
    batch = None
    if loaded.batch_input is not None:
        shape = _shape(feeds.get(loaded.batch_input))
        batch = shape[0] if shape else None
    # A sequence or a map has no size of its own; what it holds is not worth a walk at each call.
    read = sum([getattr(value, "nbytes", 0) or _ort_value_size(value) for value in feeds.values()])
    written = sum([getattr(value, "nbytes", 0) for value in result])
    return IO(batch, read, written)


def _measure_ort_values(
    loaded: LoadedModel,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
) -> IO | None:
    if loaded.io is not None and not (args[0] if args else kwargs.get("output_names")):
        return None
    feeds = _feeds(args, kwargs)
    batch = None
    if loaded.batch_input is not None and loaded.batch_input in feeds:
        shape = feeds[loaded.batch_input].shape()
        batch = shape[0] if shape else None
    return IO(batch, sum(map(_ort_value_size, feeds.values())), sum(map(_ort_value_size, result)))


def _read_inputs(
    _loaded: LoadedModel, _session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    # What a caller passes as a list or a number, the runtime makes an array of.
    return {name: _as_array(value) for name, value in _feeds(args, kwargs).items()}


def _read_outputs(loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    return dict(zip(_output_names(loaded, call), call[3], strict=False))


def _read_ort_inputs(
    _loaded: LoadedModel, _session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    return {name: value.numpy() for name, value in _feeds(args, kwargs).items()}


def _read_ort_outputs(loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    return {name: value.numpy() for name, value in zip(_output_names(loaded, call), call[3], strict=False)}


def _as_array(value: Any) -> Any:
    if hasattr(value, "numpy") and hasattr(value, "is_tensor"):
        return value.numpy()
    return value


def _ort_value_size(value: Any) -> int:
    # A sequence or a map may be fed as well, and has no size of its own.
    if not hasattr(value, "is_tensor") or not value.is_tensor():
        return 0
    size = getattr(value, "tensor_size_in_bytes", None)
    if size is not None:
        return int(size())
    # Before ONNX Runtime 1.20.
    shape: list[int] = value.shape()
    return math.prod(shape) * bits(dtype_name(value.element_type())) // 8


def _shapes_of_run(loaded: LoadedModel, call: Call) -> Shapes:
    shapes = {name: _shape(value) for name, value in _feeds(call[1], call[2]).items()}
    inputs = tuple(f"{name}:{dimensions(shape)}" for name, shape in shapes.items() if shape is not None)
    if call[3] is None:
        return Shapes(inputs)
    named = zip(_output_names(loaded, call), call[3], strict=False)
    return Shapes(inputs, tuple(f"{n}:{dimensions(v.shape)}" for n, v in named if hasattr(v, "shape")))


def _shapes_of_ort_values(loaded: LoadedModel, call: Call) -> Shapes:
    inputs = tuple(
        f"{n}:{dimensions(v.shape())}" for n, v in _feeds(call[1], call[2]).items() if v.is_tensor()
    )
    if call[3] is None:
        return Shapes(inputs)
    named = zip(_output_names(loaded, call), call[3], strict=False)
    return Shapes(inputs, tuple(f"{n}:{dimensions(v.shape())}" for n, v in named if v.is_tensor()))
