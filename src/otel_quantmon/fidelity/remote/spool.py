"""A directory of samples: whole files under the names of their identities, moved from folder to folder."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

__all__ = ["CLAIMED", "NEW", "REJECTED", "SUFFIX", "Spool"]

NEW, CLAIMED, REJECTED = "new", "claimed", "rejected"
"""Folders: what waits, what is being evaluated, and the dead letters."""

SUFFIX = ".sample"

_UNFINISHED = "tmp"

# What may wait when nobody evaluates: after that samples are dropped and counted, and the disk is not filled.
_MOST_BYTES = 1024**3
_MOST_FILES = 50_000

# Seconds between two looks at what waits, and of one look, how many times as long until the next.
_LOOK_AFTER = 5.0
_SHARE = 50.0


class Spool:
    """Puts samples into a directory, which is made with its folders, for its owner alone.

    Args:
        directory: Directory, also of other processes, and of those who evaluate.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        for folder in (NEW, CLAIMED, REJECTED, _UNFINISHED):
            (self.directory / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bytes = 0
        self._files = 0
        self._look_at = 0.0

    def put(self, identity: str, data: bytes) -> bool:
        """Add a sample; False if too many wait.

        Args:
            identity: Identity of the sample, see `is_sample_id`. A sample that waits under it is replaced.
            data: Bytes of the sample, see `encode`.

        Raises:
            OSError: It cannot be written.
        """
        if self._is_full():
            return False
        unfinished = self.directory / _UNFINISHED / f"{identity}.{os.getpid()}"
        try:
            # Tensors are private: nobody but the owner may read them.
            with open(os.open(unfinished, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            # In one step: whoever looks meanwhile finds all of it or nothing.
            unfinished.replace(self.directory / NEW / (identity + SUFFIX))
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        self._bytes += len(data)
        self._files += 1
        return True

    def _is_full(self) -> bool:
        began = monotonic()
        if began >= self._look_at:
            self._bytes = self._files = 0
            with os.scandir(self.directory / NEW) as entries:
                for entry in entries:
                    self._files += 1
                    try:
                        self._bytes += entry.stat().st_size
                    except FileNotFoundError:
                        continue
            self._look_at = began + max(_LOOK_AFTER, _SHARE * (monotonic() - began))
        return self._bytes >= _MOST_BYTES or self._files >= _MOST_FILES
