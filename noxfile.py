"""Everything that is checked, each session in an environment of its own: ``nox -l`` lists them.

``nox`` passes what a change has to pass. Needs nothing but Python, nox and uv; environments and test models are
kept outside the checkout, in ``$QUANTMON_TEST_CACHE`` or ``~/.cache/otel-quantmon``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("QUANTMON_TEST_CACHE") or Path.home() / ".cache" / "otel-quantmon")
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"

# Besides its speed: pip cannot resolve to the oldest versions.
nox.options.default_venv_backend = "uv"
nox.options.envdir = str(CACHE / "nox")
nox.options.stop_on_first_error = False


def _installed(versions: tuple[str, ...]) -> list[str]:
    """Those of ``versions`` that this machine has, the running one first."""

    def works(version: str) -> bool:
        # Version managers put commands on the path for interpreters that are switched off.
        command = shutil.which(f"python{version}")
        if command is None:
            return False
        return subprocess.run([command, "--version"], capture_output=True, check=False).returncode == 0

    return sorted(
        (v for v in versions if v == RUNNING or works(v)), key=lambda v: (v != RUNNING, SUPPORTED.index(v))
    )


PYTHONS = _installed(SUPPORTED) or [RUNNING]
# The oldest releases were built for the oldest Python; on a newer one they are the oldest that exist for it.
OLDEST = min(PYTHONS, key=SUPPORTED.index) if RUNNING in SUPPORTED else RUNNING
# tflite-runtime has had no release for a Python after 3.11.
TFLITE_RUNTIME_PYTHONS = [v for v in PYTHONS if v in {"3.10", "3.11"}][:1]

nox.options.sessions = [
    "lint",
    "types",
    "wheel",
    "onnx_backend",
    "docs",
    "tests_lowest",
    "tests_lowest_tensorflow",
    *(["tests_tflite_runtime"] if TFLITE_RUNTIME_PYTHONS else []),
    # The real backends are built with Go, and Kafka runs on a JDK; CI has both.
    *(["stack"] if "CI" in os.environ or (shutil.which("go") and shutil.which("mvn")) else []),
    f"tests-{RUNNING}",
]

# Whole processes, forks and programs on a busy machine: a second try tells a delay from a fault, and is reported.
SECOND_TRY = ("--reruns", "1")

TESTS_ELSEWHERE = (
    "--ignore=tests/stack",
    "--ignore=tests/onnx_backend",
    "--ignore=tests/docs",
    "--ignore=tests/packaging",
)


# What meets a runtime or the SDK. The rest is either the same for every release, or takes too long to run twice.
TESTS_OF_RELEASES = tuple(
    f"tests/{folder}"
    for folder in ("baseline", "graph", "monitors", "probe", "runtimes", "settings", "telemetry")
)


def _install(session: nox.Session, extras: str, *groups: str) -> None:
    """The package, as the wheel that is built of it, with ``extras`` and dependency groups."""
    session.install(f".[{extras}]" if extras else ".", *(word for g in groups for word in ("--group", g)))


def _install_models(session: nox.Session) -> None:
    session.install("--no-deps", "--group", "models")


def _install_lowest(session: nox.Session, *extras: str) -> None:
    """The package with the oldest releases that its extras and the tests allow."""
    session.install(
        *("--resolution", "lowest-direct", "--no-build", "-r", "pyproject.toml"),
        *(word for extra in extras for word in ("--extra", extra)),
        *("--group", "test"),
    )
    session.install("--no-deps", ".")
    _install_models(session)


@nox.session(python=RUNNING)
def lint(session: nox.Session) -> None:
    """Ruff, as linter and as formatter."""
    session.install("--group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=RUNNING)
def types(session: nox.Session) -> None:
    """Mypy and pyright, strict, on the package and on code that uses it."""
    _install(session, "cli", "typing")
    session.run("mypy")
    session.run("pyright", "--pythonpath", str(Path(session.bin) / "python"))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests on the newest releases of everything; arguments go to pytest."""
    _install(session, "all", "test", "quantizer")
    _install_models(session)
    session.run("pytest", *TESTS_ELSEWHERE, "-m", "not slow", *SECOND_TRY, *session.posargs)


@nox.session(python=OLDEST)
def tests_lowest(session: nox.Session) -> None:
    """Those that meet runtimes and the SDK, on the oldest releases that are supported, all at once."""
    _install_lowest(session, "onnxruntime", "tensorflow", "litert", "otlp", "cli")
    session.run("pytest", *(session.posargs or TESTS_OF_RELEASES))


@nox.session(python=OLDEST)
def tests_lowest_tensorflow(session: nox.Session) -> None:
    """The ways in of the oldest TensorFlow, whose protobuf no OTLP exporter can live with."""
    _install_lowest(session, "onnxruntime", "tensorflow", "litert")
    session.run("pytest", "tests/runtimes", *session.posargs)


@nox.session(python=TFLITE_RUNTIME_PYTHONS or False)
def tests_tflite_runtime(session: nox.Session) -> None:
    """The ways in of tflite-runtime, whose last release wants an old numpy."""
    if not TFLITE_RUNTIME_PYTHONS:
        session.skip("tflite-runtime exists for Python 3.10 and 3.11")
    session.install(".", "tflite-runtime>=2.14", "numpy<2", "opentelemetry-sdk", "pytest>=8.2")
    _install_models(session)
    session.run("pytest", "tests/runtimes/test_tflite_ways.py", "-k", "tflite_runtime", *session.posargs)


@nox.session(python=RUNNING)
def wheel(session: nox.Session) -> None:
    """What the wheel holds, and that it is enough."""
    # What tests/conftest.py imports; the tests install what they build elsewhere.
    _install(session, "", "test")
    session.install("uv")
    session.run("pytest", "tests/packaging", *session.posargs)


@nox.session(python=RUNNING)
def onnx_backend(session: nox.Session) -> None:
    """The test suite of ONNX, with and without instrumentation."""
    _install(session, "onnxruntime", "test")
    session.run("pytest", "tests/onnx_backend", *session.posargs)


@nox.session(python=RUNNING)
def docs(session: nox.Session) -> None:
    """Runs the code in the documentation, and the examples."""
    _install(session, "all,demo", "test", "docs")
    _install_models(session)
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session(python=RUNNING)
def stack(session: nox.Session) -> None:
    """Against the real backends, which Go builds at first (some 20 minutes)."""
    _install(session, "onnxruntime,otlp", "test", "stack")
    _install_models(session)
    session.run("pytest", "-m", "stack and not slow", "tests/stack", *SECOND_TRY, *session.posargs)


@nox.session(python=RUNNING)
def demo(session: nox.Session) -> None:
    """Observes a real int8 model, and shows what was seen."""
    _install(session, "demo")
    examples = HERE / "examples"
    with tempfile.TemporaryFile("w+") as output:
        session.run(
            *("opentelemetry-instrument", "--traces_exporter", "console", "--metrics_exporter", "console"),
            *("python", str(examples / "zero-code" / "onnx_app.py"), *session.posargs),
            stdout=output,
        )
        output.seek(0)
        session.log("what OpenTelemetry's console exporters said, made readable by examples/readable.py:")
        subprocess.run([sys.executable, str(examples / "readable.py")], stdin=output, check=True)
