"""The folder of a directory of samples that those go to which nobody can evaluate, each with its reason."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

from otel_quantmon.fidelity.remote.spool import SUFFIX

__all__ = ["DeadLetters"]

_logger = logging.getLogger("otel_quantmon")

# The newest are kept. A person looks at a few of them, and what a service sends for days in a form that is not read is
# not to fill the disk: it is a quarter of what may wait.
_MOST = 1_000
_MOST_BYTES = 256 * 1024**2

# What is left when there are too many, so that it is not looked for the oldest at each.
_LEFT = 0.9


class _Letter(NamedTuple):
    """Attributes: ``at``: time of its newest file, ``size``: bytes of its files, ``paths``: these."""

    at: int
    size: int
    paths: tuple[Path, ...]


class DeadLetters:
    """One folder, which other workers may put into as well. For one thread.

    Args:
        folder: Folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # As far as this worker knows; looked at when the first one comes.
        self._count = _MOST
        self._bytes = 0
        self._told = False

    def put(self, path: Path, identity: str, reason: str) -> None:
        """Move a sample here.

        Args:
            path: Its file.
            identity: Its name here.
            reason: Why nobody can evaluate it.

        Raises:
            FileNotFoundError: The file is gone.
            OSError: The folder cannot be written.
        """
        # The reason first: a file of a sample without one would be a riddle.
        (self._folder / f"{identity}.txt").write_text(reason + "\n", encoding="utf-8")
        path.rename(self._folder / (identity + SUFFIX))
        self._count += 1
        self._bytes += (self._folder / (identity + SUFFIX)).stat().st_size
        if self._count > _MOST or self._bytes > _MOST_BYTES:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        letters = sorted(self._letters())
        self._count, self._bytes = len(letters), sum(one.size for one in letters)
        if self._count <= _MOST and self._bytes <= _MOST_BYTES:
            return
        if not self._told:
            self._told = True
            _logger.warning(
                "more than %d samples or %d MiB are in %s: the oldest of them are dropped from now on",
                _MOST,
                _MOST_BYTES // 1024**2,
                self._folder,
            )
        # The last one stays, however large it is.
        for one in letters[:-1]:
            if self._count <= _LEFT * _MOST and self._bytes <= _LEFT * _MOST_BYTES:
                break
            for path in one.paths:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
            self._count -= 1
            self._bytes -= one.size

    def _letters(self) -> list[_Letter]:
        found: dict[str, _Letter] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    seen, stem = entry.stat(), entry.name.rpartition(".")[0]
                    other = found.get(stem, _Letter(0, 0, ()))
                    found[stem] = _Letter(
                        max(other.at, seen.st_mtime_ns),
                        other.size + seen.st_size,
                        (*other.paths, Path(entry.path)),
                    )
        return list(found.values())
