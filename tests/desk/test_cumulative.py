"""Points of processes that share a resource, that come late, or that are heard again: each call counts once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from otel_quantmon.desk import ingest_metrics as module
from otel_quantmon.desk import queries
from otel_quantmon.desk.histogram import Explicit, Histogram
from otel_quantmon.desk.ingest import Outcome

from .otlp import CUMULATIVE, DELTA, durations, put
from .stored import total

Send = Callable[..., list[Any]]


def test_processes_that_share_an_id_count_once_each(read: sqlite3.Connection, send: Send) -> None:
    """Two that export in turns under one ``service.instance.id`` have begun at other times: 30 calls of each are 60.

    The smallest and the largest value are those of both.
    """
    for time in (1, 2, 3):
        send(
            durations(
                [10 * time, 0, 0],
                time,
                temporality=CUMULATIVE,
                total=time,
                ends=(0.0001 * (4 - time), 0.0005),
            ),
            durations(
                [0, 10 * time, 0],
                time + 0.5,
                start=0.25,
                temporality=CUMULATIVE,
                total=time,
                ends=(0.0015, 0.0015 + 0.0001 * time),
            ),
        )
    assert total(read) == Histogram(60, 6.0, 0.0001, 0.0018, Explicit((0.001, 0.002), (30, 30, 0)))


def test_processes_that_tell_their_pid_are_told_apart(read: sqlite3.Connection, send: Send) -> None:
    """Where two with one ``service.instance.id`` say their pids they are two; the same pid again is the same one."""
    for time in (1, 2):
        for pid in (7, 8):
            request = durations([time, 0, 0], time, start=pid / 100, temporality=CUMULATIVE)
            put(request.resource_metrics[0].resource.attributes, {"process.pid": pid})
            send(request)
    found = queries.processes(read)
    assert [(process.instance, process.pid) for process in found] == [("one", 7), ("one (pid 8)", 8)]
    assert total(read).count == 4


@pytest.mark.parametrize("late", [20, 0], ids=["between two", "before the first"])
def test_a_late_point_adds_nothing(read: sqlite3.Connection, send: Send, late: int) -> None:
    """What comes in another order is no process that begins anew: 10, 30, one from before that, and 40 are 40."""

    def counted(count: int, time: float) -> Any:
        return durations([count, 0, 0], time, temporality=CUMULATIVE)

    outcomes = send(counted(10, 1), counted(30, 3), counted(late, 2 if late else 0.5), counted(40, 4))
    assert total(read).count == 40
    assert outcomes[2] == Outcome(other=1)


def test_a_clock_that_was_set_back_loses_no_calls(read: sqlite3.Connection, send: Send) -> None:
    """A point that goes on with what was counted is taken, whatever its time."""
    for count, time in ((10, 100), (15, 50), (25, 60), (30, 101)):
        send(durations([count, 0, 0], time, temporality=CUMULATIVE))
    assert total(read).count == 30


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA], ids=["cumulative", "delta"])
def test_any_number_of_processes_is_counted(
    read: sqlite3.Connection, send: Send, monkeypatch: pytest.MonkeyPatch, temporality: Any
) -> None:
    """Only the series of the processes heard last are in memory; one that is heard again goes on from its rows."""
    monkeypatch.setattr(module, "_MOST_SERIES", 3)
    for time in (1, 2, 3):
        for process in range(10):
            count = 5 * time if temporality == CUMULATIVE else 5
            ends = (0.0001 * (process + 1), 0.0005)
            request = durations(
                [count, 0, 0], time, process=str(process), temporality=temporality, total=count, ends=ends
            )
            assert send(request) == [Outcome(1)]
    assert total(read) == Histogram(150, 150.0, 0.0001, 0.0005, Explicit((0.001, 0.002), (150, 0, 0)))
    assert read.execute("SELECT count(*), max(points) FROM series").fetchone()[:] == (10, 3)


def test_a_process_with_too_many_series_harms_no_other(
    read: sqlite3.Connection, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one process so many are kept; the reason is told, and is in the file for the summary."""
    monkeypatch.setattr(module, "_MOST_SERIES", 3)
    outcomes = send(*(durations([1, 0, 0], 1, odd=str(number)) for number in range(4)))
    assert [outcome.rejected for outcome in outcomes] == [0, 0, 0, 1]
    assert send(durations([1, 0, 0], 1, process="two")) == [Outcome(1)]
    assert total(read).count == 4
    because = queries.facts(read)["rejected_because"]
    assert because == outcomes[3].message
    assert "its process has 3 series already" in because


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA], ids=["cumulative", "delta"])
def test_a_count_beyond_all_bounds_is_rejected(
    read: sqlite3.Connection, send: Send, temporality: Any
) -> None:
    """Two times 2**62 calls are more than the file can hold: the second point is refused, and all goes on."""
    outcomes = send(
        durations([2**62, 0, 0], 1, temporality=temporality),
        durations([2**62, 0, 0], 2, start=1.5, temporality=temporality),
        durations([5, 0, 0], 3, start=2.5, temporality=temporality),
    )
    assert [outcome.rejected for outcome in outcomes] == [0, 1, 0]
    assert total(read).count == 2**62 + 5
