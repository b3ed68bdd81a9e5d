"""The file that a run is kept in: one SQLite database, with one writer and any number of readers.

It is in WAL mode while it is written, and in the ordinary one when it was closed, unless somebody read it then.

Times are integers, in nanoseconds since the epoch; durations are integers, in nanoseconds. ``trace_id`` and ``span_id``
are BLOBs of 16 and 8 bytes (``hex(trace_id)`` shows one). JSON is text. Ids are those of this file alone.

========== ===========================================================================================================
table      a row
========== ===========================================================================================================
`meta`     a fact of the run, by name: ``schema``, ``command`` (JSON), ``started``, ``ended``, ``exit_status``, and how
           many spans, points and log records were ``accepted``, ``rejected``, ``other`` (accepted, but nothing that is
           kept here) and ``pruned``, such as ``accepted_spans``; requests that were ``malformed``, or ``duplicate``;
           ``rejected_because`` is the reason of the first that was rejected
`process`  a process that has sent something: ``instance`` is its ``service.instance.id``, with its pid where another
           process has the same, ``resource`` its attributes
`model`    a model: name, runtime and scheme, which are unique together, the ``provider`` last heard of, and ``info``,
           the attributes of ``quantmon.model.info``
`series`   one metric of one process with one set of attributes, and the total of the run: it stays when points go.
           ``attributes`` leaves out the model's own. ``kind`` is ``sum``, ``gauge`` (also what goes up and down),
           ``histogram`` or ``exponential``. ``value`` is a sum's total or a gauge's last value; ``count``, ``sum``,
           ``min``, ``max`` and ``buckets`` are those of a histogram over the whole run
`point`    what one collection added to a series between ``start`` and ``time``: sums and histograms are differences,
           whichever temporality they were sent in; a gauge's ``value`` is as it was
`exemplar` a value of a histogram and the span that it belongs to
`content`  what many spans have in common: name, kind, scope, status, error type, attributes
`span`     a span, of an inference if it has a ``model``, and else of the trace that one is part of; ``events`` is NULL
           if it has none. The rest of it is its ``content``
`event`    a log record that is an event of otel-quantmon, such as ``quantmon.anomaly.entered``
`inference` a view: one line for each span of an inference, in words and milliseconds
========== ===========================================================================================================

``buckets`` of a histogram is a list of counts, one more than ``bounds`` of its series (upper bounds, inclusive). Of an
exponential one it is ``{"scale": s, "zero": n, "positive": [[i, n], ...], "negative": [...]}``: bucket i holds what is
above base**i and not above base**(i+1), base = 2**(2**-s).

Ids of traces are random, so an index of them alone would change a page for nearly each span: with a million spans that
took three times as long as all the rest. Therefore `span_by_trace` begins with the span's ``id >> 14``: each part of
16,384 spans has an index that fits into the cache, and a search for a trace asks one part after another.

Other tools can read the file while it grows. DuckDB attaches it: ``ATTACH 'run.db' (TYPE sqlite)``.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from otel_quantmon.errors import DeskError

__all__ = ["VERSION", "create_database", "open_reader"]

VERSION: Final = 1
"""Of the schema; a file of another version is refused."""

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;
CREATE TABLE process (
    id INTEGER PRIMARY KEY, instance TEXT UNIQUE NOT NULL, service TEXT, pid INTEGER,
    first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, resource TEXT NOT NULL
);
CREATE TABLE model (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, runtime TEXT NOT NULL, scheme TEXT NOT NULL,
    provider TEXT, info TEXT, UNIQUE (name, runtime, scheme)
);
CREATE TABLE series (
    id INTEGER PRIMARY KEY, process INTEGER NOT NULL REFERENCES process, model INTEGER REFERENCES model,
    metric TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL, attributes TEXT NOT NULL, bounds TEXT,
    first_time INTEGER, last_time INTEGER, points INTEGER NOT NULL DEFAULT 0,
    value REAL, count INTEGER, sum REAL, min REAL, max REAL, buckets TEXT
);
CREATE INDEX series_by_metric ON series (metric, model);
CREATE TABLE point (
    id INTEGER PRIMARY KEY, series INTEGER NOT NULL REFERENCES series, time INTEGER NOT NULL, start INTEGER NOT NULL,
    value REAL, count INTEGER, sum REAL, min REAL, max REAL, buckets TEXT
);
CREATE INDEX point_by_series ON point (series, time);
CREATE TABLE exemplar (
    id INTEGER PRIMARY KEY, series INTEGER NOT NULL REFERENCES series, time INTEGER NOT NULL, value REAL NOT NULL,
    trace_id BLOB NOT NULL, span_id BLOB NOT NULL
);
CREATE INDEX exemplar_by_series ON exemplar (series, time);
CREATE TABLE content (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind INTEGER NOT NULL, scope TEXT NOT NULL, operation TEXT,
    status INTEGER NOT NULL, error_type TEXT, message TEXT, attributes TEXT NOT NULL
);
CREATE TABLE span (
    id INTEGER PRIMARY KEY, trace_id BLOB NOT NULL, span_id BLOB NOT NULL, parent_id BLOB,
    process INTEGER NOT NULL REFERENCES process, model INTEGER REFERENCES model,
    content INTEGER NOT NULL REFERENCES content, start INTEGER NOT NULL, duration INTEGER NOT NULL, events TEXT
);
CREATE INDEX span_by_trace ON span (id >> 14, trace_id);
CREATE TABLE event (
    id INTEGER PRIMARY KEY, process INTEGER NOT NULL REFERENCES process, model INTEGER REFERENCES model,
    time INTEGER NOT NULL, name TEXT NOT NULL, severity INTEGER NOT NULL, body TEXT, attributes TEXT NOT NULL,
    trace_id BLOB, span_id BLOB
);
CREATE VIEW inference AS
SELECT span.id, model.name AS model, model.runtime, model.scheme, content.operation, process.instance AS process,
       span.start, span.duration / 1e6 AS milliseconds, content.error_type, content.attributes,
       lower(hex(span.trace_id)) AS trace_id, lower(hex(span.span_id)) AS span_id
FROM span JOIN model ON model.id = span.model JOIN content ON content.id = span.content
JOIN process ON process.id = span.process;
"""


