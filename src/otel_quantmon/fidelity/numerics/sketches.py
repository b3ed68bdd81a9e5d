"""A few numbers of a sampled tensor, by which a change of the data is found.

Of an input: its range, mean and spread, how rough it is, and how it leans along each axis. The first four see another
scale or unit. The lean sees what is turned, mirrored, shifted or in another order of channels, which keeps all values.
The roughness sees another texture, rate or layout. Of class scores: how sure the first one is. Of any other output:
quantiles and spread.

Of a batch the first item is sketched: the extremes of many items lie farther out than those of one, and their mean lies
closer in, so that another size of batch would look like other data. Of a tensor with another dimension that changes
from call to call, such as the length of a sequence, the extremes are left out for the same reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.fidelity.numerics.dequantization import NotComparableError, as_real
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["first_items", "input_sketch", "output_sketch"]

# Elements that are looked at, on a grid; an axis of a few, such as channels, is looked at as a whole.
_MOST = 1024
_FEW = 4

# Classes of a model that decides: more are a vocabulary or a picture.
_MOST_CLASSES = 10_000

_QUANTILES = (0.05, 0.5, 0.95)


def first_items(
    inputs: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, NDArray[Any]],
    facts: Mapping[str, TensorFacts],
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return the inputs and outputs of a call, of a batch only the first item; the dimension is kept.

    A batch is what has a dynamic first dimension that is as long in an input of two dimensions or more and in an
    output. So samples of sound (n,) are none, nor is a sequence (time, features) that gives one result or one of
    another length. A sequence with a result for each of its steps looks like a batch, and its first step is taken.
    """
    given = {name: array.shape for name, array in inputs.items() if 0 in _open(array, facts.get(name))}
    made = {name: array.shape for name, array in outputs.items() if 0 in _open(array, facts.get(name))}
    sizes = {shape[0] for shape in given.values() if len(shape) > 1} & {shape[0] for shape in made.values()}
    return (
        {
            name: array[:1] if given.get(name, (None,))[0] in sizes else array
            for name, array in inputs.items()
        },
        {
            name: array[:1] if made.get(name, (None,))[0] in sizes else array
            for name, array in outputs.items()
        },
    )


def _open(array: NDArray[Any], facts: TensorFacts | None) -> tuple[int, ...]:
    """Return the axes of ``array`` that may have another length in another call; none where nothing is known of it.

    TFLite takes an input of any shape after it was told so, whatever the model says.
    """
    if facts is None:
        return ()
    if facts.shape is None or len(facts.shape) != array.ndim:
        return tuple(range(array.ndim))
    sizes = zip(facts.shape, array.shape, strict=True)
    return tuple(axis for axis, (declared, size) in enumerate(sizes) if declared != size)


@np.errstate(all="ignore")
def input_sketch(array: NDArray[Any], facts: TensorFacts | None = None) -> dict[str, float] | None:
    """Sketch an input; None for what holds no finite numbers.

    Args:
        array: Array of the input, of a batch the first item, see `first_items`.
        facts: Facts with its shape, without which all dimensions are taken to be fixed.

    Returns:
        ``low``, ``high``, ``mean`` and ``spread`` (standard deviation) in the input's unit. In spreads: ``rough``, the
        mean distance of neighbours on the longest axis, and for each axis after the first, the items of a batch,
        ``lean`` with its number, the mean of its first half less that of its second. Where a dimension after the first
        is dynamic there are no ``low`` and ``high``, and ``rough`` is that of elements next to each other on the last
        such axis.
    """
    grid = _grid(array)
    if grid is None:
        return None
    size, total = grid.size, _sum(grid)
    spread = _spread(grid, total / size)
    found = {"mean": total / size, "spread": spread}
    changing = _changing(array, facts)
    if not changing:
        found["low"] = float(np.minimum.reduce(grid, axis=None))
        found["high"] = float(np.maximum.reduce(grid, axis=None))
    if size < 2:
        return found
    unit = spread or 1.0
    rough = _next_to_each_other(array, changing[-1]) if changing else _on_the_grid(grid)
    if rough is not None:
        found["rough"] = rough / unit
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
        array: Array of the output, of a batch the first item, see `first_items`.
        facts: Facts with its shape, as for `input_sketch`, and its quantization parameters, without which integers
            are no scores.
        decides: False for what is no score, such as recurrent state that is fed back.

    Returns:
        ``margin`` of the first class over the second and ``entropy`` in nats of a first row of class scores. Of any
        other output ``p05``, ``p50`` and ``p95``, ``spread``, and ``high`` where no dimension after the first is
        dynamic; of a single number ``p50``.
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
    if not _changing(array, facts):
        found["high"] = float(ordered[last])
    found["spread"] = _spread(ordered, _sum(ordered) / (last + 1))
    return found


def _changing(array: NDArray[Any], facts: TensorFacts | None) -> tuple[int, ...]:
    """Return the axes by which the number of elements changes from call to call; not that of a batch's one item."""
    return tuple(axis for axis in _open(array, facts) if axis or array.shape[0] > 1)


def _grid(array: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return some elements of ``array``, even along each axis; what is not finite is replaced by their mean."""
    if array.dtype.kind not in "fiu" or not array.size:
        return None
    grid = array[tuple(slice(None, None, step) for step in _steps(array))].astype(np.float64)
    if math.isfinite(_sum(grid)):
        return grid
    finite = np.isfinite(grid)
    if not finite.any():
        return None
    return np.where(finite, grid, grid[finite].mean())


def _steps(array: NDArray[Any]) -> list[int]:
    """Return how far apart the elements of the grid are along each axis."""
    long = [size for size in array.shape if size > _FEW]
    if array.size <= _MOST or not long:
        return [1] * array.ndim
    short = math.prod(size for size in array.shape if size <= _FEW)
    each = max(_FEW, round((_MOST / short) ** (1.0 / len(long))))
    return [max(1, size // each) if size > _FEW else 1 for size in array.shape]


def _on_the_grid(grid: NDArray[np.float64]) -> float:
    """Return the mean distance of neighbours on the longest axis of the grid."""
    longest = max(range(grid.ndim), key=grid.shape.__getitem__)
    later, earlier = _part(grid, longest, slice(1, None)), _part(grid, longest, slice(None, -1))
    return _sum(np.abs(later - earlier)) / later.size


def _next_to_each_other(array: NDArray[Any], axis: int) -> float | None:
    """Return the mean distance of elements next to each other on ``axis``; None where none is finite.

    The elements of the grid are the farther apart, the longer an axis is.
    """
    steps = _steps(array)
    grid = array[tuple(slice(None, None, 1 if i == axis else step) for i, step in enumerate(steps))]
    earlier = _part(grid, axis, slice(None, -1, steps[axis])).astype(np.float64)
    later = _part(grid, axis, slice(1, None, steps[axis])).astype(np.float64)
    apart = np.abs(later - earlier)
    finite = apart[np.isfinite(apart)]
    return _sum(finite) / finite.size if finite.size else None


# The methods of arrays cost several times as much as the reduction of so few numbers, here and below.
def _sum(values: NDArray[np.float64]) -> float:
    return float(np.add.reduce(values, axis=None))


def _part(grid: NDArray[Any], axis: int, of: slice) -> NDArray[Any]:
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
