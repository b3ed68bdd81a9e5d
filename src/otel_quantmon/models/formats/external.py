"""The files beside an ONNX model in which weights of it are kept."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from otel_quantmon.guard import pass_on

__all__ = ["ExternalData"]

_FILES_LIMIT = 10_000
"""Files that are looked for; each costs a system call."""


class ExternalData:
    """The external data of one model.

    Args:
        folder: Folder of the model; None for a model in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._locations: dict[str, None] = {}

    def add(self, location: str) -> None:
        """Take note of a file that the model refers to."""
        if len(self._locations) <= _FILES_LIMIT:
            self._locations[location] = None

    def beside(self) -> tuple[str, ...]:
        """Return the files within the model's folder, none where they are too many to be looked for."""
        return tuple(filter(_is_beside, self._locations)) if len(self._locations) <= _FILES_LIMIT else ()

    def size(self) -> tuple[int, str | None]:
        """Bytes of the files, and why these are not all of them, if so."""
        if len(self._locations) > _FILES_LIMIT:
            return 0, f"its external data is in more than {_FILES_LIMIT} files"
        total = 0
        missing: list[str] = []
        for location in self._locations:
            if self._folder is None or not _is_beside(location):
                missing.append(location)
                continue
            try:
                total += os.stat(self._folder / location).st_size
            except OSError as error:
                pass_on(error)
                missing.append(location)
        if not missing:
            return total, None
        shown = ", ".join(repr(location[:100]) for location in missing[:3])
        return total, f"{len(missing)} files of external data not found: {shown}"


def _is_beside(location: str) -> bool:
    """Return False for external data outside the model's folder.

    ONNX Runtime refuses it, and looking there would show strangers what exists.
    """
    path = PurePosixPath(location)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in location
