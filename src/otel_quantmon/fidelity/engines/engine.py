"""What an engine is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from otel_quantmon.errors import CommandError
from otel_quantmon.models.formats.facts import ModelFacts, TensorFacts

__all__ = ["Engine", "EngineError", "ModelGoneError"]


class EngineError(CommandError, RuntimeError):
    """A model cannot be loaded or run; the message says why and what to do."""


class ModelGoneError(EngineError):
    """The application has let the model go meanwhile, which is no failure."""


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
            inputs: Arrays by the names of `inputs`.
            seconds: Limit, where the runtime can be stopped.

        Raises:
            EngineError: The model refused the inputs, failed, or ran past the limit.
        """
        ...

    def reset(self) -> None:
        """Return what state the model keeps between two runs to its initial value."""
        ...
