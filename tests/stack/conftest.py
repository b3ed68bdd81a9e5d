"""Tests against the real backends: ``pytest -m stack``.

They build the backends at first (some 20 minutes on two cores, see `stack.programs`), so a plain ``pytest``
leaves them out.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.backends import SHIPPED, Collector, Jaeger, Prometheus, collector, jaeger, prometheus

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes; leave out with -m 'stack and not slow'")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Without ``-m stack`` the tests are not even imported: they need packages that other tests do not."""
    return None if "stack" in config.option.markexpr else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("stack")


@pytest.fixture(scope="session")
def jaeger_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    with jaeger(tmp_path_factory.mktemp("jaeger")) as server:
        yield server


@pytest.fixture(scope="session")
def second_jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """The trace store at Tempo's address: another Jaeger, since Tempo is under the AGPL and not run here."""
    with jaeger(tmp_path_factory.mktemp("second-jaeger")) as server:
        yield server


@pytest.fixture(scope="session")
def prometheus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus that is pushed to."""
    with prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="session")
def one_host(
    tmp_path_factory: pytest.TempPathFactory,
    jaeger_server: Jaeger,
    second_jaeger: Jaeger,
    prometheus_server: Prometheus,
) -> Iterator[Collector]:
    """The Collector of ``otelcol.yaml``, as shipped, in front of both Jaegers and Prometheus."""
    environment = {
        "JAEGER_OTLP": jaeger_server.otlp,
        "TEMPO_OTLP": second_jaeger.otlp,
        "PROMETHEUS_URL": prometheus_server.url,
    }
    with collector(tmp_path_factory.mktemp("otelcol"), "otelcol.yaml", environment=environment) as server:
        yield server


def sixty_times_faster(text: str) -> str:
    """The same configuration with every duration divided by 60: a minute becomes a second."""
    milliseconds = {"s": 1000 / 60, "m": 1000, "h": 60_000, "d": 24 * 60_000}
    return re.sub(
        r"\b(\d+)([smhd])\b", lambda found: f"{int(int(found[1]) * milliseconds[found[2]])}ms", text
    )


@pytest.fixture
def faster(tmp_path: Path) -> Path:
    """The shipped configuration of Prometheus and Alertmanager on a clock that a test can wait for."""
    directory = tmp_path / "faster"
    shutil.copytree(SHIPPED / "prometheus", directory)
    for file in (
        directory / "prometheus.yml",
        directory / "alertmanager.yml",
        *(directory / "rules").iterdir(),
    ):
        file.write_text(sixty_times_faster(file.read_text()))
    return directory
