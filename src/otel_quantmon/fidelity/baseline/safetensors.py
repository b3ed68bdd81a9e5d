"""The safetensors format: eight bytes of header length, a JSON header, and the tensors' bytes end to end.

Read and written here and not by the package of that name, for three reasons: the file must be readable
wherever the instrumented application runs, which has numpy and may have nothing else; claimed sizes are
checked against the bytes that are there before anything is allocated, with limits of our own; and bfloat16
must be readable where no ml_dtypes is installed. Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_HEADER_BYTES", "SafetensorsError", "decode", "encode", "header_bytes"]

MAX_HEADER_BYTES = 16 << 20
"""A header describes some hundred thousand tensors in so much."""

_METADATA = "__metadata__"
_LENGTH_BYTES = 8
_ALIGNMENT = 8

_DTYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code).name: name for name, code in _DTYPES.items()} | {"bfloat16": "BF16"}


class SafetensorsError(ValueError):
    """Bytes that are not a whole safetensors file, or a tensor that the format has no type for."""


def encode(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> tuple[bytes, list[bytes]]:
    """Return the file as its header, length included, and the bytes of each tensor in file order.

    Raises:
        SafetensorsError: A tensor's type has no name in the format, or the header is over `MAX_HEADER_BYTES`.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    data: list[bytes] = []
    end = 0
    # Wide types first: every tensor then starts at a multiple of its item size.
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        array = tensors[name]
        if name == _METADATA or array.dtype.name not in _NAMES:
            raise SafetensorsError(f"tensor {name!r} of type {array.dtype} cannot be stored: leave it out")
        if array.dtype.name == "bfloat16":
            array = array.view(np.uint16)
        content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        header[name] = {
            "dtype": _NAMES[tensors[name].dtype.name],
            "shape": list(array.shape),
            "data_offsets": [end, end + len(content)],
        }
        end += len(content)
        data.append(content)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES:
        raise SafetensorsError(f"a header of {len(text)} bytes is over the limit of {MAX_HEADER_BYTES}")
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text, data


def header_bytes(content: bytes) -> bytes:
    """Return the header of a file, length included.

    Raises:
        SafetensorsError: The file is shorter than it says, or its header over `MAX_HEADER_BYTES`.
    """
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if len(content) < _LENGTH_BYTES or length > min(MAX_HEADER_BYTES, len(content) - _LENGTH_BYTES):
        raise SafetensorsError(
            f"it claims a header of {length} bytes, which {len(content)} bytes cannot hold"
        )
    return content[: _LENGTH_BYTES + length]


def decode(content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of a whole file.

    Returns:
        Read-only views of `content`. bfloat16 is of ml_dtypes' type where that is installed, else the same
        values as float32.

    Raises:
        SafetensorsError: Anything in the header is not as the format has it, or does not fit the bytes there
        are.
    """
    header_and_length = header_bytes(content)
    try:
        header = json.loads(header_and_length[_LENGTH_BYTES:])
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"its header is not JSON: {error}") from None
    if not _is_object(header):
        raise SafetensorsError("its header is not a JSON object")
    metadata: object = header.pop(_METADATA, {})
    if not _is_object(metadata) or not all(isinstance(value, str) for value in metadata.values()):
        raise SafetensorsError("its metadata is not an object of strings")
    data = memoryview(content)[len(header_and_length) :]
    extents: list[tuple[int, int]] = []
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        begin, end, tensors[name] = _tensor(name, entry, data)
        extents.append((begin, end))
    position = 0
    for begin, end in sorted(extents):
        if begin != position:
            raise SafetensorsError(f"its tensors leave a gap or overlap at byte {position}")
        position = end
    if position != len(data):
        raise SafetensorsError(f"its tensors end at byte {position} of {len(data)}")
    return tensors, metadata


def _tensor(name: str, entry: object, data: memoryview) -> tuple[int, int, NDArray[Any]]:
    if not _is_object(entry):
        raise SafetensorsError(f"tensor {name!r} is not described by an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    stored = "U16" if dtype == "BF16" else dtype
    if not isinstance(stored, str) or stored not in _DTYPES:
        raise SafetensorsError(f"tensor {name!r} is of an unknown type {dtype!r}")
    if not _is_sizes(shape) or not _is_sizes(offsets) or len(offsets) != 2:
        raise SafetensorsError(f"tensor {name!r} has no valid shape and offsets")
    begin, end = offsets
    item = np.dtype(_DTYPES[stored])
    if not begin <= end <= len(data) or end - begin != math.prod(shape) * item.itemsize:
        raise SafetensorsError(
            f"tensor {name!r} claims bytes {begin} to {end} of {len(data)} for shape {shape}"
        )
    try:
        array: NDArray[Any] = np.frombuffer(data[begin:end], item).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise SafetensorsError(f"tensor {name!r}: {error}") from None
    return begin, end, _bfloat16(array) if dtype == "BF16" else array


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    # The keys of a JSON object are strings.
    return isinstance(value, dict)


def _is_sizes(value: Any) -> TypeGuard[list[int]]:
    # A bool is an int to isinstance, and no size.
    return type(value) is list and all(
        type(size) is int and size >= 0 for size in cast("list[object]", value)
    )


def _bfloat16(bits: NDArray[np.uint16]) -> NDArray[Any]:
    try:
        import ml_dtypes
    except ImportError:
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(ml_dtypes.bfloat16)
