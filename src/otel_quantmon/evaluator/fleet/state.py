"""The file that all workers of a fleet share: what they have found, and what the judge makes of it.

Whoever evaluates adds rows, each sample once. The judge takes rows, and writes in one transaction what it made of them:
so one that is killed at any moment has either taken a row or has not, and whoever judges next goes on from there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any, NamedTuple

from otel_quantmon.detection.placement import Subject
from otel_quantmon.evaluator.database import connected
from otel_quantmon.evaluator.fleet.findings import Finding, StreamName
from otel_quantmon.evaluator.fleet.pool import Pool
from otel_quantmon.evaluator.source import EvaluatorError
from otel_quantmon.fidelity.remote.record import encodable

__all__ = ["Batch", "FleetState", "GoldenCase", "Sighting"]

_VERSION = "1"

# Seconds that identities of samples are kept for, and streams of hosts that are not heard any more.
_KEPT = 14 * 24 * 3600

_SCHEMA = """
CREATE TABLE IF NOT EXISTS fleet (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY, time INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_time ON seen (time);
CREATE TABLE IF NOT EXISTS batch (number INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS grp (name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (
    grp TEXT NOT NULL, subject TEXT NOT NULL, last REAL NOT NULL, state TEXT NOT NULL, PRIMARY KEY (grp, subject)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS stream_last ON stream (grp, last);
CREATE TABLE IF NOT EXISTS golden (
    model TEXT NOT NULL, version TEXT NOT NULL, input TEXT NOT NULL, host TEXT NOT NULL, instructions TEXT NOT NULL,
    output TEXT NOT NULL, error REAL NOT NULL, time REAL NOT NULL, PRIMARY KEY (model, version, host, input)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS news (number INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
"""


class Sighting(NamedTuple):
    """One evaluated sample.

    Attributes:
        id: Its identity, by which it is taken once.
        model: Values of `semconv.MODEL_ATTRIBUTES`.
        subject: Who has sent it.
        findings: What it says, of traffic.
        golden: What it says, of a golden baseline; see `findings.golden_of`.
    """

    id: str
    model: tuple[str, ...]
    subject: Subject
    findings: Sequence[Finding] = ()
    golden: tuple[str, str, float] | None = None


class Batch(NamedTuple):
    """What one worker has found at a time of one model of one subject.

    Attributes:
        number: Its place in the order in which batches are judged.
        time: Seconds since the epoch.
        model, subject: See `Sighting`.
        pools: Sketches by stream.
    """

    number: int
    time: float
    model: tuple[str, ...]
    subject: Subject
    pools: Mapping[StreamName, Pool]


class GoldenCase(NamedTuple):
    """What one host makes of one case of a golden baseline; see `findings.golden_of`."""

    version: str
    input: str
    host: str
    instructions: str
    output: str
    error: float


class FleetState:
    """One file.

    Args:
        path: Path of the file, which is made if need be.

    Raises:
        EvaluatorError: The file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._database = connected(path)
            self._database.executescript(_SCHEMA)
            self._database.execute("INSERT OR IGNORE INTO fleet VALUES ('version', ?)", (_VERSION,))
            version = self.value("version")
        except (sqlite3.Error, OSError) as error:
            raise EvaluatorError(f"{path} cannot be used as the state of a fleet: {error}") from error
        if version != _VERSION:
            raise EvaluatorError(
                f"{path} is of version {version}, this release writes {_VERSION}: name another file in --fleet"
            )

    def add(self, sightings: Iterable[Sighting]) -> None:
        """Add what was evaluated; a sample that was added before is passed over."""
        now = time()
        pools: dict[tuple[tuple[str, ...], Subject], dict[StreamName, list[float]]] = {}
        with self.transaction():
            for one in sightings:
                if not self._database.execute(
                    "INSERT OR IGNORE INTO seen VALUES (?, ?)", (one.id, int(now))
                ).rowcount:
                    continue
                who = _subject(
                    one.subject.host, one.subject.service, one.subject.version, one.subject.instructions
                )
                if one.golden is not None:
                    self.set_value("golden", one.id)
                    row = (json.dumps(one.model), who.version, one.golden[0], who.host, who.instructions)
                    self._leave_versions(*row[:4])
                    self._database.execute(
                        "INSERT OR REPLACE INTO golden VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (*row, *one.golden[1:], now),
                    )
                streams = pools.setdefault((one.model, who), {}) if one.findings else {}
                for finding in one.findings:
                    streams.setdefault(finding.stream, []).append(finding.value)
            for (model, subject), streams in pools.items():
                body = {
                    "time": now,
                    "model": model,
                    "subject": [subject.host, subject.service, subject.version, subject.instructions],
                    "pools": [[*name, Pool(values).to_wire()] for name, values in streams.items()],
                }
                self._database.execute("INSERT INTO batch (body) VALUES (?)", (json.dumps(body),))

    def _leave_versions(self, model: str, version: str, given: str, host: str) -> None:
        """Drop what a host has made of golden cases with versions that it does not run any more.

        These are those that it was not heard of with since it made the same case with this one before: it has replayed
        all of them once meanwhile, and another service of its own, which runs another version, has too.
        """
        self._database.execute(
            "DELETE FROM golden WHERE model = ? AND host = ? AND version != ? AND time < "
            "(SELECT time FROM golden WHERE model = ? AND version = ? AND host = ? AND input = ?)",
            (model, host, version, model, version, host, given),
        )

    @contextmanager
    def transaction(self) -> Generator[None, None, None]:
        """All that is done in it, or nothing."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            # A full disk has ended it already.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def value(self, name: str) -> str | None:
        """Return a value of the whole file."""
        row = self._database.execute("SELECT value FROM fleet WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_value(self, name: str, value: str) -> None:
        """Set one."""
        self._database.execute("INSERT OR REPLACE INTO fleet VALUES (?, ?)", (name, value))

    def batches(self, most: int) -> list[Batch]:
        """Return the next batches to judge."""
        found: list[Batch] = []
        for number, body in self._database.execute(
            "SELECT number, body FROM batch ORDER BY number LIMIT ?", (most,)
        ):
            read = json.loads(body)
            pools = {StreamName(*one[:3]): Pool.from_wire(one[3]) for one in read["pools"]}
            found.append(Batch(number, read["time"], tuple(read["model"]), _subject(*read["subject"]), pools))
        return found

    def judged(self, upto: int) -> None:
        """Drop the batches up to a number."""
        self._database.execute("DELETE FROM batch WHERE number <= ?", (upto,))

    def group(self, name: str) -> dict[str, Any] | None:
        """Return the state of a group."""
        row = self._database.execute("SELECT state FROM grp WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def groups(self) -> dict[str, dict[str, Any]]:
        """Return the states of all groups by name."""
        rows = self._database.execute("SELECT name, state FROM grp ORDER BY name")
        return {name: json.loads(state) for name, state in rows}

    def set_group(self, name: str, state: Mapping[str, Any]) -> None:
        """Set the state of a group."""
        self._database.execute("INSERT OR REPLACE INTO grp VALUES (?, ?)", (name, json.dumps(state)))

    def stream(self, group: str, subject: str) -> dict[str, Any] | None:
        """Return the state of a stream."""
        row = self._database.execute(
            "SELECT state FROM stream WHERE grp = ? AND subject = ?", (group, subject)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def set_stream(self, group: str, subject: str, last: float, state: Mapping[str, Any]) -> None:
        """Set the state of a stream, which was heard last at ``last``."""
        self._database.execute(
            "INSERT OR REPLACE INTO stream VALUES (?, ?, ?, ?)", (group, subject, last, json.dumps(state))
        )

    def heard(self, group: str, since: float) -> set[str]:
        """Return the names of the streams of a group that were heard since a time."""
        rows = self._database.execute(
            "SELECT subject FROM stream WHERE grp = ? AND last >= ?", (group, since)
        )
        return {name for (name,) in rows}

    def golden(self, model: tuple[str, ...]) -> list[GoldenCase]:
        """Return what hosts make of the golden cases of a model."""
        rows = self._database.execute(
            "SELECT version, input, host, instructions, output, error FROM golden WHERE model = ?",
            (json.dumps(model),),
        )
        return [GoldenCase(*row) for row in rows]

    def golden_models(self) -> list[tuple[str, ...]]:
        """Return the models with golden cases."""
        rows = self._database.execute("SELECT DISTINCT model FROM golden ORDER BY model")
        return [tuple(json.loads(model)) for (model,) in rows]

    def add_news(self, body: Mapping[str, Any]) -> None:
        """Keep what is to be reported, until it has been."""
        self._database.execute("INSERT INTO news (body) VALUES (?)", (json.dumps(body),))

    def news(self) -> list[tuple[int, dict[str, Any]]]:
        """Return what is to be reported, with numbers."""
        rows = self._database.execute("SELECT number, body FROM news ORDER BY number")
        return [(number, json.loads(body)) for number, body in rows]

    def reported(self, number: int) -> None:
        """Drop what has been reported."""
        self._database.execute("DELETE FROM news WHERE number = ?", (number,))

    def forget(self) -> None:
        """Drop identities, streams and golden cases of long ago."""
        before = time() - _KEPT
        for table, column in (("seen", "time"), ("stream", "last"), ("golden", "time")):
            self._database.execute(f"DELETE FROM {table} WHERE {column} < ?", (before,))  # noqa: S608  names of ours

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _subject(*texts: str) -> Subject:
    """A subject whose names SQLite takes: one that it refuses would be the first of the queue for ever."""
    return Subject(*map(encodable, texts))
