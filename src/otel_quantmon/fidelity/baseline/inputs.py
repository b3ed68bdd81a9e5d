"""Inputs for a recording or a comparison, from the files people keep them in."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.errors import CommandError
from otel_quantmon.fidelity.baseline.safetensors import SafetensorsError, decode
from otel_quantmon.guard import pass_on
from otel_quantmon.models.formats.source import open_regular, read_regular

__all__ = ["MAX_INPUT_BYTES", "InputFileError", "load_inputs"]

MAX_INPUT_BYTES = 1 << 30
"""Of all arrays in one file, unpacked."""


class InputFileError(CommandError, ValueError):
    """A file of inputs could not be used; the message says what to change."""


def load_inputs(
    path: Path, names: Sequence[str], *, max_bytes: int = MAX_INPUT_BYTES
) -> list[dict[str, NDArray[Any]]]:
    """Return the inputs of one or more calls.

    Args:
        path: ``.npy`` for a model with one input; ``.npz`` or ``.safetensors`` with an array for each input
            under its name, or for each call and input under ``<call>/<name>`` (``0/image``, ``1/image``...).
        names: The model's inputs.
        max_bytes: Limit on the arrays, unpacked.

    Returns:
        One mapping of input to array for each call, in order.

    Raises:
        InputFileError: The file is missing, damaged, too large, holds pickled objects, or its names are not
            those of the model.
    """
    try:
        with open_regular(path):
            pass  # what follows opens it anew, and would wait for the writer of a FIFO
        if path.suffix == ".npy":
            if len(names) != 1:
                raise InputFileError(f"{path} is one array, the model's inputs are {list(names)}: use .npz")
            _check_size(path, path.stat().st_size, max_bytes)
            return [{names[0]: np.load(path, allow_pickle=False)}]
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                _check_size(path, sum(member.file_size for member in archive.infolist()), max_bytes)
            with np.load(path, allow_pickle=False) as arrays:
                return _calls(path, dict(arrays), names)
        if path.suffix == ".safetensors":
            _check_size(path, path.stat().st_size, max_bytes)
            tensors, _ = decode(read_regular(path))
            return _calls(path, tensors, names)
    except InputFileError:
        raise
    except SafetensorsError as error:
        raise InputFileError(f"{path} is damaged or no safetensors file: {error}") from None
    except OSError as error:
        pass_on(error)
        raise InputFileError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # numpy raises whatever its parsers meet in damaged bytes
        pass_on(error)
        raise InputFileError(f"{path} is damaged or holds objects; save plain arrays: {error}") from error
    raise InputFileError(f"{path} is of an unknown type: use .npy, .npz or .safetensors")


def _check_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise InputFileError(
            f"{path} holds {size} bytes of arrays, over the limit of {limit}: use fewer calls"
        )


def _calls(
    path: Path, arrays: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> list[dict[str, NDArray[Any]]]:
    if set(arrays) == set(names):
        return [{name: arrays[name] for name in names}]
    calls: dict[int, dict[str, NDArray[Any]]] = {}
    for key, array in arrays.items():
        number, _, name = key.partition("/")
        if not number.isdecimal():
            raise InputFileError(
                f"{path} holds {sorted(arrays)}, the model's inputs are {list(names)}: rename them"
            )
        calls.setdefault(int(number), {})[name] = array
    for index, call in calls.items():
        if set(call) != set(names):
            raise InputFileError(
                f"{path}, call {index}: has {sorted(call)}, the model's inputs are {list(names)}"
            )
    if not calls:
        raise InputFileError(f"{path} holds no array; the model's inputs are {list(names)}")
    return [{name: calls[index][name] for name in names} for index in sorted(calls)]
