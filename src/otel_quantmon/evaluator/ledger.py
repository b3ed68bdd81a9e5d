"""Which samples have been counted, in one SQLite file: written before a sample is settled, so that each counts once.

A worker that is killed has either written here what it evaluated, and then whoever gets the sample again passes it
over, or it has not, and then the sample is evaluated again. Workers of one source share one file.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import NamedTuple

from otel_quantmon.evaluator.database import connected
from otel_quantmon.evaluator.source import EvaluatorError

__all__ = ["Entry", "Ledger"]

_VERSION = 1

# Seconds that identities are kept for: no source delivers a sample again later.
_KEPT = 14 * 24 * 3600

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sample (id TEXT PRIMARY KEY, time INTEGER NOT NULL, reason TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sample_time ON sample (time);
CREATE TABLE IF NOT EXISTS at_hand (life TEXT PRIMARY KEY, ids TEXT NOT NULL, time INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS total (
    worker TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (worker, model, outcome)
) WITHOUT ROWID;
"""


class Entry(NamedTuple):
    """One sample, and what became of it.

    Attributes:
        id: Its identity.
        model: Values of `semconv.MODEL_ATTRIBUTES`; empty where the sample could not be read.
        outcome: Value of ``quantmon.reference.outcome``.
        reason: Why it is rejected; None where it is not.
    """

    id: str
    model: tuple[str, ...]
    outcome: str
    reason: str | None = None


class Ledger:
    """What has been counted.

    Args:
        path: Path of the file, which is made if need be.
        worker: Name of who counts here. One that is started again under its name goes on with its own totals.

    Raises:
        EvaluatorError: The file cannot be used.
    """

    def __init__(self, path: Path, worker: str) -> None:
        self._worker = worker
        self._life = uuid.uuid4().hex
        try:
            self._database = connected(path)
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise EvaluatorError(
                    f"{path} is of version {version}, this release writes {_VERSION}: name another file in --state"
                )
            self._database.executescript(_SCHEMA)
            self._database.execute(f"PRAGMA user_version={_VERSION}")
            for table in ("sample", "at_hand"):
                self._database.execute(f"DELETE FROM {table} WHERE time < ?", (int(time()) - _KEPT,))  # noqa: S608  names alone
        except (sqlite3.Error, OSError) as error:
            raise EvaluatorError(f"{path} cannot be used as the state: {error}") from error

    def counted(self, ids: Collection[str]) -> dict[str, str | None]:
        """Return those of ``ids`` that have been counted, with the reason of each that was rejected."""
        marks = ", ".join("?" * len(ids))
        return dict(
            self._database.execute(f"SELECT id, reason FROM sample WHERE id IN ({marks})", tuple(ids))  # noqa: S608  marks alone
        )

    def attempts(self) -> Counter[str]:
        """Return how many workers have ended over samples, by identity; those that live have their own at hand too."""
        rows = self._database.execute("SELECT ids FROM at_hand WHERE life != ?", (self._life,))
        return Counter(one for (ids,) in rows for one in ids.split())

    def begin(self, ids: Iterable[str]) -> None:
        """Take note that these alone are at hand now: a worker that ends from here on has ended over them.

        Args:
            ids: Identities of samples, none for nothing.
        """
        # One statement, which is a transaction of its own: it comes before each run of a float model.
        self._database.execute(
            "INSERT INTO at_hand VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET ids = excluded.ids, time = excluded.time",
            (self._life, " ".join(ids), int(time())),
        )

    def add(self, entries: Iterable[Entry]) -> set[str]:
        """Count samples, all of them or none, after which nothing is at hand.

        Returns:
            Identities of those that were not counted before.
        """
        now = int(time())
        fresh: set[str] = set()
        with self._transaction() as database:
            database.execute("DELETE FROM at_hand WHERE life = ?", (self._life,))
            for entry in entries:
                added = database.execute(
                    "INSERT OR IGNORE INTO sample VALUES (?, ?, ?)", (entry.id, now, entry.reason)
                ).rowcount
                if added:
                    fresh.add(entry.id)
                    database.execute(
                        "INSERT INTO total VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                        (self._worker, json.dumps(entry.model), entry.outcome),
                    )
        return fresh

    def totals(self) -> list[tuple[tuple[str, ...], str, int]]:
        """Model, outcome and count of all that this worker has counted, in earlier lives too."""
        rows = self._database.execute(
            "SELECT model, outcome, count FROM total WHERE worker = ? ORDER BY model, outcome",
            (self._worker,),
        )
        return [(tuple(json.loads(model)), outcome, count) for model, outcome, count in rows]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            # A full disk has ended it already.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
