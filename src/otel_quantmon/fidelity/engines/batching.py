"""Several calls of a model in one run, along the first dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from otel_quantmon.fidelity.engines.engine import Engine, EngineError
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["are_close", "run_together"]

# Sums of float32 in another order differ by this share of the largest element at most, see
# `otel_quantmon.fidelity.numerics.measures.top1_noise`.
_ROUNDING = 1e-4


def run_together(
    engine: Engine, calls: Sequence[Mapping[str, Any]], *, seconds: float
) -> list[dict[str, Any]] | None:
    """Run ``calls`` at once and return the outputs of each; None where their shapes or the model do not allow it.

    Args:
        engine: A model whose inputs and outputs all have a dynamic first dimension.
        calls: Inputs of each, by name.
        seconds: Limit of the run.

    Raises:
        EngineError: The model refuses the batch.
    """
    if not all(map(_is_open, (*engine.inputs, *engine.outputs))):
        return None
    rows: list[int] = []
    for call in calls:
        if not all(isinstance(value, np.ndarray) and value.ndim for value in call.values()):
            return None
        lengths = {len(value) for value in call.values()}
        if len(lengths) != 1:
            return None
        rows += lengths
    for tensor in engine.inputs:
        kinds = {(call[tensor.name].dtype, call[tensor.name].shape[1:]) for call in calls}
        if len(kinds) != 1:
            return None
    batch = {tensor.name: np.concatenate([call[tensor.name] for call in calls]) for tensor in engine.inputs}
    results = engine.run(batch, seconds=seconds)
    total = sum(rows)
    if any(getattr(value, "shape", ())[:1] != (total,) for value in results.values()):
        raise EngineError("the outputs of a batch have not as many rows as its inputs")
    ends = np.cumsum(rows)
    return [
        {name: value[end - count : end] for name, value in results.items()}
        for count, end in zip(rows, ends, strict=True)
    ]


def are_close(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return True if two runs gave the same, but for rounding."""
    return all(_is_close(one[name], other[name]) for name in one)


def _is_close(one: Any, other: Any) -> bool:
    if one.shape != other.shape or one.dtype.kind != other.dtype.kind:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    scale = float(np.max(np.abs(other), initial=0.0, where=np.isfinite(other)))
    return bool(np.allclose(one, other, rtol=0.0, atol=_ROUNDING * scale, equal_nan=True))


def _is_open(tensor: TensorFacts) -> bool:
    return tensor.shape is not None and tensor.shape[:1] == (None,)
