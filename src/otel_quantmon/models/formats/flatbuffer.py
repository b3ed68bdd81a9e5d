"""FlatBuffers tables, read in place and without a schema compiler.

A table starts with the distance back to its vtable, which holds its own size, the table's size, and for each
field the field's distance from the table's start, 0 when absent. Strings, vectors and nested tables are
behind unsigned 32-bit distances from the field. Source: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.models.formats.source import Data, in_memory

__all__ = ["FlatBuffer", "Table"]

_VISIT_LIMIT = 1_000_000
"""Tables and elements of lists read from one file: a model of 20,000 tensors has fewer. Some seconds of work.
"""

_TEXT_LIMIT = 1 << 16
"""Bytes of one string that is decoded."""

_FORMS = {form: struct.Struct("<" + form) for form in "bBiIqQ"}
_UINT16 = struct.Struct("<H")
_INT32 = struct.Struct("<i")
_FLOAT32 = struct.Struct("<f")
_UINT32 = struct.Struct("<I")


class FlatBuffer:
    """One buffer, and how much of it may still be visited.

    Offsets may make many references meet in one place, so a small hostile file can stand for an enormous
    tree. The limit is on what is visited, however often it is referred to.
    """

    def __init__(self, data: Data, visit_limit: int = _VISIT_LIMIT) -> None:
        self.data = data
        self._remaining = visit_limit

    def root(self) -> Table:
        """Return the table that the buffer's first four bytes point to."""
        return Table(self, self.number(_UINT32, 0))

    def visit(self, count: int) -> None:
        """Count ``count`` elements against the limit before they are read."""
        self._remaining -= count
        if self._remaining < 0:
            raise ModelFormatError("it refers to more tables than any known model")

    def number(self, form: struct.Struct, position: int) -> int:
        """Return the integer of ``form`` at ``position``."""
        value: int = self._unpacked(form, position)
        return value

    def real(self, position: int) -> float:
        """Return the float32 at ``position``."""
        value: float = self._unpacked(_FLOAT32, position)
        return value

    def _unpacked(self, form: struct.Struct, position: int) -> Any:
        if position < 0 or position + form.size > len(self.data):
            raise ModelFormatError(f"an offset points to byte {position} of {len(self.data)}")
        return form.unpack(in_memory(self.data[position : position + form.size]))[0]


class Table:
    """One table; fields are numbered as in the schema, a union taking two (its type, then its value)."""

    __slots__ = ("_buffer", "_position", "_vtable", "_vtable_size")

    def __init__(self, buffer: FlatBuffer, position: int) -> None:
        buffer.visit(1)
        self._buffer = buffer
        self._position = position
        self._vtable = position - buffer.number(_INT32, position)
        self._vtable_size = buffer.number(_UINT16, self._vtable)

    def _field(self, index: int) -> int:
        """Position of a field, 0 when it is absent."""
        slot = 4 + 2 * index
        if slot + 2 > self._vtable_size:
            return 0
        distance = self._buffer.number(_UINT16, self._vtable + slot)
        return self._position + distance if distance else 0

    def _target(self, index: int) -> int:
        """Position of what a reference field refers to, 0 when it is absent."""
        field = self._field(index)
        return field + self._buffer.number(_UINT32, field) if field else 0

    def _extent(self, index: int, width: int) -> tuple[int, int]:
        """Position of a vector's first element and its length, checked against the buffer."""
        start = self._target(index)
        if not start:
            return 0, 0
        length = self._buffer.number(_UINT32, start)
        left = len(self._buffer.data) - start - 4
        if length * width > left:
            raise ModelFormatError(f"a vector claims {length} elements where {left} bytes are left")
        return start + 4, length

    def number(self, index: int, form: str, default: int = 0) -> int:
        """Return an integer field; ``form`` is its :mod:`struct` character."""
        field = self._field(index)
        return self._buffer.number(_FORMS[form], field) if field else default

    def real(self, index: int) -> float:
        """Return a float32 field; 0 when absent."""
        field = self._field(index)
        return self._buffer.real(field) if field else 0.0

    def text(self, index: int) -> str:
        """Return a string field; empty when absent.

        Raises:
            ModelFormatError: It is longer than 64 KiB.
        """
        start, length = self._extent(index, 1)
        if length > _TEXT_LIMIT:
            raise ModelFormatError(f"a name is {length} bytes long")
        return _decoded(self._buffer, start, length)

    def texts(self, index: int) -> list[str]:
        """Return a vector of strings."""
        names: list[str] = []
        start, length = self._extent(index, 4)
        self._buffer.visit(length)
        for position in range(start, start + 4 * length, 4):
            target = position + self._buffer.number(_UINT32, position)
            size = self._buffer.number(_UINT32, target)
            if size > min(_TEXT_LIMIT, len(self._buffer.data) - target - 4):
                raise ModelFormatError(f"a name claims to be {size} bytes long")
            names.append(_decoded(self._buffer, target + 4, size))
        return names

    def table(self, index: int) -> Table | None:
        """Return a nested table."""
        target = self._target(index)
        return Table(self._buffer, target) if target else None

    def tables(self, index: int) -> Iterator[Table]:
        """Yield a vector of tables."""
        start, length = self._extent(index, 4)
        for position in range(start, start + 4 * length, 4):
            yield Table(self._buffer, position + self._buffer.number(_UINT32, position))

    def raw(self, index: int, width: int = 1) -> Data:
        """Return the bytes of a vector whose elements are ``width`` bytes wide, not copied."""
        start, length = self._extent(index, width)
        return self._buffer.data[start : start + length * width]

    def numbers(self, index: int, form: str, limit: int) -> tuple[int, ...]:
        """Return a vector of integers.

        Raises:
            ModelFormatError: It has more than ``limit`` elements.
        """
        return tuple(int(value) for value in self._unpacked(index, form, limit))

    def floats(self, index: int, limit: int) -> tuple[float, ...]:
        """Return a vector of float32, limited as in :meth:`numbers`."""
        return tuple(float(value) for value in self._unpacked(index, "f", limit))

    def _unpacked(self, index: int, form: str, limit: int) -> tuple[int | float, ...]:
        width = struct.calcsize("<" + form)
        start, length = self._extent(index, width)
        if length > limit:
            raise ModelFormatError(f"a list of numbers has {length} elements")
        self._buffer.visit(length)
        found = self._buffer.data[start : start + length * width]
        return struct.unpack(f"<{length}{form}", in_memory(found))


def _decoded(buffer: FlatBuffer, start: int, length: int) -> str:
    # Charged by length as well: thousands of references may share one long string.
    buffer.visit(length >> 4)
    return str(buffer.data[start : start + length].tobytes(), "utf-8", "replace")
