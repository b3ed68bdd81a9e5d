"""The real backends, built from their Go modules at pinned versions, and Kafka from its jars.

Each directory under ``tools/`` pins one program's whole module graph: ``go.mod`` names it, ``go.sum`` holds
the hash of every module in it. A build may only read them (``-mod=readonly``): it is the same everywhere, or
fails. One directory each, since the programs want different versions of what they share.

``python tests/stack/programs.py`` builds all of them and prints what each took; with names, those alone. What
is built stays in ``$QUANTMON_TEST_CACHE`` (default ``~/.cache/otel-quantmon``), under a hash of all that goes
into it. Needs Go 1.26 or newer, and for Kafka a JDK of version 17 or newer with Maven.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOOLS: Final = Path(__file__).parent / "tools"


class BuildError(Exception):
    """A program could not be built; the message ends with what the Go command said."""


@dataclass(frozen=True)
class Program:
    """How one program is built.

    Attributes:
        directory: under ``tools/``.
        packages: main packages, each giving a binary of its last element's name (before a major version). Empty:
            the Collector, whose main package the collector builder writes from ``manifest.yaml``.
        tags: Go build tags.
        maven: the directory's ``pom.xml`` names jars to fetch; there is nothing to build.
    """

    directory: str
    packages: tuple[str, ...] = ()
    tags: str = ""
    maven: bool = False


# Prometheus without its twenty-odd cloud discoveries builds in half the time and needs half the modules.
PROGRAMS: Final = {
    "otelcol": Program("collector"),
    "jaeger": Program("jaeger", ("github.com/jaegertracing/jaeger/cmd/jaeger",)),
    "prometheus": Program(
        "prometheus",
        (
            "github.com/prometheus/prometheus/cmd/prometheus",
            "github.com/prometheus/prometheus/cmd/promtool",
        ),
        tags="remove_all_sd",
    ),
    "alertmanager": Program(
        "alertmanager",
        (
            "github.com/prometheus/alertmanager/cmd/alertmanager",
            "github.com/prometheus/alertmanager/cmd/amtool",
        ),
    ),
    "kustomize": Program("kustomize", ("sigs.k8s.io/kustomize/kustomize/v5",)),
    "kafka": Program("kafka", maven=True),
}
COPY_JARS: Final = (
    "mvn",
    "--batch-mode",
    "--quiet",
    "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
    "-DincludeScope=runtime",
)
PROVIDER: Final = {"promtool": "prometheus", "amtool": "alertmanager"}
"""Binaries that come with another program."""


def cache_directory() -> Path:
    """Where built programs are kept, outside the checkout."""
    configured = os.environ.get("QUANTMON_TEST_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "otel-quantmon"


def binary(name: str) -> Path:
    """The path of a program or of a binary that comes with one, building it first if need be.

    Raises:
        BuildError: there is no Go command, or the build failed.
    """
    program = PROVIDER.get(name, name)
    return _built(program) / name


def kafka_jars() -> Path:
    """The directory of Kafka's jars, fetching them first if need be.

    Raises:
        BuildError: there is no Maven, or it failed.
    """
    return _built("kafka")


def _target(name: str) -> Path:
    program = PROGRAMS[name]
    digest = hashlib.sha256(repr(program).encode())
    directories = [program.directory] if program.packages or program.maven else [program.directory, "builder"]
    for directory in directories:
        for file in sorted((TOOLS / directory).iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return cache_directory() / f"{name}-{digest.hexdigest()[:16]}"


def _built(name: str) -> Path:
    target = _target(name)
    if target.is_dir():
        return target
    program = PROGRAMS[name]
    needed = "mvn" if program.maven else "go"
    if shutil.which(needed) is None:
        raise BuildError(
            f"{name} cannot be had without the `{needed}` command: install it (Go 1.26, Maven 3.8)"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(name):
        if not target.is_dir():
            _build(name, program, target)
    return target


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Wait for another process that builds the same program, as `.ci/run` does while other tests run."""
    with (cache_directory() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(name: str, program: Program, target: Path) -> None:
    # Into a neighbour first: an interrupted build leaves no half of one under the final name.
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as scratch:
        output = Path(scratch) / "bin"
        output.mkdir()
        if program.maven:
            _run([*COPY_JARS, f"-DoutputDirectory={output}"], TOOLS / program.directory)
        elif program.packages:
            _go_build(TOOLS / program.directory, output, *program.packages, tags=program.tags)
        else:
            source = Path(scratch) / "source"
            _write_collector(source, TOOLS / program.directory)
            _go_build(source, output / name, ".")
        output.rename(target)


def _write_collector(source: Path, pins: Path) -> None:
    """Let the collector builder write the main package, then put the pinned modules beside it.

    The builder by itself would ask for the newest of every indirect module.
    """
    builder = source.parent / "builder"
    _go_build(TOOLS / "builder", builder, "go.opentelemetry.io/collector/cmd/builder")
    source.mkdir()
    for file in pins.iterdir():
        shutil.copy(file, source)
    _run([str(builder), "--config=manifest.yaml", "--skip-get-modules", "--skip-compilation"], source)


def _go_build(directory: Path, output: Path, *packages: str, tags: str = "") -> None:
    # Without inlining, and without the debugging information that the linker drops, the compiler takes two thirds of
    # its time; that the programs are slower matters to no test.
    faster = "-gcflags=all=-l -dwarf=false"
    command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-ldflags=-s -w", faster, f"-tags={tags}"]
    _run([*command, "-o", str(output) + (os.sep if output.is_dir() else ""), *packages], directory)


def _run(command: list[str], directory: Path) -> None:
    # No C compiler needed; a lazier collector makes the Go compiler itself faster for memory that CI has.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOGC": "400", "GOWORK": "off"}
    finished = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise BuildError(f"`{' '.join(command)}` in {directory} failed:\n{finished.stdout}{finished.stderr}")


def main(names: list[str]) -> int:
    """Build the named programs, or all, telling the time of each; the exit status counts the failed."""
    failed = 0
    for name in names or PROGRAMS:
        start = time.monotonic()
        try:
            where = _built(name)
        except BuildError as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {time.monotonic() - start:.0f} s, {where}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
