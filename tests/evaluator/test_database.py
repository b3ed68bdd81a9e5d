"""The files that workers share, when they are new and several open them at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_quantmon.evaluator import database
from otel_quantmon.evaluator.fleet.state import FleetState
from otel_quantmon.evaluator.ledger import Ledger
from otel_quantmon.evaluator.source import EvaluatorError


@pytest.mark.parametrize("opened", [lambda path: Ledger(path, "w"), FleetState])
def test_a_new_file_that_another_is_about_to_write_is_waited_for(
    opened: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses to change its mode then, whatever it was told to wait; a worker looks again until it may."""
    path = tmp_path / "state.sqlite"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            other.execute("COMMIT")

    monkeypatch.setattr(database, "sleep", wait)
    opened(path).close()
    assert len(waited) == 2
    other.close()


def test_a_file_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the end, with its name."""
    other = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(database, "_PATIENCE", 0.0)
    with pytest.raises(
        EvaluatorError, match=r"state\.sqlite cannot be used as the state: database is locked"
    ):
        Ledger(tmp_path / "state.sqlite", "w")
    other.close()
