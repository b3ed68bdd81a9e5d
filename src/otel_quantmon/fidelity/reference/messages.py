"""What goes between the application and the reference's process: JSON and raw tensors, never pickle."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import numpy as np

__all__ = ["MessageError", "Stream", "from_bytes", "read_message", "to_bytes", "write_message"]

Stream: TypeAlias = io.RawIOBase | io.BufferedIOBase
"""A pipe's end without a buffer has no lock, which a thread that a fork left behind would hold for ever."""

_LENGTHS = struct.Struct("<QQ")
_MAX_HEADER = 64 * 1024 * 1024


class MessageError(Exception):
    """The other side has gone, or does not speak this protocol."""


def write_message(stream: Stream, message: Any) -> None:
    """Write one message.

    Args:
        stream: Stream to write to.
        message: A message of dicts with string keys, lists, tuples, strings, numbers, None and numpy arrays.

    Raises:
        MessageError: The other side has gone.
        TypeError: A value of another type.
    """
    tensors: list[np.ndarray[Any, Any]] = []
    header = json.dumps(_pack(message, tensors)).encode()
    try:
        _write(stream, _LENGTHS.pack(len(header), sum(tensor.nbytes for tensor in tensors)) + header)
        for tensor in tensors:
            # A view of the bytes: nothing is copied but into the pipe.
            _write(stream, tensor.reshape(-1).view(np.uint8).data)
        stream.flush()
    except (OSError, ValueError) as error:
        raise MessageError("the other side has gone") from error


def read_message(stream: Stream) -> Any:
    """Read one message, waiting for it.

    Raises:
        MessageError: The other side has gone, or what it sent is not a message.
    """
    header_length, payload_length = _LENGTHS.unpack(_read(stream, _LENGTHS.size))
    if header_length > _MAX_HEADER:
        raise MessageError("what arrived is not a message")
    try:
        header = json.loads(_read(stream, header_length))
    except ValueError as error:
        raise MessageError("what arrived is not a message") from error
    return _unpack(header, memoryview(_read(stream, payload_length)), [0])


def to_bytes(message: Any) -> bytes:
    """Return one message as bytes; see `write_message` for what it may hold.

    Raises:
        TypeError: A value of another type.
    """
    stream = io.BytesIO()
    write_message(stream, message)
    return stream.getvalue()


def from_bytes(data: bytes) -> Any:
    """Return the message that ``data`` is, which may come from anywhere.

    Raises:
        MessageError: It is none.
    """
    try:
        if sum(_LENGTHS.unpack_from(data)) + _LENGTHS.size != len(data):
            raise MessageError("it is longer or shorter than it says")
        return read_message(io.BytesIO(data))
    except (
        *(struct.error, ValueError, KeyError, IndexError, TypeError, AttributeError, ImportError),
        *(OverflowError, RecursionError, MemoryError),
    ) as error:
        raise MessageError(f"it is not a message: {type(error).__name__}: {error}") from error


def _write(stream: Stream, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[stream.write(left) :]


def _read(stream: Stream, length: int) -> bytearray:
    data = bytearray(length)
    left = memoryview(data)
    while left:
        try:
            count = stream.readinto(left)
        except (OSError, ValueError) as error:
            raise MessageError("the other side has gone") from error
        if not count:
            raise MessageError("the other side has gone")
        left = left[count:]
    return data


def _pack(value: Any, tensors: list[np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, np.dtype[Any]]", value)
        if array.dtype.kind in "OUS":
            return {"strings": [_text(item) for item in array.ravel()], "shape": array.shape}
        # reshape() before it: ascontiguousarray makes a vector of a 0-d array.
        tensors.append(np.ascontiguousarray(array).reshape(array.shape))
        return {
            "tensor": array.dtype.str if array.dtype.kind != "V" else array.dtype.name,
            "shape": array.shape,
        }
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if isinstance(value, dict):
        return {
            "dict": [[key, _pack(item, tensors)] for key, item in cast("Mapping[Any, Any]", value).items()]
        }
    if isinstance(value, (list, tuple)):
        return {"list": [_pack(item, tensors) for item in cast("list[Any]", value)]}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be sent to the reference")


def _text(item: Any) -> str:
    return item.decode(errors="replace") if isinstance(item, bytes) else str(item)


def _unpack(value: Any, payload: memoryview, offset: list[int]) -> Any:
    if not isinstance(value, dict):
        return value
    packed = cast("dict[str, Any]", value)
    if "dict" in packed:
        return {key: _unpack(item, payload, offset) for key, item in packed["dict"]}
    if "list" in packed:
        return [_unpack(item, payload, offset) for item in packed["list"]]
    shape = tuple(packed["shape"])
    if "strings" in packed:
        return np.array(packed["strings"], dtype=object).reshape(shape)
    dtype = _dtype(packed["tensor"])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    begin = offset[0]
    offset[0] += size
    return np.frombuffer(payload[begin : begin + size], dtype=dtype).reshape(shape)


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # bfloat16 and its like have a name only while this is imported

        narrow: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return narrow
