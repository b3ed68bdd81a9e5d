"""The calls that a command runs a model on, from a file of inputs, in the types that the model wants."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.fidelity.baseline import InputFileError, load_inputs, split_cases
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["read_cases"]


def read_cases(path: Path, wanted: Sequence[TensorFacts], count: int | None) -> list[dict[str, NDArray[Any]]]:
    """Return the calls in a file, at most ``count``. Standard error says what has another type than wanted.

    numpy makes float64 and int64 of what has no other type: floats are rounded to the width that an input wants, and
    integers given as another integer type, where every value fits.

    Raises:
        InputFileError: See `load_inputs`; or a value has no place in the type that its input wants.
        BaselineError: There are fewer calls or rows than ``count``.
    """
    cases = split_cases(load_inputs(path, [tensor.name for tensor in wanted]), wanted, count)
    for tensor in wanted:
        given = {str(case[tensor.name].dtype) for case in cases}
        for case in cases:
            case[tensor.name] = _as_wanted(case[tensor.name], tensor)
        now = {str(case[tensor.name].dtype) for case in cases}
        if given != now:
            names = ", ".join(sorted(given - now))
            sys.stderr.write(f"quantmon: note: input {tensor.name!r} is {names}, given as {tensor.dtype}\n")
    return cases


def _as_wanted(array: NDArray[Any], wanted: TensorFacts) -> NDArray[Any]:
    kinds = [kind for kind in ("float", "int") if wanted.dtype.removeprefix("u").startswith(kind)]
    if (
        not kinds
        or array.dtype.name == wanted.dtype
        or array.dtype.kind not in {"float": "f", "int": "iu"}[kinds[0]]
    ):
        return array
    try:
        target = np.dtype(wanted.dtype)
    except TypeError:
        return array
    with np.errstate(over="ignore"):
        converted: NDArray[Any] = array.astype(target)
    fits = np.isfinite(converted) | ~np.isfinite(array) if kinds[0] == "float" else converted == array
    if not np.all(fits):
        raise InputFileError(
            f"input {wanted.name!r} wants {wanted.dtype}, and values of the file do not fit into it: give it as that"
        )
    return converted
