"""The wheel, built from this checkout and installed into a fresh environment with nothing of the checkout in reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "otel_quantmon"

APPLICATION = """\
import numpy, onnxruntime
from onnxruntime.datasets import get_example

session = onnxruntime.InferenceSession(get_example("sigmoid.onnx"), providers=["CPUExecutionProvider"])
for _ in range(3):
    session.run(None, {"x": numpy.ones((3, 4, 5), numpy.float32)})
"""


# Whatever is not named goes to an OTLP exporter, which is not installed here.
INSTRUMENTED = ("opentelemetry-instrument", "--traces_exporter", "none", "--logs_exporter", "none")


def _uv(*arguments: str | Path) -> None:
    done = subprocess.run(["uv", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Environment:
    """A virtual environment that sees no other package than those installed into it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _uv("venv", "--python", sys.executable, folder)

    def install(self, *requirements: str) -> None:
        _uv("pip", "install", "--python", self._folder, *requirements)

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        scripts = self._folder / ("Scripts" if os.name == "nt" else "bin")
        ours = ("OTEL_", "QUANTMON_", "PYTHON", "VIRTUAL_ENV")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        environment["PATH"] = os.pathsep.join([str(scripts), environment["PATH"]])
        done = subprocess.run(
            [scripts / command, *arguments],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the backend that `pyproject.toml` names."""
    folder = tmp_path_factory.mktemp("wheel")
    _uv("build", "--wheel", "--out-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """One with the wheel and OpenTelemetry's SDK, and no runtime."""
    environment = Environment(tmp_path_factory.mktemp("environment") / "venv")
    environment.install(str(wheel), "opentelemetry-sdk", "opentelemetry-distro")
    return environment


def test_it_is_for_every_python_3_and_platform(wheel: Path) -> None:
    """Pure Python: one wheel, which also runs where the Kubernetes operator copies it to."""
    assert wheel.name.endswith("-py3-none-any.whl")


def test_it_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    """Every file under `src`, the schema and the typing marker among them, beside the metadata and the license."""
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    metadata = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    files = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.parent.name.startswith(".")
    }
    assert names - metadata == files
    assert {"otel_quantmon/py.typed", "otel_quantmon/settings/schema.json"} <= files
    assert {name.partition("/")[2] for name in metadata} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_every_public_name_is_there_without_a_runtime(environment: Environment) -> None:
    """Importing all of `__all__` needs the hard dependencies only, and numpy is not among them."""
    environment.run(
        "python",
        "-c",
        "import sys, otel_quantmon as q\n"
        "for name in q.__all__: getattr(q, name)\n"
        "assert not {'numpy', 'onnxruntime', 'tensorflow'} & sys.modules.keys()\n",
    )


def test_entry_points_load(environment: Environment) -> None:
    """OpenTelemetry's loader finds both instrumentors and the module that names the settings."""
    shown = environment.run(
        "python",
        "-c",
        "from importlib.metadata import entry_points\n"
        "for group in ('opentelemetry_instrumentor', 'opentelemetry_environment_variables'):\n"
        "    for point in entry_points(group=group):\n"
        "        if point.module.startswith('otel_quantmon'):\n"
        "            print(point.name, point.load().__name__)\n",
    ).stdout
    assert sorted(shown.splitlines()) == [
        "onnxruntime ONNXRuntimeInstrumentor",
        "quantmon otel_quantmon.environment_variables",
        "tflite TFLiteInstrumentor",
    ]


def test_a_process_without_a_runtime_is_left_in_peace(environment: Environment) -> None:
    """`opentelemetry-instrument` starts it, and nothing is said."""
    done = environment.run(*INSTRUMENTED, "--metrics_exporter", "none", "python", "-c", "pass")
    assert (done.stdout, done.stderr) == ("", "")


def test_an_application_is_observed_with_nothing_but_the_wheel(environment: Environment) -> None:
    """Three runs of a model that onnxruntime carries are three in the histogram that is exported at exit."""
    environment.install("onnxruntime")
    done = environment.run(*INSTRUMENTED, "--metrics_exporter", "console", "python", "-c", APPLICATION)
    exported = json.loads(done.stdout)
    counts = {
        metric["name"]: metric["data"]["data_points"][0].get("count")
        for scope in exported["resource_metrics"][0]["scope_metrics"]
        for metric in scope["metrics"]
    }
    assert counts["quantmon.inference.duration"] == 3
