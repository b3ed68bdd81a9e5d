"""What ONNX Runtime's objects say: of a session, of its inputs and outputs, and of what a call moved.

All reading of them is here. Nothing is imported but what describes a model, so that an engine reads with it too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

from otel_quantmon.guard import pass_on
from otel_quantmon.models.description import (
    IO,
    Call,
    CallKind,
    Kinds,
    LoadedModel,
    Shapes,
    declared_shapes,
    fixed_io,
    has_fixed_width,
    named_shape,
    source_of,
)
from otel_quantmon.models.formats.facts import TensorFacts
from otel_quantmon.models.formats.graph import bits
from otel_quantmon.models.formats.onnx import stated_name
from otel_quantmon.runtimes.onnxruntime.ort_values import arrays_of, has_tensor, shape_of, size_of
from otel_quantmon.semconv import bounded

__all__ = [
    "assigned_nodes",
    "describe",
    "kinds_of_run",
    "local_providers",
    "measure_ort_values",
    "measure_run",
    "read_inputs",
    "read_ort_inputs",
    "read_ort_outputs",
    "read_outputs",
    "shapes_of_ort_values",
    "shapes_of_run",
    "tensor",
]

_REMOTE = "AzureExecutionProvider"


def describe(package: str, session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoadedModel:
    """Describe ``session``; see `otel_quantmon.runtimes.attachment.Describe`."""
    version = str(getattr(sys.modules.get(package), "__version__", "unknown"))
    if session is None:
        source = args[0] if args else kwargs.get("path_or_bytes")
        return LoadedModel(
            runtime="onnxruntime", runtime_version=version, provider="unknown", source=source_of(source)
        )
    inputs = tuple(tensor(argument) for argument in session.get_inputs())
    outputs = tuple(tensor(argument) for argument in session.get_outputs())
    first = inputs[0] if inputs else None
    providers = tuple(bounded(str(provider)) for provider in session.get_providers())
    return LoadedModel(
        runtime="onnxruntime",
        runtime_version=version,
        provider=_provider(session, providers),
        # Kept by the session in every release, and there also when its construction was not seen.
        source=source_of(getattr(session, "_model_path", None) or getattr(session, "_model_bytes", None)),
        requested=_requested(args, kwargs),
        providers=providers,
        # The session does not tell them, and forgets them where it is re-created.
        disabled_optimizers=frozenset(map(str, kwargs.get("disabled_optimizers") or ())),
        label=stated_name(session.get_modelmeta().graph_name) or None,
        inputs=inputs,
        outputs=outputs,
        batch_input=first.name if first and first.shape and first.shape[0] is None else None,
        io=fixed_io(inputs, outputs),
        outputs_follow=_outputs_follow(session.get_inputs(), session.get_outputs()),
    )


def _outputs_follow(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    # A name stands for one number in all of a graph.
    named = {d for argument in inputs for d in argument.shape or () if isinstance(d, str) and d}
    return all(isinstance(d, int) or d in named for argument in outputs for d in argument.shape or ())


def _requested(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
    wanted = args[2] if len(args) > 2 else kwargs.get("providers")
    return tuple(bounded(str(one if isinstance(one, str) else one[0])) for one in wanted or ())


def _provider(session: Any, providers: tuple[str, ...]) -> str:
    """Return the provider that runs most nodes, where the session says which; else that of the highest priority."""
    nodes = assigned_nodes(session) if len(providers) > 1 else None
    if nodes:
        return max(nodes, key=lambda provider: nodes[provider])
    return next(iter(local_providers(providers)), "unknown")


def local_providers(providers: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``providers`` without the one that asks a remote service, unless it is the only one.

    It comes first in `get_available_providers`, which many applications pass on, and takes no node but a few operators
    of its own.
    """
    return tuple(provider for provider in providers if provider != _REMOTE) or providers


def assigned_nodes(session: Any) -> dict[str, int]:
    """Nodes by execution provider; empty unless ``session`` has the option to record it."""
    nodes: dict[str, int] = {}
    try:
        subgraphs = session.get_provider_graph_assignment_info()
    except Exception as error:  # noqa: BLE001  ONNX Runtime's own errors have no common base
        pass_on(error)
        # Before 1.24, a session without the option to record it, or one that is being re-created.
        return nodes
    for subgraph in subgraphs:
        provider = bounded(str(subgraph.ep_name))
        nodes[provider] = nodes.get(provider, 0) + len(subgraph.get_nodes())
    return nodes


def tensor(argument: Any) -> TensorFacts:
    """Return an input or output, as the session states it."""
    kind, _, element = str(argument.type).removesuffix(")").partition("(")
    if kind != "tensor":
        return TensorFacts(argument.name, kind, None)
    # Of an unknown rank as well as of a scalar the session gives no dimensions, see `with_facts`.
    shape = tuple(d if isinstance(d, int) else None for d in argument.shape or ()) or None
    return TensorFacts(argument.name, _NUMPY_NAMES.get(element, element), shape)


