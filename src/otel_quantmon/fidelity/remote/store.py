"""Where samples are that are too large for an event, which then only says where: a claim check."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__all__ = ["Store"]

_SUFFIX = ".sample"


class Store:
    """A folder, or any file system of ``fsspec``.

    Args:
        url: Address of a folder, such as ``s3://bucket/folder``, or a path.
        most: Bytes that are read of a sample at most.

    Raises:
        ImportError: ``fsspec``, or the package that it needs for this kind of address, is not installed.
        ValueError: It is not an address that ``fsspec`` knows.
    """

    def __init__(self, url: str, most: int) -> None:
        files: Any = import_module("fsspec")  # of the extra `remote`
        self._url = (url if "://" in url else os.path.abspath(url)).rstrip("/")
        self._most = most
        # Listings that are kept would show what is no longer there.
        self._files: Any = files.core.url_to_fs(self._url, use_listings_cache=False)[0]

    def put(self, identity: str, data: bytes) -> str:
        """Keep a sample, and return where.

        Raises:
            OSError: It cannot be written. Other file systems raise errors of their own.
        """
        location = f"{self._url}/{identity}{_SUFFIX}"
        self._files.makedirs(self._url, exist_ok=True)
        self._files.pipe_file(location, data)
        return location

    def get(self, location: str) -> bytes:
        """Return a sample.

        Raises:
            ValueError: It is not in this store, or too large: a record from outside is not to have other files read.
            OSError: It cannot be read. Other file systems raise errors of their own.
        """
        self._check(location)
        size = self._files.size(location)
        if size is None or size > self._most:
            raise ValueError(f"{location!r} has {size} bytes, and {self._most} are read at most")
        return bytes(self._files.cat_file(location))

    def remove(self, location: str) -> None:
        """Remove a sample, if it is there. Raises as `get` does."""
        self._check(location)
        if self._files.exists(location):
            self._files.rm_file(location)

    def _check(self, location: str) -> None:
        folder, _, name = location.rpartition("/")
        if folder != self._url or not name.removesuffix(_SUFFIX).isalnum():
            raise ValueError(f"{location!r} is no sample in {self._url!r}, the store that was given")
