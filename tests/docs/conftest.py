"""What the tests of examples and documents share: the repository, and programs run as a user would run them."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def project() -> dict[str, Any]:
    """The ``[project]`` table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, project: dict[str, Any]) -> dict[str, str]:
    """An environment in which the package is installed and nothing is set, and examples share a cache."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "QUANTMON_"))}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    cache = os.environ.get("QUANTMON_TEST_CACHE") or Path.home() / ".cache" / "otel-quantmon"
    kept["XDG_CACHE_HOME"] = str(cache)
    try:
        importlib.metadata.distribution("otel-quantmon")
    except importlib.metadata.PackageNotFoundError:
        # What an installation adds to the sources: the entry points, by which the instrumentors are found.
        metadata = tmp_path_factory.mktemp("installed") / "otel_quantmon-0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: otel-quantmon\nVersion: 0\n")
        groups = project["entry-points"].items()
        lines = [
            f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups
        ]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        kept["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(metadata.parent)])
    return kept


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Callable[..., str]:
    """Run a command to its end in the repository; returns what it printed, and fails if it failed."""

    def to_its_end(*command: str, stdin: str | None = None) -> str:
        done = subprocess.run(  # noqa: PLW1510  the assertion below tells more
            command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert "otel-quantmon failed in itself" not in done.stderr, done.stderr[-4000:]
        return done.stdout

    return to_its_end


APPLICATION = """
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("classifier_int8.onnx")
feeds = {tensor.name: np.ones(4, np.float32) for tensor in session.get_inputs()}
for _ in range(200):
    session.run(None, feeds)
"""
"""What documents call ``app.py``. A timeout does not end its one operator, however busy the machine is."""

QUANTMON_TOML = """
timeout = "10s"
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with what the commands in the documents name: an application, its models and inputs, and a checkout."""
    for module in ("onnxruntime", "onnx"):
        pytest.importorskip(module)
    from real_models import magika_float, magika_inputs, magika_qdq, one_op_onnx

    folder = tmp_path / "desk"
    folder.mkdir()
    for name in ("src", "examples", "benchmarks", "docs", "tests", "README.md", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    # Commands write into this one.
    shutil.copytree(ROOT / "collector-config", folder / "collector-config")
    (folder / "magika_int8.onnx").symlink_to(magika_qdq())
    (folder / "magika.onnx").symlink_to(magika_float())
    (folder / "classifier_int8.onnx").symlink_to(one_op_onnx())
    (folder / "models").mkdir()
    (folder / "models" / "magika.onnx").symlink_to(magika_float())
    for completions in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
        (folder / completions).mkdir(parents=True)
    (folder / "app.py").write_text(APPLICATION)
    (folder / "quantmon.toml").write_text(QUANTMON_TOML)
    import numpy as np

    np.save(folder / "inputs.npy", magika_inputs(12))
    return folder
