"""Starts programs of a test as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

import otel_quantmon

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TESTS = Path(__file__).parent.parent
_SOURCE = Path(next(iter(otel_quantmon.__path__))).parent
ZERO_CODE = Path(sys.executable).with_name("opentelemetry-instrument")

CHILDREN_ANEW = pytest.mark.skipif(
    Version(version("opentelemetry-instrumentation")) < Version("0.63b0"),
    reason="opentelemetry-instrument before 0.63b0 does not instrument children that are started anew",
)

SECONDS = 90
"""After which a program counts as hanging, on a busy machine too."""


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of OpenTelemetry and of ours, and with ``variables``.

    Stays under pytest's guard, which raises our own errors again, unless a variable says otherwise.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "QUANTMON_"))}
    if "QUANTMON_TEST_CACHE" in os.environ:
        kept["QUANTMON_TEST_CACHE"] = os.environ["QUANTMON_TEST_CACHE"]
    path = {"PYTHONPATH": os.pathsep.join([str(_SOURCE), str(_TESTS)])}
    return kept | path | {"TF_CPP_MIN_LOG_LEVEL": "3"} | dict(variables or {})


def run(
    program: str, *arguments: str, variables: Mapping[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run ``program``, Python source, to its end.

    Raises:
        AssertionError: it ended with an error, and ``check`` is set; the message has what it printed.
    """
    return _done([sys.executable, "-c", program, *arguments], environment(variables), check)


def zero_code(metadata: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment for `ZERO_CODE`, with both entry points found whether or not the package is installed.

    Args:
        metadata: a folder, which is given a distribution's metadata as pyproject.toml declares it.
        variables: to set as well.
    """
    project = tomllib.loads((_TESTS.parent / "pyproject.toml").read_text())["project"]
    folder = metadata / "otel_quantmon-0.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: otel-quantmon\nVersion: 0\n")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    found = environment(variables)
    return found | {"PYTHONPATH": os.pathsep.join([str(metadata), found["PYTHONPATH"]])}


def run_zero_code(
    file: Path, *arguments: str, variables: Mapping[str, str], check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the script ``file`` under `ZERO_CODE` to its end; raises as `run` does."""
    command = [str(ZERO_CODE), sys.executable, str(file), *arguments]
    return _done(command, zero_code(file.parent, variables), check)


def _done(command: list[str], variables: Mapping[str, str], check: bool) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    if check and done.returncode:
        raise AssertionError(f"ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
    return done


@contextmanager
def started(
    command: list[str], variables: Mapping[str, str], log: Path, inherited: socket.socket
) -> Iterator[subprocess.Popen[bytes]]:
    """A running program that has ``inherited``; its output goes to ``log``, and it is killed if it has not ended."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[inherited.fileno()],
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
