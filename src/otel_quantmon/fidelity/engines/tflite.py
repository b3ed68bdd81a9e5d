"""A TensorFlow Lite model in whichever of the interpreter's packages there is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from otel_quantmon.fidelity.engines.engine import EngineError
from otel_quantmon.guard import pass_on
from otel_quantmon.models.formats.facts import ModelFacts
from otel_quantmon.runtimes.tflite.reading import runtime_of, tensors, values

__all__ = ["TFLiteEngine"]

# Lightest first; one that is already imported costs nothing.
_MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite.python.interpreter")


class TFLiteEngine:
    """See `otel_quantmon.fidelity.engines.Engine`."""

    def __init__(
        self, source: str | bytes, facts: ModelFacts, threads: int, *, keep_all_tensors: bool = False
    ) -> None:
        module = _module()
        package = module.__name__.partition(".")[0]
        self.facts = facts
        self.runtime: tuple[str, str] = runtime_of(package)
        given: dict[str, Any] = (
            {"model_path": source} if isinstance(source, str) else {"model_content": source}
        )
        given |= {"num_threads": threads, "experimental_preserve_all_tensors": keep_all_tensors}
        self._interpreter: Any
        self._load: Callable[[], Any] = lambda: module.Interpreter(**given)
        self._renew()
        self.providers: tuple[str, ...] = ("CPU",)
        known = {one.name: one for one in (*facts.inputs, *facts.outputs)}
        outputs = tensors(self._interpreter.get_output_details(), "output")
        self.inputs = tuple(known.get(one.name, one) for one in tensors(self._input_details, "input"))
        self.outputs = tuple(known.get(one.name, one) for one in outputs)

    @property
    def interpreter(self) -> Any:
        """The interpreter itself, for what only it knows."""
        return self._interpreter

    def run(self, inputs: Mapping[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """See `otel_quantmon.fidelity.engines.Engine.run`. A run cannot be stopped, so ``seconds`` has no effect."""
        del seconds
        try:
            self._resize(inputs)
            for one, detail in zip(self.inputs, self._input_details, strict=True):
                self._interpreter.set_tensor(detail["index"], np.asarray(inputs[one.name]))
            self._interpreter.invoke()
            return values(self._interpreter, self._interpreter.get_output_details(), "output")
        except KeyError as error:
            raise EngineError(f"the model wants an input named {error}") from error
        except (ValueError, RuntimeError, TypeError) as error:
            raise EngineError(f"the interpreter refused the run: {error}") from error

    def reset(self) -> None:
        """See `otel_quantmon.fidelity.engines.Engine.reset`."""
        if self.facts.stateful:
            # reset_all_variables() leaves those as they are that live outside the arena (VAR_HANDLE).
            self._renew()

    def _renew(self) -> None:
        try:
            self._interpreter = self._load()
            self._interpreter.allocate_tensors()
        except Exception as error:  # as it says, a ValueError or RuntimeError; delegates raise others
            pass_on(error)
            raise EngineError(f"{' '.join(self.runtime)} cannot load the model: {error}") from error
        self._input_details: list[dict[str, Any]] = self._interpreter.get_input_details()

    def _resize(self, inputs: Mapping[str, Any]) -> None:
        resized = False
        for one, detail in zip(self.inputs, self._input_details, strict=True):
            shape = np.asarray(inputs[one.name]).shape
            if tuple(detail["shape"]) != shape:
                self._interpreter.resize_tensor_input(detail["index"], shape)
                resized = True
        if resized:
            self._interpreter.allocate_tensors()
            self._input_details = self._interpreter.get_input_details()


def _module() -> ModuleType:
    for name in sorted(_MODULES, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name)
        except ImportError:  # noqa: PERF203 - at most as many rounds as there are runtimes
            continue
    raise EngineError("a TensorFlow Lite model needs an interpreter: pip install ai-edge-litert")
