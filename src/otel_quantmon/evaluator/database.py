"""SQLite files that the workers of a machine share."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from time import monotonic, sleep

__all__ = ["connected"]

# Seconds to wait for another worker's transaction, which takes milliseconds.
_PATIENCE = 60.0

# Between two looks whether a new file is free.
_LOOK_EVERY = 0.05


def connected(path: Path) -> sqlite3.Connection:
    """Return a connection to a file, which is made if need be, with its folder; it begins no transaction by itself.

    What is written survives the end of the process at any moment; of a power cut, the last transactions may be lost.

    Raises:
        sqlite3.Error: It is no database, or cannot be used.
        OSError: Its folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    try:
        until = monotonic() + _PATIENCE
        while not _logs_ahead(database, until):
            sleep(_LOOK_EVERY)
        database.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        database.close()
        raise
    return database


def _logs_ahead(database: sqlite3.Connection, until: float) -> bool:
    try:
        database.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        # The change of a new file's mode does not wait for who is about to write, as everything else does. Python 3.10
        # has no code of the error.
        if "locked" not in str(error) or monotonic() >= until:
            raise
        return False
    return True
