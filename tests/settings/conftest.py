"""What the tests of the settings share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_quantmon.settings import Settings, load_settings, loading


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What was warned of so far, in a process that has not warned of anything before."""
    said = loading._said.copy()
    loading._said.clear()
    with caplog.at_level(logging.WARNING, "otel_quantmon"):
        yield lambda: [record.getMessage() for record in caplog.records if record.name == "otel_quantmon"]
    loading._said.clear()
    loading._said.update(said)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Settings]:
    """Loads the given TOML text, with the given variables beside it."""

    def load(toml: str | bytes, **variables: str) -> Settings:
        path = tmp_path / "quantmon.toml"
        path.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        return load_settings({"QUANTMON_CONFIG": str(path), **variables})

    return load