def create_database(path: Path) -> sqlite3.Connection:
    """Return a new file with the schema, opened by its only writer, for use by any one thread at a time.

    Raises:
        DeskError: The file exists, or cannot be made.
    """
    made = False
    try:
        # Whoever runs the command may read what its application does; others may not.
        with path.open("xb"):
            made = True
            path.chmod(0o600)
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        # A commit outlives the process without a sync, which only the machine's own end asks for.
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(_SCHEMA)
        database.execute("INSERT INTO meta VALUES ('schema', ?)", (VERSION,))
    except FileExistsError:
        raise DeskError(f"{path} is there already: choose another file, or delete it") from None
    except (OSError, sqlite3.Error) as error:
        if made:
            # It would be in the way of the next run.
            for name in ("", "-wal", "-shm"):
                path.with_name(path.name + name).unlink(missing_ok=True)
        raise DeskError(f"{path} cannot be written: {error}") from error
    return database


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads; rows are `sqlite3.Row`. The writer may be at work, or have been killed.

    Raises:
        DeskError: There is no such file, or it cannot be opened, is not one of a run, or of another version.
    """
    if not path.is_file():
        raise DeskError(f"{path}: {'it is a folder' if path.is_dir() else 'no such file'}")
    try:
        database, found = _opened(path)
    except sqlite3.Error as error:
        # Only a file that was opened can lack a table.
        unopened = isinstance(error, sqlite3.OperationalError) and not str(error).startswith("no such")
        wrong = "cannot be opened" if unopened else "is no file of `quantmon run --db`"
        raise DeskError(f"{path} {wrong}: {error}") from error
    if found != VERSION:
        database.close()
        newer = isinstance(found, int) and found > VERSION
        who, remedy = ("a newer", ": pip install --upgrade otel-quantmon") if newer else ("another", "")
        raise DeskError(
            f"{path} was written by {who} otel-quantmon, with version {found} of its tables; "
            f"this one reads version {VERSION}{remedy}"
        )
    return database


def _opened(path: Path) -> tuple[sqlite3.Connection, Any]:
    """A connection, and the version that the file says."""
    try:
        return _connected(str(path))
    except sqlite3.OperationalError as error:
        # A file that somebody still read when it was closed stays in WAL mode, for which SQLite makes files beside it.
        # In a folder that is read-only it cannot, and need not where nothing is in the log.
        log = path.with_name(f"{path.name}-wal")
        if str(error) not in _CANNOT or (log.exists() and log.stat().st_size):
            raise
    return _connected(f"{path.absolute().as_uri()}?immutable=1", uri=True)


# By its message: Python 3.10 has no code of the error.
_CANNOT = {"unable to open database file", "attempt to write a readonly database"}


def _connected(name: str, *, uri: bool = False) -> tuple[sqlite3.Connection, Any]:
    # Read-only by pragma: a file that was not closed has to be recovered from its log first.
    database = sqlite3.connect(name, check_same_thread=False, isolation_level=None, timeout=10.0, uri=uri)
    try:
        database.execute("PRAGMA query_only = ON")
        database.row_factory = sqlite3.Row
        (found,) = database.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() or (None,)
    except sqlite3.Error:
        database.close()
        raise
    return database, found
