"""The file of a run: it is its owner's, it says when it is full, and it stays readable whoever is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_quantmon.desk import queries
from otel_quantmon.desk.schema import open_reader
from otel_quantmon.desk.store import BusyError, FailedError, Limits, Store
from otel_quantmon.errors import DeskError

from .otlp import PROTOBUF, durations, traces
from .stored import total

Send = Callable[..., list[Any]]


def test_the_file_is_its_owners_alone(store: Store) -> None:
    """Attributes may tell what an application does: nobody else on the machine reads them."""
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_not_overwritten(store: Store) -> None:
    """Nor is one that is something else opened."""
    with pytest.raises(DeskError, match="is there already"):
        Store(store.path)
    other = store.path.with_name("other.db")
    other.write_text("no database, but long enough to be taken for one" * 10)
    with pytest.raises(DeskError, match="no file of"):
        open_reader(other)


def test_it_says_when_it_is_full(tmp_path: Path) -> None:
    """More than may wait is not taken, and nothing is lost of what was; a closed one takes nothing."""
    store = Store(tmp_path / "full.db", Limits(waiting=10))
    store.start()
    bodies = [durations([1, 0, 0], time).SerializeToString() for time in range(1, 200)]
    taken = []
    for body in bodies:
        with contextlib.suppress(BusyError):
            taken.append(store.submit("metrics", PROTOBUF, body))
    kept = sum(done.result(60).kept for done in taken)
    store.close()
    database = open_reader(store.path)
    assert total(database).count == kept == len(taken)
    database.close()
    with pytest.raises(FailedError):
        store.submit("metrics", PROTOBUF, bodies[0])


def test_a_full_disk_ends_the_store_and_not_the_file(tmp_path: Path) -> None:
    """Where nothing more can be written, that is the answer from then on; what was committed is right."""
    store = Store(tmp_path / "run.db")
    store.start()
    store.submit("metrics", PROTOBUF, durations([1, 0, 0], 1).SerializeToString()).result(60)
    # No file of this test may grow beyond what it has now: as a full disk, but for one process.
    store._database.execute("PRAGMA max_page_count = 1")
    done = [store.submit("traces", PROTOBUF, traces(5000).SerializeToString())]
    with pytest.raises(FailedError, match="cannot be written any more"):
        done[0].result(60)
    with pytest.raises(FailedError):
        store.submit("traces", PROTOBUF, traces(1, first=9000).SerializeToString())
    store.close()
    database = open_reader(store.path)
    assert total(database).count == 1
    assert queries.facts(database)["accepted_points"] == 1
    database.close()


def test_an_answer_that_nobody_waits_for_ends_nothing(tmp_path: Path) -> None:
    """A receiver that ends takes back what it asked: that request is kept, and so is all that comes after it."""
    store = Store(tmp_path / "run.db")
    taken_back, other = (
        store.submit("metrics", PROTOBUF, durations([1, 0, 0], time).SerializeToString()) for time in (1, 2)
    )
    assert taken_back.cancel()
    store.start()
    assert other.result(60).kept == 1
    store.note(ended=7)
    store.close()
    assert store.failure is None
    with contextlib.closing(open_reader(store.path)) as database:
        assert queries.facts(database)["ended"] == 7
        assert total(database).count == 2


def test_a_fault_of_ours_is_told_as_a_full_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever ends the writing, whoever waits is answered, and the reason is there for the summary."""
    store = Store(tmp_path / "run.db")

    def fail() -> None:
        raise OverflowError("too large")

    monkeypatch.setattr(store._metrics, "write_totals", fail)
    store.start()
    with pytest.raises(FailedError, match="too large"):
        store.submit("metrics", PROTOBUF, durations([1, 0, 0], 1).SerializeToString()).result(60)
    assert "too large" in str(store.failure)
    assert "a fault of otel-quantmon" in caplog.text
    store.close()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Copies a file to a folder in which nothing can be written: not by root either, who is another user meanwhile."""
    user = os.geteuid()
    place = Path(tempfile.mkdtemp())

    def copied(path: Path) -> Path:
        copy = place / "a b?#%41.db"
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o444)
        place.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        return copy

    yield copied
    if user == 0:
        os.seteuid(0)
    place.chmod(0o755)
    shutil.rmtree(place)


@pytest.mark.skipif(os.name != "posix", reason="folders that are read-only")
@pytest.mark.parametrize("watched", [False, True], ids=["closed alone", "closed while it was read"])
def test_a_run_in_a_read_only_folder_is_shown(
    tmp_path: Path, read_only: Callable[[Path], Path], watched: bool
) -> None:
    """As on a mounted image or an archive, whatever is in its name; a file that may not be read is said as such."""
    store = Store(tmp_path / "run.db")
    reader = open_reader(store.path)
    store.start()
    store.submit("metrics", PROTOBUF, durations([1, 2, 3], 1).SerializeToString()).result(60)
    if not watched:
        reader.close()
    store.close()
    reader.close()
    copy = read_only(store.path)
    with contextlib.closing(open_reader(copy)) as database:
        assert total(database).count == 6
        with pytest.raises(sqlite3.OperationalError):
            database.execute("DELETE FROM point")
    if os.geteuid():
        # Its owner may change that.
        os.seteuid(copy.stat().st_uid)
        copy.chmod(0)
        os.seteuid(65534 if copy.stat().st_uid == 0 else copy.stat().st_uid)
        with pytest.raises(DeskError, match="cannot be opened"):
            open_reader(copy)


_WRITER = """
import os, signal, sys
from pathlib import Path
from desk.otlp import PROTOBUF, durations, traces
from otel_quantmon.desk.store import Store
store = Store(Path(sys.argv[1]))
store.start()
for time in range(1, 100_000):
    store.submit("traces", PROTOBUF, traces(20, first=20 * time).SerializeToString())
    store.submit("metrics", PROTOBUF, durations([1, 0, 0], time).SerializeToString()).result()
    print(time, flush=True)
"""


def test_what_was_answered_outlives_a_kill_of_the_writer(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing: the file is whole, and has at least all that was answered."""
    path = tmp_path / "run.db"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) >= 50:
            writer.send_signal(signal.SIGKILL)
            break
    answered = max([50, *map(int, writer.stdout.read().split())])
    writer.stdout.close()
    writer.wait()
    database = open_reader(path)
    assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert total(database).count >= answered
    facts = queries.facts(database)
    assert facts["accepted_spans"] == database.execute("SELECT count(*) FROM span").fetchone()[0]
    assert facts["accepted_points"] == total(database).count
    database.close()


_READER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("BEGIN")
database.execute("SELECT count(*) FROM span").fetchone()
print("reading", flush=True)
sys.stdin.read()
"""


def test_a_reader_that_is_killed_harms_nobody(store: Store, read: sqlite3.Connection, send: Send) -> None:
    """One that holds a transaction open neither stops the writer nor leaves anything locked when it is killed."""
    send(traces(1))
    reader = subprocess.Popen(
        [sys.executable, "-c", _READER, str(store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    assert reader.stdin is not None
    assert reader.stdout.readline() == "reading\n"
    send(traces(1, first=2))
    reader.kill()
    reader.wait()
    reader.stdout.close()
    reader.stdin.close()
    send(traces(1, first=3))
    assert read.execute("SELECT count(*) FROM span").fetchone()[0] == 3
