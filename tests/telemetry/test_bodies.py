"""Bodies of requests that are compressed: what was put in comes out, within bounds, or is refused."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.telemetry import bodies
from otel_quantmon.telemetry.bodies import BodyError, BodyTooLargeError, expanded


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 64))
def test_members_come_out_whole(members: list[bytes], piece: int) -> None:
    """However many there are, and wherever a piece of what is read ends; one byte less than they are is too few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "_PIECE", piece)
        body, whole = b"".join(map(gzip.compress, members)), b"".join(members)
        assert expanded(body, "gzip", len(whole)) == whole
        if whole:
            with pytest.raises(BodyTooLargeError):
                expanded(body, "gzip", len(whole) - 1)
        with pytest.raises(BodyError, match=r"cut off|not compressed"):
            expanded(body[:-1], "gzip", len(whole))


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_read_or_refused(body: bytes, encoding: str) -> None:
    """The only errors are those that a receiver knows."""
    try:
        expanded(body, encoding, 100)
    except (BodyError, BodyTooLargeError):
        return


def test_what_is_not_compressed_passes() -> None:
    """And ``deflate`` is what HTTP calls zlib's own format."""
    assert expanded(b"x", "identity", 0) == b"x"
    assert expanded(zlib.compress(b"xyz"), "deflate", 3) == b"xyz"


def test_many_members_cost_what_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that follows a member is not copied with each: of twenty thousand empty ones that were four gigabytes."""
    copied = 0
    original = zlib.decompressobj

    class Watched:
        def __init__(self, window: int) -> None:
            self._stream = original(window)

        def __getattr__(self, name: str) -> Any:
            nonlocal copied
            found = getattr(self._stream, name)
            copied += len(found) if name == "unused_data" else 0
            return found

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    assert expanded(gzip.compress(b"") * 20_000, "gzip", 0) == b""
    assert copied < 100 * 2**20
