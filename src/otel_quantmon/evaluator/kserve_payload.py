"""Tensors in the bodies that KServe logs: the V1 protocol, and V2 (Open Inference Protocol) with its binary data."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Payload", "PayloadError", "read_payload"]

_DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    # Which NumPy has not; each is a float32 whose second half is zero.
    "BF16": "float32",
    "FP32": "float32",
    "FP64": "float64",
}
# Beside those of values of other types.
_NOT_READ = (struct.error, RecursionError, MemoryError)
# Of an object of Python beside its letters.
_TEXT = 56
_LENGTH = struct.Struct("<I")


class PayloadError(Exception):
    """A body that has no tensors that can be read."""


class Payload(NamedTuple):
    """What a body has.

    Attributes:
        tensors: Tensors by name; in the V1 protocol without names, under the body's own key.
        model, version: Name and version of the model, where the body says them.
    """

    tensors: dict[str, NDArray[Any]]
    model: str | None = None
    version: str | None = None

    @property
    def size(self) -> int:
        """Bytes that its tensors take."""
        return sum(
            array.nbytes + (sum(map(_length, array.flat)) if array.dtype.kind == "O" else 0)
            for array in self.tensors.values()
        )


def read_payload(body: bytes, json_length: int | None = None, *, response: bool) -> Payload:
    """Return what a body has in it.

    Args:
        body: Body of a request or a response.
        json_length: Length of the JSON text that binary data follows; without it, the text's end is looked for.
        response: True for a response.

    Raises:
        PayloadError: Whatever is wrong with it.
    """
    try:
        text, binary = _split(body, json_length)
        found = json.loads(text)
        if not isinstance(found, dict):
            raise PayloadError("its body is no object")
        read = cast("dict[str, Any]", found)
        key = "outputs" if response else "inputs"
        listed: Any = read.get(key)
        if isinstance(listed, list) and listed and isinstance(listed[0], dict):
            tensors = _version_2(listed, binary)
        else:
            tensors = _version_1(read, ("predictions", "outputs") if response else ("instances", "inputs"))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, *_NOT_READ) as error:
        raise PayloadError(f"its body cannot be read: {type(error).__name__}: {error}") from error
    if not tensors:
        raise PayloadError("its body has no tensors")
    return Payload(tensors, _text(read.get("model_name")), _text(read.get("model_version")))


def _split(body: bytes, length: int | None) -> tuple[str, bytes]:
    if length is None:
        # What JSON is made of is ASCII, so its end is found whatever the bytes behind it are.
        _, length = json.JSONDecoder().raw_decode(body.decode("latin-1").lstrip())
        length += len(body) - len(body.lstrip())
    if not 0 <= length <= len(body):
        raise PayloadError("its body is shorter than it says")
    return body[:length].decode(), body[length:]


def _version_2(tensors: Any, binary: bytes) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    at = 0
    for one in tensors:
        shape = tuple(int(size) for size in one["shape"])
        if any(size < 0 for size in shape):
            raise PayloadError(f"tensor {one['name']!r} has the shape {shape}")
        parameters: Any = one.get("parameters") or {}
        kind, size = one["datatype"], parameters.get("binary_data_size")
        if size is not None:
            data, at = binary[at : at + size], at + size
            if len(data) != size:
                raise PayloadError(f"tensor {one['name']!r} has {len(data)} bytes of {size}")
            array = _from_bytes(data, kind)
        elif kind == "BYTES":
            array = np.array(np.asarray(one["data"], dtype=object).ravel().tolist(), dtype=object)
        else:
            array = _numbers(one["data"]).astype(_dtype(kind)).ravel()
        if array.size != math.prod(shape):
            raise PayloadError(f"tensor {one['name']!r} has {array.size} elements, and the shape {shape}")
        found[str(one["name"])] = array.reshape(shape)
    return found


def _from_bytes(data: bytes, kind: str) -> NDArray[Any]:
    if kind == "BYTES":
        return _strings(data)
    if kind == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, _dtype(kind))


def _dtype(kind: str) -> np.dtype[Any]:
    little: np.dtype[Any] = np.dtype(_DTYPES[kind]).newbyteorder("<")
    return little


def _strings(data: bytes) -> NDArray[Any]:
    found: list[str] = []
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack(data[at : at + _LENGTH.size])
        at += _LENGTH.size
        if at + length > len(data):
            raise PayloadError("a string is longer than what is left")
        found.append(data[at : at + length].decode())
        at += length
    return np.array(found, dtype=object)


def _version_1(read: Mapping[str, Any], keys: tuple[str, str]) -> dict[str, NDArray[Any]]:
    rows, columns = keys
    if rows in read:
        value = read[rows]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = cast("list[dict[str, Any]]", value)
            return {name: _array([one[name] for one in items]) for name in items[0]}
        return {rows: _array(value)}
    value = read[columns]
    if isinstance(value, dict):
        return {name: _array(one) for name, one in cast("dict[str, Any]", value).items()}
    return {columns: _array(value)}


def _array(value: Any) -> NDArray[Any]:
    texts = np.asarray(value, dtype=object)
    if _types(texts) == {str}:
        return texts
    array = _numbers(value)
    if not array.size:
        raise PayloadError("it has no elements")
    return array


def _numbers(value: Any) -> NDArray[Any]:
    # Looked at first: of texts numpy would make an array in which each takes as much as the longest.
    if not _types(np.asarray(value, dtype=object)) <= {bool, int, float}:
        raise PayloadError("it is neither numbers nor texts of one shape")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise PayloadError("its numbers are too large")
    # What JSON has no types for: whoever takes floats is given them in its own width.
    return array


def _types(array: NDArray[Any]) -> set[type]:
    return set(map(type, array.ravel().tolist()))


def _length(text: object) -> int:
    return _TEXT + len(text) if isinstance(text, str) else _TEXT


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
