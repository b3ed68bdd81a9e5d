"""One model's inputs given to another: a float reference of an integer model, across runtimes and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.fidelity.engines.engine import EngineError
from otel_quantmon.fidelity.numerics.dequantization import NotComparableError, as_real
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["feed"]

_NO_NAMES: Mapping[str, str] = MappingProxyType({})


def feed(
    inputs: Mapping[str, Any],
    facts: Mapping[str, TensorFacts],
    wanted: Sequence[TensorFacts],
    mapping: Mapping[str, str] = _NO_NAMES,
) -> dict[str, Any]:
    """Return what to run a reference on, from what the quantized model was run on.

    An input is found by ``mapping``, by name, else by position if there are as many. Integer codes with
    quantization parameters are dequantized for an input that wants floats; floats are given in the width it wants.

    Args:
        inputs: Inputs of the quantized model, by name, in its order.
        facts: Facts of these inputs, by name, for their quantization parameters.
        wanted: The reference's inputs.
        mapping: Names in the quantized model to names in the reference.

    Raises:
        EngineError: An input is missing, or its shape or type does not fit.
    """
    by_reference = {mapping.get(name, name): name for name in inputs}
    positions = list(inputs)
    feeds: dict[str, Any] = {}
    for position, want in enumerate(wanted):
        name = by_reference.get(want.name)
        if name is None and len(wanted) == len(inputs) and want.name not in inputs:
            name = positions[position]
        if name is None:
            raise EngineError(
                f"the reference wants an input {want.name!r}, the model has {positions}; "
                "name it in reference_mapping"
            )
        feeds[want.name] = _converted(inputs[name], facts.get(name), want, name)
    return feeds


def _converted(value: Any, facts: TensorFacts | None, want: TensorFacts, name: str) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    array = cast("NDArray[Any]", value)
    if want.shape is not None and not _fits(array.shape, want.shape):
        raise EngineError(
            f"the reference wants {want.name!r} as {list(want.shape)}, the model was given {array.shape}"
        )
    if want.dtype in ("float16", "float32", "float64") and array.dtype.name != want.dtype:
        try:
            return as_real(array, facts).astype(want.dtype)
        except NotComparableError as error:
            raise EngineError(f"input {name!r} cannot be given to the reference: {error}") from error
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    # TFLite models state 1 for a dimension that can be resized.
    return len(shape) == len(wanted) and all(
        want in (None, 1, have) for have, want in zip(shape, wanted, strict=True)
    )
