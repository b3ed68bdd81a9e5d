"""Runs the sessions that `nox` runs by default, in streams side by side: ``python streams.py NOX``.

One stream has the sessions that share their tests out among the processors, one builds programs and then waits for
them, one has the rest; a stream that has no more takes from the others. A session is printed in one piece once it is
over. The exit status is 1 where one has failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

STREAMS = ("shared_out", "builds", "")
"""Each takes the sessions of its tag first; the last those without such a tag."""


class Sessions:
    """Sessions that wait, run and have ended; for the threads of all streams."""

    def __init__(self, nox: str) -> None:
        self._nox = nox
        listed = subprocess.run([nox, "--list", "--json"], stdout=subprocess.PIPE, check=True)
        self._waiting: list[Mapping[str, Any]] = json.loads(listed.stdout)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self.ended: dict[str, tuple[int, float]] = {}
        self.names = [session["session"] for session in self._waiting]

    def run(self, stream: str) -> None:
        """Run one session after another, those of ``stream`` first, until none waits."""
        while (session := self._next(stream)) is not None:
            began = time.monotonic()
            with tempfile.TemporaryFile() as output:
                status = self._run(session, output.fileno())
                took = time.monotonic() - began
                output.seek(0)
                text = output.read().decode(errors="replace")
            with self._lock:
                self.ended[session] = status, took
                print(f"\n{'-' * 30} {session}: {_outcome(status)} in {took:.0f} s\n{text}", flush=True)

    def _next(self, stream: str) -> str | None:
        with self._lock:
            if not self._waiting:
                return None
            own = (one for one in self._waiting if _stream_of(one) == stream)
            chosen = next(own, self._waiting[0])
            self._waiting.remove(chosen)
            name: str = chosen["session"]
            print(f"{name} begins", flush=True)
        return name

    def _run(self, session: str, output: int) -> int:
        command = [self._nox, "--no-color", "-s", session]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        ) as process:
            self._running.add(process)
            try:
                return process.wait()
            finally:
                self._running.discard(process)

    def stop(self, number: int, _: FrameType | None) -> None:
        """End all that runs, and this program, as a handler of a signal."""
        for process in tuple(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        os._exit(128 + number)


def _stream_of(session: Mapping[str, Any]) -> str:
    return next((tag for tag in session["tags"] if tag in STREAMS), "")


def _outcome(status: int) -> str:
    return "failed" if status else "passed"


def main(nox: str) -> int:
    """Run all sessions; returns the exit status."""
    began = time.monotonic()
    sessions = Sessions(nox)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, sessions.stop)
    streams = [threading.Thread(target=sessions.run, args=(stream,)) for stream in STREAMS]
    for stream in streams:
        stream.start()
    for stream in streams:
        stream.join()
    # A stream that broke off has left a session without an end.
    ended = {name: sessions.ended.get(name, (1, 0.0)) for name in sessions.names}
    print(f"\n{len(ended)} sessions in {(time.monotonic() - began) / 60:.1f} minutes:")
    for name, (status, took) in ended.items():
        print(f"  {name}: {_outcome(status)} in {took:.0f} s")
    return max(int(status != 0) for status, _ in ended.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
