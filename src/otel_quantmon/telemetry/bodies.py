"""Bodies of requests that are compressed, as OTLP over HTTP allows it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["ENCODINGS", "BodyError", "BodyTooLargeError", "expanded"]

ENCODINGS: Mapping[str, int | None] = MappingProxyType({"identity": None, "gzip": 31, "deflate": 15})
"""What zlib calls the format, by the name that HTTP has for it; None where nothing is compressed."""

# What follows a member is copied at each: in pieces of this size that is little, however many members there are.
_PIECE = 2**12


class BodyError(Exception):
    """A body that is not compressed as its header says."""


class BodyTooLargeError(Exception):
    """A body that would become too large."""


def expanded(body: bytes, encoding: str, most: int) -> bytes:
    """Return ``body`` without its compression: never more than is allowed, however much it would become.

    Args:
        body: Body as it came, of one member after another, which gzip allows.
        encoding: One of `ENCODINGS`.
        most: Bytes that it may become.

    Raises:
        BodyError: It is not compressed in this way, or cut off.
        BodyTooLargeError: It would become more than ``most``.
    """
    window = ENCODINGS[encoding]
    if window is None:
        return body
    found: list[bytes] = []
    size = 0
    stream = None
    try:
        for at in range(0, len(body), _PIECE):
            piece = body[at : at + _PIECE]
            while piece:
                stream = stream or zlib.decompressobj(window)
                found.append(stream.decompress(piece, most + 1 - size))
                size += len(found[-1])
                if size > most:
                    raise BodyTooLargeError
                piece = stream.unused_data
                stream = None if stream.eof else stream
    except zlib.error as error:
        raise BodyError(f"the body is not compressed as its header says: {error}") from error
    if stream is not None:
        raise BodyError("the compressed body is cut off")
    return b"".join(found)
