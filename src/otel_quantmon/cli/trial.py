"""A model loaded and run here for a moment: what its runtime makes of it, and what observing it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from statistics import mean, median
from time import perf_counter
from typing import Any, final

import numpy as np

from otel_quantmon.fidelity.engines import EngineError
from otel_quantmon.instrumentors import ONNXRuntimeInstrumentor, TFLiteInstrumentor
from otel_quantmon.models.description import LoadedModel
from otel_quantmon.models.formats.facts import ModelFacts, TensorFacts
from otel_quantmon.models.graph_health import GraphHealth
from otel_quantmon.models.identity import Model
from otel_quantmon.process.worker import worker
from otel_quantmon.runtimes.registry import ONNXRUNTIME, TFLITE
from otel_quantmon.settings import Settings

__all__ = ["Cost", "Stopwatch", "Trial", "try_model"]

# Seconds that a model is run for each time, and runs at least.
_SECONDS = 0.5
_FEWEST = 30
_PARTS = 10
# Within which what is done once for a model, in the background, is done.
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call takes, in seconds.

    Attributes:
        duration: Median of a call, without observation.
        counted: Time that is added where a call is timed and counted, on the thread that calls.
        spanned: Time that is added where each call has a span, too, without its export.
    """

    duration: float
    counted: float
    spanned: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What a runtime makes of a model.

    Attributes:
        loaded: What the runtime says of the model.
        name: The model's name in telemetry.
        health: What is known of the graph.
        cost: None where the model could not be run on made-up inputs, or without the SDK.
        why_no_cost: Reason for that.
    """

    loaded: LoadedModel
    name: str
    health: GraphHealth
    cost: Cost | None
    why_no_cost: str = ""


def try_model(path: str, facts: ModelFacts) -> Trial:
    """Load ``path`` in the runtime that its format asks for, and run it.

    Raises:
        EngineError: The runtime is not installed, or refuses the model.
    """
    open_model = _open_tflite if facts.format == "tflite" else _open_onnx
    package, attach, instance, run = open_model(path, facts.inputs)
    runtime: Any = import_module(f"otel_quantmon.runtimes.{attach}.attach").RUNTIME
    loaded: LoadedModel = runtime.describe(package, instance, (path,), {})
    model = Model(loaded, Settings())
    health = runtime.inspect(instance, model)
    del instance
    try:
        run()
    except Exception as error:  # noqa: BLE001  the runtimes' errors have no common base
        return Trial(loaded, model.name, health, None, f"it cannot be run on made-up inputs: {error}")
    if find_spec("opentelemetry.sdk") is None:
        return Trial(
            loaded, model.name, health, None, "that needs the SDK: pip install 'otel-quantmon[otlp]'"
        )
    return Trial(loaded, model.name, health, _cost(run, lambda: open_model(path, facts.inputs)))


def _cost(run: Callable[[], object], load: Callable[[], _Opened]) -> Cost:
    """Run the model by itself, and observed in two ways."""
    _, _, instance, _ = load()
    name = "invoke" if hasattr(instance, "invoke") else "run"
    owner = next(base for base in type(instance).__mro__ if name in vars(base))
    del instance
    # Checks of samples have a budget of their own, whatever a call costs.
    ways = (Settings(spans=spans, check_budget=0.0) for spans in ("none", "all"))
    with Stopwatch(owner, name) as watch:
        own, nothing = watch.times(run)
        counted, spanned = (_observed(settings, watch, load) for settings in ways)
    return Cost(own, max(0.0, counted - nothing), max(0.0, spanned - nothing))


@final
class Stopwatch:
    """Times a method of the runtime inside of the call that is timed: inside of an observation, if there is one.

    What a call takes beyond the method is then known of each call by itself, however much the method's own time differs
    from call to call on a busy host. To compare calls with others is no use there: an observation takes microseconds.

    Args:
        owner: Class that has the method.
        name: Name of the method.
        clock: Gives seconds.
    """

    def __init__(self, owner: type, name: str, clock: Callable[[], float] = perf_counter) -> None:
        self._owner = owner
        self._name = name
        self._clock = clock
        self._original: Any = vars(owner)[name]
        self._inside = 0.0

    def __enter__(self) -> Stopwatch:
        original, clock = self._original, self._clock

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = clock()
            result = original(*args, **kwargs)
            self._inside = clock() - began
            return result

        setattr(self._owner, self._name, timed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, self._original)

    def times(self, run: Callable[[], object]) -> tuple[float, float]:
        """Median of the method's own time, and what ``run`` takes beyond it, in seconds.

        That is the mean of the least disturbed tenth of the calls, one after another: with what is done once for many.
        """
        inside: list[float] = []
        beyond: list[float] = []
        clock = self._clock
        end = clock() + _SECONDS
        while len(inside) < _FEWEST or clock() < end:
            began = clock()
            run()
            took = clock() - began
            inside.append(self._inside)
            beyond.append(took - self._inside)
        size = -(-len(beyond) // _PARTS)
        parts = (beyond[first : first + size] for first in range(0, len(beyond) - size + 1, size))
        return median(inside), min(map(mean, parts))


def _observed(settings: Settings, watch: Stopwatch, load: Callable[[], _Opened]) -> float:
    """Seconds that a call takes beyond the runtime's method while it is observed."""
    # It needs the SDK.
    from otel_quantmon.telemetry.memory import InMemoryProviders

    providers = InMemoryProviders()
    instrumentors = (ONNXRuntimeInstrumentor(), TFLiteInstrumentor())
    for instrumentor in instrumentors:
        instrumentor.instrument(**providers.arguments, settings=settings)
    try:
        *_, run = load()
        run()
        worker.flush(_PATIENCE)
        return watch.times(run)[1]
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()
        providers.shut_down()


