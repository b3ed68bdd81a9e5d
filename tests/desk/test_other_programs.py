"""Other programs read the file of a run while it grows, as docs/run.md says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from desk.otlp import traces
from otel_quantmon.desk.store import Store

pytest.importorskip("duckdb", reason="nox -s page installs it")

# DuckDB would fetch its reader of SQLite from its own server; the package has the same file. It is a process of its own
# since a file that two copies of SQLite have open in one process is not safe.
_DUCKDB = """
import json, sys
from pathlib import Path
import duckdb, duckdb_extension_sqlite_scanner
(reader,) = Path(*duckdb_extension_sqlite_scanner.__path__).glob("extensions/*/sqlite_scanner.duckdb_extension")
database = duckdb.connect()
database.load_extension(str(reader))
database.execute(f"ATTACH '{sys.argv[1]}' AS run (TYPE sqlite)")
for question in sys.stdin:
    print(json.dumps(database.execute(question).fetchall()), flush=True)
"""


def test_duckdb_attaches_the_file_while_it_is_written(store: Store, send: Callable[..., Any]) -> None:
    """Spans that were committed before it was attached are there, and those that come after it too."""
    question = "SELECT model, count(*), quantile_cont(milliseconds, 0.9) FROM run.inference GROUP BY 1\n"
    send(traces(3))
    command = [sys.executable, "-c", _DUCKDB, str(store.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for calls in (3, 5):
            other.stdin.write(question)
            other.stdin.flush()
            assert json.loads(other.stdout.readline()) == [["net", calls, 1.0]]
            send(traces(2, first=4))
        other.stdin.close()
    assert other.returncode == 0
