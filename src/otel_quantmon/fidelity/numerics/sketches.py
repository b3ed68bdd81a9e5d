"""A few numbers of a sampled tensor, by which a change of the data is found.

Of an input: its range, mean and spread, how rough it is, and how it leans along each axis. The first four see another
scale or unit. The lean sees what is turned, mirrored, shifted or in another order of channels, which keeps all values.
The roughness sees another texture, rate or layout. Of class scores: how sure the first one is. Of any other output:
quantiles and spread.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.fidelity.numerics.dequantization import NotComparableError, as_real
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["input_sketch", "output_sketch"]

# Elements that are looked at, on a grid; an axis of a few, such as channels, is looked at as a whole.
_MOST = 1024
_FEW = 4

# Classes of a model that decides: more are a vocabulary or a picture.
_MOST_CLASSES = 10_000

_QUANTILES = (0.05, 0.5, 0.95)


@np.errstate(all="ignore")
def input_sketch(array: NDArray[Any]) -> dict[str, float] | None:
    """Sketch an input; None for what holds no finite numbers.

    Returns:
        ``low``, ``high``, ``mean`` and ``spread`` (standard deviation) in the input's unit. In spreads: ``rough``, the
        mean distance of neighbours on the longest axis, and for each axis after the first, the items of a batch,
        ``lean`` with its number, the mean of its first half less that of its second.
    """
    grid = _grid(array)
    if grid is None:
        return None
    size, total = grid.size, _sum(grid)
    spread = _spread(grid, total / size)
    found = {
        "low": float(np.minimum.reduce(grid, axis=None)),
        "high": float(np.maximum.reduce(grid, axis=None)),
        "mean": total / size,
        "spread": spread,
    }
    if size < 2:
        return found
    unit = spread or 1.0
    longest = max(range(grid.ndim), key=grid.shape.__getitem__)
    later, earlier = _part(grid, longest, slice(1, None)), _part(grid, longest, slice(None, -1))
    found["rough"] = _sum(np.abs(later - earlier)) / later.size / unit
    for axis in range(min(1, grid.ndim - 1), grid.ndim):
        if grid.shape[axis] > 1:
            first = _part(grid, axis, slice(None, grid.shape[axis] // 2))
            part = _sum(first)
            found[f"lean {axis}"] = (part / first.size - (total - part) / (size - first.size)) / unit
    return found


@np.errstate(all="ignore")
def output_sketch(
    array: NDArray[Any], facts: TensorFacts | None = None, *, decides: bool
) -> dict[str, float] | None:
    """Sketch an output; None without finite numbers.

    Args:
        array: Array of the output.
        facts: Facts with its quantization parameters, without which integers are no scores.
        decides: False for what is no score, such as recurrent state that is fed back.

    Returns:
        ``margin`` of the first class over the second and ``entropy`` in nats of a first row of class scores. Of any
        other output ``p05``, ``p50`` and ``p95``, ``high`` and ``spread``; of a single number ``p50``.
    """
    scores = facts is not None and facts.quantization is not None
    if decides and array.ndim == 2 and 2 <= array.shape[1] <= _MOST_CLASSES and array.shape[0]:
        if scores and array.dtype.kind in "iu":
            try:
                return _score_sketch(as_real(array[:1], facts)[0])
            except NotComparableError:
                pass
        elif array.dtype.kind == "f":
            return _score_sketch(array[0])
    grid = _grid(array)
    if grid is None:
        return None
    ordered = np.sort(grid, axis=None)
    last = ordered.size - 1
    if not last:
        return {"p50": float(ordered[0])}
    found = {f"p{round(100 * share):02}": float(ordered[round(share * last)]) for share in _QUANTILES}
    return {**found, "high": float(ordered[last]), "spread": _spread(ordered, _sum(ordered) / (last + 1))}


def _grid(array: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return some elements of ``array``, even along each axis; what is not finite is replaced by their mean."""
    if array.dtype.kind not in "fiu" or not array.size:
        return None
    long = [size for size in array.shape if size > _FEW]
    steps = [1] * array.ndim
    if array.size > _MOST and long:
        short = math.prod(size for size in array.shape if size <= _FEW)
        each = max(_FEW, round((_MOST / short) ** (1.0 / len(long))))
        steps = [max(1, size // each) if size > _FEW else 1 for size in array.shape]
    grid = array[tuple(slice(None, None, step) for step in steps)].astype(np.float64)
    if math.isfinite(_sum(grid)):
        return grid
    finite = np.isfinite(grid)
    if not finite.any():
        return None
    return np.where(finite, grid, grid[finite].mean())


# The methods of arrays cost several times as much as the reduction of so few numbers, here and below.
def _sum(values: NDArray[np.float64]) -> float:
    return float(np.add.reduce(values, axis=None))


def _part(grid: NDArray[np.float64], axis: int, of: slice) -> NDArray[np.float64]:
    return grid[(slice(None),) * axis + (of,)]


def _spread(grid: NDArray[np.float64], mean: float) -> float:
    off = grid.reshape(-1) - mean
    found = float(off @ off) / off.size
    return math.sqrt(found) if math.isfinite(found) else math.nan


def _score_sketch(row: NDArray[Any]) -> dict[str, float]:
    """Margin and entropy of class scores, probabilities or logits; NaN, which detectors pass over, if not finite.

    Scores that are no distribution, by sign or by sum, are made one by softmax first. Both are numbers of the model
    alone and need no label.
    """
    scores = row.astype(np.float64)
    total = _sum(scores)
    if not (math.isfinite(total) and np.isfinite(scores).all()):
        return {"margin": math.nan, "entropy": math.nan}
    if float(np.minimum.reduce(scores)) < 0.0 or abs(total - 1.0) > 0.02:
        scores = np.exp(scores - np.maximum.reduce(scores))
        total = _sum(scores)
    shares = scores / total
    second, first = np.partition(shares, -2)[-2:].tolist()
    some = shares[shares > 0.0]
    return {"margin": first - second, "entropy": -float(some @ np.log(some))}