_Opened = tuple[str, str, Any, Callable[[], object]]
"""Package of the runtime, folder in `runtimes`, the runtime's object, and what runs it on made-up inputs."""


def _open_onnx(path: str, inputs: Sequence[TensorFacts]) -> _Opened:
    try:
        onnxruntime: Any = import_module("onnxruntime")
    except ImportError as error:
        raise EngineError("an ONNX model needs ONNX Runtime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # From 1.24 on: without it a session does not tell which node runs where.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = [name for name in onnxruntime.get_available_providers() if not name.startswith("Azure")]
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise EngineError(f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}") from error
    feeds: dict[str, Any] = {}

    def run() -> None:
        if not feeds:
            feeds.update({tensor.name: _made_up(tensor) for tensor in inputs})
        session.run(None, feeds)

    return "onnxruntime", ONNXRUNTIME[next(iter(ONNXRUNTIME))], session, run


# Lightest first.
_INTERPRETERS = (
    "ai_edge_litert.interpreter",
    "tflite_runtime.interpreter",
    "tensorflow.lite.python.interpreter",
)


def _open_tflite(path: str, inputs: Sequence[TensorFacts]) -> _Opened:
    del inputs  # the interpreter has allocated them
    for name in _INTERPRETERS:
        if find_spec(name.partition(".")[0]) is not None:
            break
    else:
        raise EngineError("a TensorFlow Lite model needs an interpreter: pip install ai-edge-litert")
    module: Any = import_module(name)
    try:
        interpreter = module.Interpreter(model_path=path)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    except Exception as error:
        raise EngineError(f"{name.partition('.')[0]} cannot load the model: {error}") from error

    def run() -> None:
        # Asked for at each call: by then it may be an observed one.
        interpreter.invoke()

    return name.partition(".")[0], TFLITE[name], interpreter, run


def _made_up(tensor: TensorFacts) -> Any:
    """Zeros, which are tokens and codes too; one for each dimension that is dynamic."""
    shape = tuple(1 if size is None else size for size in tensor.shape or ())
    # A type that numpy does not have is refused by it, and the reason shown.
    return np.zeros(shape, object if tensor.dtype == "string" else np.dtype(tensor.dtype))
