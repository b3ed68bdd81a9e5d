"""What an engine is, and the one that a file or buffer needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.formats import read_facts
from otel_quantmon.formats.facts import ModelFacts, TensorFacts

__all__ = ["Engine", "EngineError", "open_engine"]


class EngineError(RuntimeError):
    """A model cannot be loaded or run; the message says why and what to do."""


class Engine(Protocol):
    """A loaded model. Not for more than one thread at a time."""

    @property
    def facts(self) -> ModelFacts:
        """What the model's file says."""
        ...

    @property
    def runtime(self) -> tuple[str, str]:
        """Value of ``quantmon.runtime.name``, and the version."""
        ...

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers in their order, or the delegate."""
        ...

    @property
    def inputs(self) -> tuple[TensorFacts, ...]:
        """In the model's order."""
        ...

    @property
    def outputs(self) -> tuple[TensorFacts, ...]:
        """In the model's order, with their quantization parameters where they are integers."""
        ...

    def run(self, inputs: Mapping[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """Run once.

        Args:
            inputs: by the names of `inputs`.
            seconds: limit, where the runtime can be stopped.

        Raises:
            EngineError: the model refused the inputs, failed, or ran past the limit.
        """
        ...

    def reset(self) -> None:
        """Return what state the model keeps between two runs to its initial value."""
        ...


def open_engine(source: str | bytes, *, threads: int = 1, keep_all_tensors: bool = False) -> Engine:
    """Load a model in the runtime that its format asks for.

    Args:
        source: path or buffer.
        threads: that one run may use.
        keep_all_tensors: keep intermediate tensors readable (TFLite only).

    Raises:
        EngineError: the file cannot be read or loaded, or its runtime is not installed.
    """
    try:
        facts = read_facts(source)
    except (ModelFormatError, OSError) as error:
        raise EngineError(f"cannot read the model: {error}") from error
    if facts.format == "tflite":
        from otel_quantmon.engines.tflite import TFLiteEngine

        return TFLiteEngine(source, facts, threads, keep_all_tensors=keep_all_tensors)
    from otel_quantmon.engines.onnx import OnnxEngine

    return OnnxEngine(source, facts, threads)
