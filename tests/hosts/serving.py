"""Starts a server or a worker of a test's application in a process group of its own, asks it, and stops it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from lifecycle.programs import SECONDS, ZERO_CODE, zero_code
from lifecycle.sink import Sink

MODEL = """
from lifecycle.models import X, one_op_session

session = one_op_session()

def infer():
    return repr(session.run(None, X)[0].tolist())
"""
"""The module ``model`` of an application: one inference for each call of ``infer``."""

_DOCUMENT = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()


def told(language: str) -> str:
    """The first block in ``language`` of docs/deployment.md, which users copy."""
    found = re.search(rf"^```{language}\n(.*?)^```$", _DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


class Program:
    """A program that runs, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def said(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self, number: int = signal.SIGTERM, whole_group: bool = False) -> int:
        """Send it a signal, as a container's end does, or all its processes, as a terminal does.

        Returns:
            Its exit code.
        """
        (os.killpg if whole_group else os.kill)(self._process.pid, number)
        return self._process.wait(SECONDS)

    def assert_no_process_is_left(self) -> None:
        """After `stop`: nothing of its group runs any more."""
        with pytest.raises(ProcessLookupError):
            os.killpg(self._process.pid, 0)


@contextmanager
def started(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> Iterator[Program]:
    """Run a command in ``folder``; what is left of its process group is killed at the end."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Program(process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Host:
    """A server that runs."""

    def __init__(self, program: Program, port: int) -> None:
        self._program = program
        self._port = port
        self.stop = program.stop

    @property
    def said(self) -> str:
        """What it printed."""
        return self._program.said

    def answered(self, requests: int, path: str = "/", body: bytes | None = None) -> int:
        """Send so many requests by four clients, each on a connection of its own.

        Returns:
            How many were answered with status 200.
        """
        with ThreadPoolExecutor(4) as clients:
            return sum(clients.map(lambda _: self.ask(path, body) == 200, range(requests)))

    def ask(self, path: str = "/", body: bytes | None = None) -> int | None:
        """The status of one answer; None without one."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request("POST" if body else "GET", path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except OSError:
            return None
        else:
            return answer.status
        finally:
            connection.close()

    def wait(self, path: str, status: int | None = None) -> None:
        """Wait until it answers with ``status``, with any if that is None."""
        end = time.monotonic() + SECONDS
        while (found := self.ask(path)) is None or (status is not None and found != status):
            assert not self._program.has_ended, self.said
            assert time.monotonic() < end, self.said
            # There is no event of another program's port.
            time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def write_modules(folder: Path) -> None:
    """Give an application the modules ``model`` and ``deliver``, which has the function of docs/deployment.md."""
    (folder / "model.py").write_text(MODEL)
    (folder / "deliver.py").write_text(told("python"))


@contextmanager
def host(
    command: Sequence[str],
    folder: Path,
    sink: Sink,
    *,
    port: int,
    ready: str = "/ready",
    variables: Mapping[str, str] | None = None,
) -> Iterator[Host]:
    """Run ``python -m command`` in ``folder``, with `write_modules`, until the server answers on ``port``.

    Args:
        ready: a path that runs no inference.
        variables: more of the environment.
    """
    write_modules(folder)
    given = zero_code(folder, sink.variables(QUANTMON_TEST_GUARD="swallow", **(variables or {})))
    with started([str(ZERO_CODE), sys.executable, "-m", *command], folder, given) as program:
        running = Host(program, port)
        running.wait(ready)
        yield running


ALONE = ("--without-mingle", "--without-gossip")
"""Options of a Celery worker that has no others to find."""
WORKER = ("celery", "-A", "tasks", "worker", "--concurrency", "2", "--loglevel", "info", *ALONE)

# The broker is a folder here; results are kept, so that whoever asks knows when all tasks are done.
FOLDERS = """
queue = __import__("pathlib").Path(__file__).with_name("queue")
queue.mkdir(exist_ok=True)
app.conf.result_backend = queue.as_uri()
app.conf.broker_transport_options = {
    "data_folder_in": str(queue), "data_folder_out": str(queue), "control_folder": str(queue / "control"),
    "polling_interval": 0.01,
}
"""
"""What a module with Celery's ``app`` needs to run here."""

QUEUE = f"""
from celery import Celery

app = Celery("tasks", broker="filesystem://")
{FOLDERS}
"""


def ask_worker(worker: Program, call: str, folder: Path, variables: Mapping[str, str]) -> list[Any]:
    """Have ``worker``, one of ``tasks.app``, run ``tasks.CALL`` 60 times, such as ``infer.delay()``.

    Returns:
        The results.
    """
    program = f"""
import json, tasks
answers = [tasks.{call} for _ in range(60)]
print(json.dumps([answer.get(timeout={SECONDS}) for answer in answers]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * SECONDS,
    )
    assert done.returncode == 0, done.stderr + worker.said
    return list(json.loads(done.stdout))
