"""Starts a real program on free loopback ports, waits until it says that it is ready, and ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

READY_SECONDS = 60.0
"""How long a program may take to start on a busy two-core machine; most take one second."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def until(probe: Callable[[], T | None], what: str, seconds: float = READY_SECONDS) -> T:
    """The first answer of ``probe`` that is not None, asking again every 100 ms.

    For what another process alone can know, and offers no way to wait for.

    Raises:
        AssertionError: no such answer in ``seconds``; the message says what was waited for and what the last
            probe raised.
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            answer = probe()
        except (OSError, KeyError, IndexError, ValueError) as error:  # not there yet, or not all of it
            last = error
        else:
            if answer is not None:
                return answer
        time.sleep(0.1)
    raise AssertionError(f"no {what} within {seconds:.0f} s; last: {last!r}")


def get_text(url: str, headers: Mapping[str, str] = {}) -> str:
    """The body of a successful GET.

    Raises:
        OSError: no connection, or a status that is not 2xx.
    """
    request = urllib.request.Request(url, headers=dict(headers))
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()


def get_json(url: str) -> Any:
    """The JSON body of a successful GET."""
    return json.loads(get_text(url, {"Accept": "application/json"}))


class Process:
    """A running program.

    Attributes:
        log: the file that has all it printed.
    """

    def __init__(
        self, command: Sequence[str | Path], directory: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self.log = log
        self._command = [str(part) for part in command]
        self._directory = directory
        self._environment = {**os.environ, **environment}
        self._start()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self, url: str) -> None:
        """Wait until ``url`` answers with success, or, for ``tcp://host:port``, takes a connection.

        Raises:
            AssertionError: the program ended, or did not answer in time; the message has the end of its log.
        """

        def probe() -> bool | None:
            if self._popen.poll() is not None:
                raise AssertionError(f"{self._command} ended with {self._popen.returncode}:\n{self.tail()}")
            if url.startswith("tcp://"):
                host, _, port = url.removeprefix("tcp://").partition(":")
                socket.create_connection((host, int(port)), timeout=1).close()
            else:
                get_text(url)
            return True

        until(probe, f"answer from {url}\n{self._command}")

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def kill(self) -> None:
        """End it as a crash would: nothing is flushed."""
        self._popen.kill()
        self._popen.wait()

    def restart(self) -> None:
        """Start it again with the same command, files and ports."""
        self._start()

    def suspend(self) -> None:
        """Let it do nothing: the kernel goes on taking connections for it."""
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on where it was."""
        self._popen.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end, and end it after ten seconds."""
        if self.is_running():
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def resident_bytes(self) -> int:
        """Its resident memory now, without its children's."""
        return psutil.Process(self._popen.pid).memory_info().rss

    def listening_addresses(self) -> set[str]:
        """The local addresses of its listening TCP sockets, without ports."""
        connections = psutil.Process(self._popen.pid).net_connections("tcp")
        return {found.laddr.ip for found in connections if found.status == psutil.CONN_LISTEN}

    def tail(self) -> str:
        """The last of what it printed."""
        return self.log.read_text(errors="replace")[-4000:]


@contextmanager
def running(
    command: Sequence[str | Path],
    directory: Path,
    *,
    ready: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run a program with ``directory`` as its working directory, from ready to stopped."""
    directory.mkdir(parents=True, exist_ok=True)
    process = Process(command, directory, environment or {}, directory / "output.log")
    try:
        process.wait_ready(ready)
        yield process
    finally:
        process.stop()
