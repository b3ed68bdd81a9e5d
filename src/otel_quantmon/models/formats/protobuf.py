"""The protocol buffer wire format, read in place.

A message is a sequence of ``(field number << 3 | wire type)`` varints, each followed by its value; wire types
are 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes. Groups (3 and 4) are gone from every schema
read here. Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.models.formats.source import Data, in_memory

__all__ = ["Field", "WireReader", "signed", "text", "varints"]

Field = int | Data
"""A varint, or the bytes of a nested message, string, packed list, fixed32 or fixed64."""

_FIELD_LIMIT = 2_000_000
"""Fields read from one file: a graph of 100,000 operators has fewer. Some seconds of work."""

_TEXT_LIMIT = 1 << 16
"""Bytes of one string that is decoded."""


class WireReader:
    """Splits messages into fields, up to a limit for one file that keeps hostile files from taking for ever.

    Values are slices of the data: what is not looked into is never touched, so the payload of an
    initializer in a file is not even read from disk.
    """

    def __init__(self, field_limit: int = _FIELD_LIMIT) -> None:
        self._remaining = field_limit

    def spend(self, count: int) -> None:
        """Count ``count`` fields or numbers against the limit before they are read."""
        self._remaining -= count
        if self._remaining < 0:
            raise ModelFormatError("it holds more fields than any known model")

    def fields(self, message: Data) -> Iterator[tuple[int, Field]]:
        """Yield ``(field number, value)`` in the order of the file.

        Raises:
            ModelFormatError: A value reaches past the message, a wire type is unknown, or the limit is
            exceeded.
        """
        position, end = 0, len(message)
        while position < end:
            self.spend(1)
            tag = message[position]
            if tag < 0x80:  # all of ONNX's usual fields
                position += 1
            else:
                tag, position = _varint(message, position)
            kind = tag & 7
            if kind == 0:
                value, position = _varint(message, position)
                yield tag >> 3, value
                continue
            if kind == 2:
                length, position = _varint(message, position)
            elif kind == 5:
                length = 4
            elif kind == 1:
                length = 8
            else:
                raise ModelFormatError(f"wire type {kind} is not in use")
            if length > end - position:
                raise ModelFormatError(f"a field claims {length} bytes where {end - position} are left")
            yield tag >> 3, message[position : position + length]
            position += length


def _varint(message: Data, position: int) -> tuple[int, int]:
    """Return the varint at ``position`` and the position after it."""
    if position < len(message) and message[position] < 0x80:
        return message[position], position + 1
    value = shift = 0
    for byte in in_memory(message[position : position + 10]):
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    raise ModelFormatError("a number is cut off or longer than 64 bits")


def signed(value: int) -> int:
    """Return an int64 or int32 from its varint: two's complement in 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def varints(field: Field, limit: int) -> tuple[int, ...]:
    """Return a repeated int64, packed or one element of it.

    Raises:
        ModelFormatError: More than ``limit`` numbers.
    """
    if isinstance(field, int):
        return (signed(field),)
    numbers: list[int] = []
    position = 0
    while position < len(field):
        if len(numbers) == limit:
            raise ModelFormatError(f"a list of numbers is longer than {limit}")
        value, position = _varint(field, position)
        numbers.append(signed(value))
    return tuple(numbers)


def text(field: Field) -> str:
    """Return a string; bytes that are not UTF-8 are replaced.

    Raises:
        ModelFormatError: The field is a number, or the string is longer than 64 KiB.
    """
    if isinstance(field, int):
        raise ModelFormatError("a number stands where a string belongs")
    if len(field) > _TEXT_LIMIT:
        raise ModelFormatError(f"a name is {len(field)} bytes long")
    return str(field.tobytes(), "utf-8", "replace")
