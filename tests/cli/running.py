"""Programs under ``quantmon run``, and what is in the file of the run."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from lifecycle.programs import SECONDS, environment

needed = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("starlette", "uvicorn", "onnxruntime", "opentelemetry.distro")),
    reason="without the extra `page`, or otlp",
)
if find_spec("starlette"):
    from otel_quantmon.desk import queries
    from otel_quantmon.desk.overview import overview
    from otel_quantmon.desk.schema import open_reader

QUANTMON = [sys.executable, "-m", "otel_quantmon.cli"]
LOAD = """
import os, sys, time
import numpy as np
x = {"x": np.ones((2, 3), np.float32)}
def load():
    import onnxruntime
    options = onnxruntime.SessionOptions()
    # A pool of threads does not outlive a fork.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession("net.onnx", options, providers=["CPUExecutionProvider"])
def call(session, times):
    for _ in range(times):
        session.run(None, x)
"""


def program(folder: Path, text: str, name: str = "app.py") -> list[str]:
    (folder / name).write_text(LOAD + text)
    return [sys.executable, name]


def quantmon(
    folder: Path, *arguments: object, variables: Mapping[str, str] | None = None, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run quantmon to its end."""
    return subprocess.run(
        [*QUANTMON, *map(str, arguments)],
        cwd=folder,
        env=environment(variables),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def counted(path: Path) -> dict[str, int]:
    """Calls by model."""
    database = open_reader(path)
    try:
        assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return {found.model.name: found.calls for found in overview(database)}
    finally:
        database.close()


def facts(path: Path) -> dict[str, Any]:
    database = open_reader(path)
    try:
        return queries.facts(database)
    finally:
        database.close()


class Running:
    """quantmon around a program that says when it is ready."""

    def __init__(self, folder: Path, text: str, variables: Mapping[str, str] | None = None) -> None:
        command = program(folder, text)
        self.path = folder / "run.db"
        self.process = subprocess.Popen(
            [*QUANTMON, "run", "--db", "run.db", "--", *command],
            cwd=folder,
            env=environment(variables),
            stdout=subprocess.PIPE,
            text=True,
            # Under nohup a process begins without it.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509  one call, no lock
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> int:
        assert self.process.stdout is not None
        self.rest = self.process.stdout.read()
        self.process.stdout.close()
        return self.process.wait(SECONDS)


WAITS = """
import signal
session = load()
call(session, 321)
for number in (signal.SIGHUP, signal.SIGUSR1):
    # Past the buffer, which the line below may be about to write.
    signal.signal(number, lambda number, _: os.write(1, f"{signal.Signals(number).name}\\n".encode()))
print(os.getpid(), flush=True)
while True:
    signal.pause()
"""
