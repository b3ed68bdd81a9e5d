"""The page of one run, and browsers that look at it.

Needs Chromium and its driver; without them it fails where `CI` is set and is skipped elsewhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if any(find_spec(name) is None for name in ("selenium", "starlette", "uvicorn", "opentelemetry.proto")):
    # `nox -s page` installs them.
    collect_ignore_glob = ["test_*.py"]
else:
    from desk import page_run
    from desk.browser.chromium import Browser
    from otel_quantmon.desk.page import Page
    from otel_quantmon.desk.schema import open_reader


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run.db"
    page_run.write(path)
    return path


@pytest.fixture(scope="module")
def page(run: Path) -> Iterator[str]:
    page = Page(run)
    page.start()
    yield f"{page.address}/"
    page.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("english"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def reader(run: Path) -> Iterator[sqlite3.Connection]:
    database = open_reader(run)
    yield database
    database.close()
