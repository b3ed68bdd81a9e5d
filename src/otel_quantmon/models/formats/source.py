"""The bytes of a model file, read piece by piece as a reader asks for them.

A file is not mapped into memory: where another process rewrites a mapped file in place (``cp``,
``rsync --inplace``), the kernel ends this one with SIGBUS. Only regular files are opened: a FIFO would keep whoever
opens it waiting for a writer, and take from its reader what was meant for that.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias, overload

from otel_quantmon.guard import pass_on

__all__ = [
    "Data",
    "FileSlice",
    "Identity",
    "RegularFile",
    "contents",
    "identity_of",
    "in_memory",
    "open_regular",
    "read_regular",
]

_BLOCK = 1 << 14
"""Bytes of one read: the structure lies in small pieces between the weights."""

_BLOCKS_KEPT = 32

_IN_MEMORY = 1 << 12
"""Bytes up to which a slice of a file is memory: the nodes of a graph, not its weights."""

_READ_WHOLE = 1 << 18
"""Bytes of a file that is read at once, which is faster than piece by piece."""


class Identity(NamedTuple):
    """What shows whether a file is still the one that it was, as long as nobody sets its times back."""

    modified_ns: int
    size: int
    inode: int


class RegularFile:
    """An open regular file, for one thread.

    Attributes:
        path: Path that it was opened by.
        size: Bytes when it was opened.
        identity: Identity of the file when it was opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        # Before opening: to open a FIFO, even without waiting, lets its writer go on.
        _require_regular(os.stat(path), self.path)
        # It may have been exchanged for one meanwhile: that is opened without waiting, and seen.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        self._file = open(os.open(path, flags), "rb", buffering=0)  # noqa: SIM115  closed by `close`
        try:
            self._opened = os.fstat(self._file.fileno())
            _require_regular(self._opened, self.path)
        except BaseException:
            self._file.close()
            raise
        self.identity = _identity(self._opened)
        self.size = self._opened.st_size

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on.

        Raises:
            OSError: The file has become shorter, or cannot be read.
        """
        self._file.seek(offset)
        pieces: list[bytes] = []
        while size > 0:
            piece = self._file.read(size)
            if not piece:
                raise self._changed()
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def require_unchanged(self) -> None:
        """Raise OSError if the file was written to since it was opened; what was read is then of no one file."""
        now = os.fstat(self._file.fileno())
        # The change time too, since a copy may set the modification time back to that of its source; but not where a
        # name was given or taken, as when another file has taken this one's place.
        touched = now.st_ctime_ns != self._opened.st_ctime_ns and now.st_nlink == self._opened.st_nlink
        if _identity(now) != self.identity or touched:
            raise self._changed()

    def close(self) -> None:
        """Close it; slices of it end with it."""
        self._file.close()

    def _changed(self) -> OSError:
        return OSError(errno.EBUSY, "it was changed while it was read", self.path)


class FileSlice:
    """A stretch of a file with the interface of a ``memoryview`` of bytes, as far as the readers use it.

    A slice of up to 4 KiB is a ``memoryview`` of its bytes, a longer one a slice again.
    """

    __slots__ = ("_blocks", "_end", "_file", "_start")

    def __init__(
        self, file: RegularFile, start: int, end: int, blocks: dict[int, bytes] | None = None
    ) -> None:
        self._file = file
        self._start = start
        self._end = end
        self._blocks: dict[int, bytes] = {} if blocks is None else blocks

    def __len__(self) -> int:
        return self._end - self._start

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Data: ...

    def __getitem__(self, index: int | slice) -> int | Data:
        if isinstance(index, int):
            position = self._start + index
            if not self._start <= position < self._end:
                raise IndexError(index)
            return self._block(position // _BLOCK)[position % _BLOCK]
        start, end, _ = index.indices(len(self))
        start, end = self._start + start, self._start + max(start, end)
        if end - start > _IN_MEMORY:
            return FileSlice(self._file, start, end, self._blocks)
        if end == start:
            return memoryview(b"")
        first, last = start // _BLOCK, (end - 1) // _BLOCK
        at = start % _BLOCK
        if first == last:
            return memoryview(self._block(first))[at : at + end - start]
        return memoryview(self._block(first)[at:] + self._block(last)[: end - last * _BLOCK])

    def tobytes(self) -> bytes:
        """All of it, in memory."""
        return self._file.read(self._start, len(self))

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            if len(self._blocks) >= _BLOCKS_KEPT:
                del self._blocks[next(iter(self._blocks))]
            start = number * _BLOCK
            block = self._blocks[number] = self._file.read(start, min(_BLOCK, self._file.size - start))
        return block


Data: TypeAlias = memoryview | FileSlice
"""Bytes in memory or in a file."""


def in_memory(data: Data) -> memoryview:
    """Return the bytes of ``data``, which the caller knows to be few, in memory."""
    return data if isinstance(data, memoryview) else memoryview(data.tobytes())


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Generator[RegularFile, None, None]:
    """Open a regular file for reading.

    Raises:
        OSError: The path is no regular file, or cannot be opened; or, at the end, it has changed meanwhile. An error of
            the reader's own gives way to that: what changes while it is read looks damaged.
    """
    file = RegularFile(path)
    try:
        try:
            yield file
        except Exception as error:
            pass_on(error)
            file.require_unchanged()
            raise
        file.require_unchanged()
    finally:
        file.close()


def contents(file: RegularFile) -> Data:
    """Return what is in ``file``, at once or piece by piece."""
    if file.size <= _READ_WHOLE:
        return memoryview(file.read(0, file.size))
    return FileSlice(file, 0, file.size)


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """All of a regular file.

    Raises:
        OSError: As for `open_regular`.
    """
    with open_regular(path) as file:
        return file.read(0, file.size)


def identity_of(path: str | os.PathLike[str]) -> Identity | None:
    """Return the identity of the regular file at ``path``, None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        pass_on(error)
        return None
    return _identity(status) if stat.S_ISREG(status.st_mode) else None


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_mtime_ns, status.st_size, status.st_ino)


def _require_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)