# Dimensions of an array; a list may contain itself.
_MOST_NESTED = 64

# ONNX Runtime names C types.
_NUMPY_NAMES = {"float": "float32", "double": "float64"}

# What else than a tensor it may be, by ONNX Runtime's names.
_NO_TENSORS = frozenset({"seq", "map", "optional", "sparse_tensor", "opaque"})


def _feeds(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Of any call that the application may have made: one without inputs has none."""
    feeds: Any
    if len(args) > 1:
        feeds = args[1]
    else:
        feeds = kwargs["input_feed"] if "input_feed" in kwargs else kwargs.get("input_dict_ort_values")
    return feeds if hasattr(feeds, "items") else {}


def _shape(value: Any) -> Sequence[int] | None:
    """Of an array or what `run` makes one of, or of an `OrtValue` that is a tensor; None for anything else."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return _nested_shape(value)
    if callable(shape):
        shape = shape_of(value)
    return cast("Sequence[int] | None", shape)


def _is_list(value: Any) -> bool:
    # A function, or a checker would take the items for unknown from here on.
    return isinstance(value, list)


def _nested_shape(value: Any) -> Sequence[int] | None:
    """Of numbers, texts, and lists in lists of them or of arrays, by the first of each: `run` refuses ragged ones."""
    outer: list[int] = []
    while _is_list(value) and len(outer) < _MOST_NESTED:
        outer.append(len(value))
        if not value:
            return outer
        value = value[0]
    if isinstance(value, (bool, int, float, complex, str, bytes)):
        return outer
    inner: object = getattr(value, "shape", None)
    return [*outer, *cast("tuple[int, ...]", inner)] if isinstance(inner, tuple) else None


def _output_names(loaded: LoadedModel, call: Call) -> list[str]:
    _, args, kwargs, _ = call
    names = args[0] if args else kwargs.get("output_names")
    return list(names) if names else [output.name for output in loaded.outputs]


def measure_run(loaded: LoadedModel, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> IO | None:
    """Return what a call of `run` or `run_async` moved; None where `LoadedModel.io` says it."""
    if loaded.io is not None and not (args[0] if args else kwargs.get("output_names")):
        return None
    feeds = _feeds(args, kwargs)
    batch = None
    if loaded.batch_input is not None:
        shape = _shape(feeds.get(loaded.batch_input))
        batch = shape[0] if shape else None
    # A sequence or a map has no size of its own; what it holds is not worth a walk at each call.
    read = sum(
        [getattr(value, "nbytes", 0) or _other_size(loaded, name, value) for name, value in feeds.items()]
    )
    written = sum([getattr(value, "nbytes", 0) for value in result])
    return IO(batch, read, written)


# Kinds of calls that are remembered of a model. Past that, all are forgotten: the sizes are the application's.
_MOST_KINDS = 64
_SHAPE = attrgetter("shape")


def kinds_of_run(loaded: LoadedModel) -> Kinds | None:
    """Return the key of the kind of a call of `run`, by the shapes of its arrays; None where those are not enough.

    A model takes and gives arrays of its own types, so their shapes say how much a call has moved. Those of outputs
    are not read where the graph says that they follow from the inputs.
    """
    if not loaded.inputs or not all(map(has_fixed_width, (*loaded.inputs, *loaded.outputs))):
        return None
    if loaded.io is not None:
        always = CallKind(loaded.io, declared_shapes(loaded))

        def always_the_same(output_names: Any, _feeds: Any, _result: Any) -> CallKind | None:
            return None if output_names else always

        return Kinds(always_the_same)
    known: dict[object, CallKind] = {}
    # Not where the rank is unknown.
    follow = loaded.outputs_follow and all(output.shape is not None for output in loaded.outputs)

    def learn(key: object, feeds: Any, result: Any) -> CallKind | None:
        # That of an `OrtValue` is a method, and would keep it alive here.
        if not all(type(value.shape) is tuple for value in (*feeds.values(), *result)):
            return None
        io = measure_run(loaded, (None, feeds), {}, result)
        if io is None:
            return None
        if len(known) >= _MOST_KINDS:
            known.clear()
        kind = known[key] = CallKind(io, shapes_of_run(loaded, (None, (None, feeds), {}, result)))
        return kind

    if len(loaded.inputs) == 1:
        return _kinds_of_one_input(loaded.inputs[0], known, learn, follow=follow)

    def kind_of(output_names: Any, feeds: Any, result: Any) -> CallKind | None:
        if output_names:
            return None
        try:
            read = map(_SHAPE, feeds.values())
            key = (*feeds, *read) if follow else (*feeds, *read, *map(_SHAPE, result))
            kind = known.get(key)
            return kind if kind is not None else learn(key, feeds, result)
        except (AttributeError, TypeError) as error:
            # A list, which has no shape, or an application's own kind of mapping, of array, or of session.
            pass_on(error)
            return None

    return Kinds(kind_of)


def _kinds_of_one_input(
    declared: TensorFacts,
    known: dict[object, CallKind],
    learn: Callable[[object, Any, Any], CallKind | None],
    *,
    follow: bool,
) -> Kinds:
    # Most models have one input, and each step less is a twentieth of what such a call costs.
    name, array = declared.name, sys.modules["numpy"].ndarray
    # Any other rank and fixed dimension is refused by the runtime.
    first_only = follow and bool(declared.shape) and None not in (declared.shape or ())[1:]
    size_of: Callable[[Any], object] = len if first_only else _SHAPE

    def kind_of(output_names: Any, feeds: Any, result: Any) -> CallKind | None:
        if output_names:
            return None
        try:
            given = feeds[name]
            # A list has no shape.
            if given.__class__ is not array:
                return None
            size = size_of(given)
            key = size if follow else (size, *map(_SHAPE, result))
            kind = known.get(key)
            return kind if kind is not None else learn(key, feeds, result)
        except (AttributeError, LookupError, TypeError) as error:
            # As above.
            pass_on(error)
            return None

    return Kinds(kind_of, name, array, size_of, known) if follow else Kinds(kind_of)


def measure_ort_values(
    loaded: LoadedModel,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
) -> IO | None:
    """Return what a call of `run_with_ort_values` moved; None where `LoadedModel.io` says it."""
    if loaded.io is not None and not (args[0] if args else kwargs.get("output_names")):
        return None
    feeds = _feeds(args, kwargs)
    batch = None
    if loaded.batch_input is not None and loaded.batch_input in feeds:
        shape = shape_of(feeds[loaded.batch_input])
        batch = shape[0] if shape else None
    return IO(batch, sum(map(size_of, feeds.values())), sum(map(size_of, result)))


def read_inputs(
    loaded: LoadedModel, _session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    """Return the inputs of a call of `run`, by name."""
    return {name: _as_array(loaded, name, value) for name, value in _feeds(args, kwargs).items()}


def read_outputs(loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    """Return the outputs of a call of `run`, by name."""
    return dict(zip(_output_names(loaded, call), call[3], strict=False))


def read_ort_inputs(
    _loaded: LoadedModel, _session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    """Return the inputs of a call of `run_with_ort_values`, by name."""
    return arrays_of(_feeds(args, kwargs).items())


def read_ort_outputs(loaded: LoadedModel, call: Call) -> Mapping[str, Any]:
    """Return the outputs of a call of `run_with_ort_values`, by name."""
    return arrays_of(zip(_output_names(loaded, call), call[3], strict=False))


def _as_array(loaded: LoadedModel, name: str, value: Any) -> Any:
    if has_tensor(value):
        return value.numpy()
    described = _described(loaded, name) if _is_list(value) else None
    if described is None:
        return value
    # What a caller passes as a list, the runtime makes an array of.
    numpy: Any = sys.modules["numpy"]
    try:
        return numpy.asarray(value, described.dtype)
    except (TypeError, ValueError) as error:
        pass_on(error)
        # A type that numpy does not have; or the run is about to refuse it.
        return value


def _described(loaded: LoadedModel, name: str) -> TensorFacts | None:
    """Return the input ``name``, None if it is no tensor."""
    return next((t for t in loaded.inputs if t.name == name and t.dtype not in _NO_TENSORS), None)


def _other_size(loaded: LoadedModel, name: str, value: Any) -> int:
    """Bytes of what is no array but a tensor: an `OrtValue`, or what `run` makes an array of."""
    if not _is_list(value):
        return size_of(value)
    described = _described(loaded, name)
    shape = _nested_shape(value) if described is not None else None
    return 0 if shape is None or described is None else math.prod(shape) * bits(described.dtype) // 8


def shapes_of_run(loaded: LoadedModel, call: Call) -> Shapes:
    """Return the shapes of a call of `run` or `run_async`."""
    # A list that is fed to a sequence is not a tensor.
    shapes = {
        name: None if _is_list(value) and _described(loaded, name) is None else _shape(value)
        for name, value in _feeds(call[1], call[2]).items()
    }
    inputs = tuple(named_shape(name, shape) for name, shape in shapes.items() if shape is not None)
    if call[3] is None:
        return Shapes(inputs)
    named = zip(_output_names(loaded, call), call[3], strict=False)
    return Shapes(inputs, tuple(named_shape(n, v.shape) for n, v in named if hasattr(v, "shape")))


def shapes_of_ort_values(loaded: LoadedModel, call: Call) -> Shapes:
    """Return the shapes of a call of `run_with_ort_values`."""
    inputs = _ort_shapes(_feeds(call[1], call[2]).items())
    if call[3] is None:
        return Shapes(inputs)
    return Shapes(inputs, _ort_shapes(zip(_output_names(loaded, call), call[3], strict=False)))


def _ort_shapes(named: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
    shapes = ((name, shape_of(value)) for name, value in named)
    return tuple(named_shape(name, shape) for name, shape in shapes if shape is not None)
