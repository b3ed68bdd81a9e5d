"""Keeps a run in one SQLite file: one thread writes, whoever wants reads. `schema` says what the file holds.

A request is answered once it is committed, so what was accepted outlives a kill of this process. While one
transaction is written the next requests gather, and share the one after it; so the busier, the fewer commits.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import threading
import time
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, NamedTuple

from otel_quantmon.desk.ingest import Origins, Outcome, take_logs, take_traces
from otel_quantmon.desk.ingest_metrics import Metrics
from otel_quantmon.desk.messages import MalformedError, Signal, parse
from otel_quantmon.desk.schema import create_database

__all__ = ["BusyError", "FailedError", "Limits", "Store"]

_logger = logging.getLogger("otel_quantmon")


class BusyError(Exception):
    """So much waits to be written that no more is taken now."""


class FailedError(Exception):
    """The file cannot be written any more; the message is SQLite's."""


class Limits(NamedTuple):
    """How much a store keeps: the newest rows of each table, about 400 MB if all are full. Totals stay exact.

    Attributes:
        spans, points, exemplars, events: Rows.
        waiting: Bytes of requests that wait to be written.
    """

    spans: int = 1_000_000
    points: int = 2_000_000
    exemplars: int = 200_000
    events: int = 200_000
    waiting: int = 128 * 2**20


class _Request(NamedTuple):
    signal: Signal
    content_type: str
    body: bytes
    done: Future[Outcome]


def _answer(request: _Request, outcome: Outcome | Exception) -> None:
    # Whoever asks may have gone: a receiver that ends waits for two seconds, and takes back what it asked.
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, Outcome):
            request.done.set_result(outcome)
        else:
            request.done.set_exception(outcome)


# An exporter that got no answer sends the same bytes again, within the minute.
_REMEMBERED = 4096
_KINDS = ("accepted", "other", "rejected")
_ITEMS = {"traces": "spans", "metrics": "points", "logs": "log_records"}


class Store:
    """A new file at ``path``, written from `start` to `close`.

    Args:
        path: Path of the file, which must not exist.
        limits: Limits of what it keeps.
        facts: Facts of the run, for the table ``meta``.

    Raises:
        DeskError: The file exists or cannot be made.
    """

    def __init__(self, path: Path, limits: Limits | None = None, facts: dict[str, Any] | None = None) -> None:
        self.path = path
        self._limits = limits or Limits()
        self._database = create_database(path)
        self._origins = Origins(self._database)
        self._metrics = Metrics(self._database, self._origins)
        self._facts: dict[str, Any] = {"started": time.time_ns(), **(facts or {})}
        kinds = [f"{kind}_{items}" for kind in _KINDS for items in _ITEMS.values()]
        self._counts: Counter[str] = Counter(
            dict.fromkeys([*kinds, "malformed_requests", "duplicate_requests"], 0)
        )
        # Why the first of what was rejected was.
        self._told: dict[str, str] = {}
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._bytes = 0
        self._closed = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="otel-quantmon-store", daemon=True)

    def start(self) -> None:
        """Begin to write. What was submitted before waits."""
        self._thread.start()

    def submit(self, signal: Signal, content_type: str, body: bytes) -> Future[Outcome]:
        """Have the request in ``body`` written.

        Returns:
            What became of it, once it is committed. Its exceptions: `MalformedError`, `FailedError`.

        Raises:
            BusyError: Too many bytes wait to be written; try again in a second.
            FailedError: The file cannot be written any more, or is closed.
        """
        done: Future[Outcome] = Future()
        with self._changed:
            if self._failure is not None or self._closed:
                raise FailedError(self._failure or "the run has ended")
            if self._bytes and self._bytes + len(body) > self._limits.waiting:
                raise BusyError
            self._bytes += len(body)
            self._waiting.append(_Request(signal, content_type, body, done))
            self._changed.notify_all()
        return done

    def note(self, **facts: Any) -> None:
        """Write ``facts`` of the run into the table ``meta``, with the next transaction."""
        with self._changed:
            self._facts.update(facts)
            self._changed.notify_all()

    @property
    def failure(self) -> str | None:
        """Why the file cannot be written any more; None while it can."""
        return self._failure

    def close(self) -> None:
        """Write what waits, and close the file. Nothing is taken any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        # So that it can be read where nothing can be written. Not possible while others read, nor on a full disk.
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("PRAGMA busy_timeout = 0")
            self._database.execute("PRAGMA journal_mode = DELETE")
        self._database.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._facts or self._closed)
                requests, facts = list(self._waiting), self._facts
                self._waiting.clear()
                self._bytes, self._facts = 0, {}
                if not requests and not facts:
                    return
            try:
                self._write(requests, facts)
            except Exception as error:
                if not isinstance(error, sqlite3.Error):
                    _logger.exception("a fault of otel-quantmon ended the recording")
                self._fail(requests, error)
                return

    def _fail(self, requests: list[_Request], error: Exception) -> None:
        """Take nothing any more: a full disk leaves totals here that are not in the file, which ends as it is."""
        with self._changed:
            self._failure = f"{self.path} cannot be written any more: {error}"
            requests += self._waiting
            self._waiting.clear()
        if self._database.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._database.rollback()
        for request in requests:
            _answer(request, FailedError(self._failure))

    def _write(self, requests: list[_Request], facts: dict[str, Any]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        outcomes = [self._take(request) for request in requests]
        self._origins.write_seen()
        self._metrics.write_totals()
        self._prune()
        self._database.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [*facts.items(), *self._counts.items(), *self._told.items()],
        )
        self._database.execute("COMMIT")
        for request, outcome in zip(requests, outcomes, strict=True):
            _answer(request, outcome)

    def _take(self, request: _Request) -> Outcome | Exception:
        digest = hashlib.blake2b(request.body, digest_size=16, person=request.signal.encode()).digest()
        items = _ITEMS[request.signal]
        if request.body and digest in self._remembered:
            self._counts["duplicate_requests"] += 1
            return Outcome(duplicate=True)
        try:
            message: Any = parse(request.signal, request.content_type, request.body)
            now = time.time_ns()
            if request.signal == "metrics":
                found = self._metrics.take(message, now)
            else:
                take = take_traces if request.signal == "traces" else take_logs
                found = take(self._database, self._origins, message, now)
        except sqlite3.Error:
            raise
        except MalformedError as error:
            self._counts["malformed_requests"] += 1
            return error
        except Exception as error:
            # A fault of ours. What was written of the request stays, and the requests beside it are not harmed.
            _logger.exception("a request could not be taken")
            return error
        self._remembered[digest] = None
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        self._counts[f"accepted_{items}"] += found.kept + found.other
        self._counts[f"other_{items}"] += found.other
        self._counts[f"rejected_{items}"] += found.rejected
        if found.message:
            self._told.setdefault("rejected_because", found.message)
        return found

    def _prune(self) -> None:
        """Delete the oldest rows beyond the limits, a good many at once."""
        for table in ("span", "point", "exemplar", "event"):
            most: int = getattr(self._limits, f"{table}s")
            first, last = self._database.execute(
                f"SELECT (SELECT min(id) FROM {table}), (SELECT max(id) FROM {table})"  # noqa: S608  names of our own
            ).fetchone()
            if last is not None and last - first + 1 > most + most // 16:
                done = self._database.execute(f"DELETE FROM {table} WHERE id <= ?", (last - most,))  # noqa: S608
                self._counts[f"pruned_{table}s"] += done.rowcount
