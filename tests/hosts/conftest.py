from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lifecycle.sink import Sink

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is in this folder; the hook is given the tests of all."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("hosts")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running
