"""A layer that two models have in common, and a model whose layers can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from otel_quantmon.errors import CommandError
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["Layer", "LayersError", "Tapped", "nearest"]


class LayersError(CommandError, ValueError):
    """The layers of two models cannot be compared; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A tensor that both models have.

    Attributes:
        name: Name of the tensor, the same in both models; the quantized model may give it dequantized.
        operator: Operator that makes it.
        parents: The nearest layers it is computed from.
    """

    name: str
    operator: str
    parents: tuple[str, ...]


class Tapped(Protocol):
    """A model whose intermediate tensors can be read."""

    @property
    def inputs(self) -> Sequence[TensorFacts]:
        """Of the model."""
        ...

    @property
    def facts(self) -> Mapping[str, TensorFacts]:
        """Of the layers, by name."""
        ...

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once, and give the layers' tensors by name."""
        ...


def nearest(names: Sequence[str], known: set[str], made_from: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the first of ``known`` that lie on each way back from ``names``.

    Args:
        names: Tensors to begin with.
        known: Tensors to end at.
        made_from: The tensors that an operator reads, by the tensor that it makes.
    """
    found: list[str] = []
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in known:
            found.append(name)
        else:
            waiting.extend(made_from.get(name, ()))
    return tuple(sorted(found))
