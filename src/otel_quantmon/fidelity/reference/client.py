"""The application's side of the reference's process."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from typing import Any, cast

from otel_quantmon.fidelity.reference.evaluation import Evaluation, Evaluator, Task
from otel_quantmon.fidelity.reference.layers import Entry, EntryTask
from otel_quantmon.fidelity.reference.messages import MessageError, Stream, read_message, write_message
from otel_quantmon.telemetry.context import suppress_instrumentation

__all__ = ["ReferenceProcess", "niceness"]

_logger = logging.getLogger("otel_quantmon")

_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]);"
    "from otel_quantmon.fidelity.reference.server import main; main(*map(int, sys.argv[2:]))"
)

# Bytes that a process may take that looks into the layers of two models.
_LAYERS_MEMORY = 2 << 30

# Past this the process is taken to be unable to run here, and nothing is compared any more.
_MOST_FAILURES = 3


def niceness(budget: float) -> int:
    """Return the nice value at which a process that competes for a core still gets one and a half times ``budget``.

    Linux weighs a nice level 1.25 times the next (``sched_prio_to_weight`` in kernel/sched/core.c).
    """
    return max(0, min(19, round(math.log(1 / max(1.5 * budget, 1e-6)) / math.log(1.25))))


class ReferenceProcess:
    """Evaluates tasks in a process that starts with the first of them. For one thread at a time.

    Where no Python can be started, as inside a server that embeds it, tasks are evaluated here.
    """

    def __init__(self, budget: float, timeout: float) -> None:
        self._niceness = niceness(budget)
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._local: Evaluator | None = None
        self._failures = 0
        if not os.path.basename(sys.executable or "").lower().startswith(("python", "pypy")):
            self._local = Evaluator()

    @property
    def given_up(self) -> bool:
        """True when the process has failed so often that it is not started again."""
        return self._failures >= _MOST_FAILURES

    def locate(self, task: EntryTask) -> Entry:
        """Find out in a process of its own where the error of a call enters, within the timeout and 2 GiB."""
        if self._local is not None:
            return Entry(error="no process can be started here to look into the layers")
        _survive_a_broken_pipe()
        process: subprocess.Popen[bytes] | None = None
        try:
            process = self._start(_LAYERS_MEMORY)
            return Entry(**self._ask(process, task.packed(), self._timeout))
        except (MessageError, OSError, TypeError) as error:
            return Entry(error=f"the process that looks into the layers has ended: {error}")
        finally:
            if process is not None:
                self._end(process)

    def evaluate(self, task: Task) -> Evaluation:
        """Evaluate, in at most three times the timeout: it is for one run, of up to two models, after their loading."""
        if self._local is not None:
            # Not the application's.
            with suppress_instrumentation():
                return self._local.evaluate(task)
        if self.given_up:
            return Evaluation(error="the reference's process has failed too often")
        try:
            _survive_a_broken_pipe()
            reply = self._ask(self._started(), task.packed(), 3 * self._timeout)
            evaluation = Evaluation.unpacked(reply)
        except TypeError as error:
            # Nothing of it has been sent.
            return Evaluation(error=str(error))
        except (MessageError, OSError) as error:
            self._failures += 1
            if self.given_up:
                _logger.warning(
                    "the reference's process ended %d times; comparison is off: %s", self._failures, error
                )
            self.close()
            return Evaluation(error=f"the reference's process has ended: {error}")
        self._failures = 0
        return evaluation

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            self._end(process)

    @staticmethod
    def _ask(process: subprocess.Popen[bytes], message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer to ``message``; the process is ended if that takes longer than ``seconds``."""
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            write_message(cast("Stream", process.stdin), message)
            return cast("dict[str, Any]", read_message(cast("Stream", process.stdout)))
        finally:
            timer.cancel()

    @classmethod
    def _end(cls, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        cls._close_pipes(process)
        process.wait()

    def abandon(self) -> None:
        """In a child after fork: let go of the parent's process, so that only the parent keeps it running."""
        process, self._process = self._process, None
        if process is not None:
            self._close_pipes(process)
            # Popen would warn of a process that is still running, and it is not this one's to wait for.
            process.returncode = 0

    @staticmethod
    def _close_pipes(process: subprocess.Popen[bytes]) -> None:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        return self._process

    def _start(self, *limits: int) -> subprocess.Popen[bytes]:
        # -I: neither the environment's path, which leads to OpenTelemetry's own sitecustomize, nor the
        # working directory; the path that this process has at the moment is handed over instead.
        path = json.dumps([os.fspath(entry) for entry in sys.path])
        numbers = map(str, (self._niceness, *limits))
        return subprocess.Popen(  # noqa: S603  our own interpreter and program
            [sys.executable, "-I", "-c", _PROGRAM, path, *numbers],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OTEL_SDK_DISABLED": "true"},
        )


def _survive_a_broken_pipe() -> None:
    # Where the application has SIGPIPE end it, as tools of the command line do, it would end with the reference's
    # process. Blocked in this thread alone, which is the project's own, the write fails with an error instead.
    if hasattr(signal, "pthread_sigmask") and threading.current_thread() is not threading.main_thread():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
