"""Record a baseline from calls that an application makes anyway."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.fidelity.baseline.file import Baseline, BaselineError, Case, Environment, write_baseline
from otel_quantmon.fidelity.baseline.recording import (
    environment_of,
    latency_of,
    model_name,
    named_as_outputs,
    storable,
    summarized,
)
from otel_quantmon.fidelity.engines import feed, open_engine
from otel_quantmon.guard import guarded, pass_on
from otel_quantmon.models.formats import read_digest, read_facts
from otel_quantmon.runtimes.tflite.reading import values
from otel_quantmon.telemetry.context import suppress_instrumentation

__all__ = ["Capture", "capture"]

_NO_NAMES: Mapping[str, str] = MappingProxyType({})


def capture(
    instance: Any,
    path: str | Path,
    *,
    calls: int,
    model: str | bytes | None = None,
    reference: str | bytes | None = None,
    mapping: Mapping[str, str] = _NO_NAMES,
    name: str | None = None,
) -> Capture:
    """Record the next calls of a session or interpreter, as a context manager.

    ::

        with capture(session, "model.safetensors", calls=100, reference="model_float.onnx") as captured:
            serve()  # elsewhere, `captured.done` can be waited for

    On leaving, what was captured is run through the reference, and the file written. Calls of
    `InferenceSession.run` and `Interpreter.invoke` are seen, whether the application is instrumented or not.
    Their latency is the application's own, which makes the best baseline for its drift.

    Args:
        instance: An ONNX Runtime session, or a TFLite or LiteRT interpreter.
        path: Path of the file to write.
        calls: Number of calls to take; later ones are left alone.
        model: Path or buffer that ``instance`` was loaded from, where it does not keep it.
        reference: Path or buffer of the float model, if there is one.
        mapping: See `otel_quantmon.fidelity.baseline.record`.
        name: See `otel_quantmon.fidelity.baseline.record`.

    Raises:
        BaselineError: On entering, for an object that is neither, or for a model that keeps state between
            its calls: its state at the first captured call is unknown, so record it from a file of inputs.
            On leaving, if no call was made.
    """
    return Capture(instance, Path(path), calls, model, reference, mapping, name)


class Capture:
    """See `capture`.

    Attributes:
        done: An event that is set when all calls have been taken.
    """

    def __init__(
        self,
        instance: Any,
        path: Path,
        calls: int,
        model: str | bytes | None,
        reference: str | bytes | None,
        mapping: Mapping[str, str],
        name: str | None,
    ) -> None:
        if calls < 1:
            raise BaselineError(f"{calls} calls are nothing to capture: give at least 1")
        self.done = threading.Event()
        self._instance = instance
        self._path = path
        self._calls = calls
        self._model = model
        self._reference = reference
        self._mapping = mapping
        self._name = name
        self._lock = threading.RLock()
        self._taken: list[tuple[dict[str, Any], dict[str, Any], float]] = []

    def __enter__(self) -> Capture:  # noqa: PYI034  Self needs Python 3.11
        if hasattr(self._instance, "get_inputs") and hasattr(self._instance, "run"):
            self._method, wrapper = "run", self._session_run
        elif hasattr(self._instance, "get_input_details") and hasattr(self._instance, "invoke"):
            self._method, wrapper = "invoke", self._interpreter_invoke
        else:
            raise BaselineError(
                f"a {type(self._instance).__name__} cannot be captured: give an ONNX Runtime session or a TFLite "
                "interpreter"
            )
        self._source = self._model or _source_of(self._instance)
        if _is_stateful(self._source):
            raise BaselineError(
                "the model keeps state between its calls, and its state at the first captured one is unknown: "
                "record it from a file of inputs (quantmon baseline record)"
            )
        # On the object, in front of its class's method, which may be an instrumentation's.
        setattr(self._instance, self._method, wrapper(getattr(self._instance, self._method)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        delattr(self._instance, self._method)
        # What stopped the application's work is not to be hidden behind a half captured baseline.
        if error is None:
            write_baseline(self._path, self._baseline())

    def _session_run(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def run(output_names: Any, input_feed: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
            if self.done.is_set():
                return original(output_names, input_feed, *args, **kwargs)
            inputs: dict[str, Any] = {}
            with guarded:
                inputs = {name: np.array(value) for name, value in input_feed.items()}
            began = perf_counter()
            results = original(output_names, input_feed, *args, **kwargs)
            seconds = perf_counter() - began
            with guarded:
                names = output_names or [output.name for output in self._instance.get_outputs()]
                outputs = storable(dict(zip(names, results, strict=True)))
                self._take(inputs, {name: array.copy() for name, array in outputs.items()}, seconds)
            return results

        return run

    def _interpreter_invoke(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def invoke() -> None:
            if self.done.is_set():
                original()
                return
            inputs: dict[str, Any] = {}
            with guarded:
                inputs = values(self._instance, self._instance.get_input_details(), "input")
            began = perf_counter()
            original()
            seconds = perf_counter() - began
            with guarded:
                outputs = values(self._instance, self._instance.get_output_details(), "output")
                self._take(inputs, outputs, seconds)

        return invoke

    def _take(self, inputs: dict[str, Any], outputs: dict[str, Any], seconds: float) -> None:
        with self._lock:
            if inputs and outputs and len(self._taken) < self._calls:
                self._taken.append((inputs, outputs, seconds))
            if len(self._taken) == self._calls:
                self.done.set()

    # The application's calls are those that were captured.
    @suppress_instrumentation()
    def _baseline(self) -> Baseline:
        if not self._taken:
            raise BaselineError("no call was made while capturing, so there is nothing to write")
        second = open_engine(self._source)
        facts = {tensor.name: tensor for tensor in (*second.inputs, *second.outputs)}
        cases: list[Case] = []
        float_engine = None if self._reference is None else open_engine(self._reference)
        for inputs, outputs, _ in self._taken:
            references: dict[str, NDArray[Any]] = {}
            if float_engine is not None:
                results = float_engine.run(feed(inputs, facts, float_engine.inputs, self._mapping))
                references = named_as_outputs(outputs, results, float_engine, self._mapping)
            cases.append(Case(inputs=inputs, outputs=outputs, references=references))
        environment = environment_of(second)
        if self._method == "run":
            providers = tuple(self._instance.get_providers())
            environment = Environment(
                environment.runtime, environment.runtime_version, providers, environment.cpu_features
            )
        return summarized(
            cases,
            facts,
            model=self._name or model_name(self._source, second),
            digest=read_digest(self._source),
            reference_digest=None if self._reference is None else read_digest(self._reference),
            environment=environment,
            latency=latency_of([seconds for _, _, seconds in self._taken]),
        )


def _is_stateful(source: str | bytes) -> bool:
    try:
        return read_facts(source).stateful
    except (ModelFormatError, OSError) as error:
        pass_on(error)
        raise BaselineError(f"cannot read the model that is captured: {error}") from error


def _source_of(instance: Any) -> str | bytes:
    """Return what the object was loaded from, as it or its probe remembers."""
    for attribute in ("_model_path", "_model_bytes", "_model_content"):
        source = getattr(instance, attribute, None)
        if source:
            return source if isinstance(source, bytes) else str(source)
    path = getattr(getattr(getattr(instance, "_quantmon_probe", None), "model", None), "path", None)
    if path is None:
        raise BaselineError(
            "the object does not say what it was loaded from: give the model's path as model="
        )
    return str(path)
