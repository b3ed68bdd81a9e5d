"""The reference's process: reads tasks from its standard input until that is closed."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from otel_quantmon.reference.evaluation import Evaluation, Evaluator, Task
from otel_quantmon.reference.messages import MessageError, read_message, write_message

__all__ = ["main"]


def main(niceness: int) -> None:
    """Serve until the application closes the pipe, or dies."""
    # Ctrl-C in a terminal goes to both; the application decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        os.nice(niceness)
    tasks = sys.stdin.buffer
    # What a runtime prints must not get between the messages.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    evaluator = Evaluator()
    while True:
        try:
            message = read_message(tasks)
        except MessageError:
            return
        try:
            evaluation = evaluator.evaluate(Task.unpacked(message))
        except Exception as error:  # noqa: BLE001  one task must not end the process for all others
            evaluation = Evaluation(error=f"{type(error).__name__}: {error}")
        try:
            write_message(results, evaluation.packed())
        except MessageError:
            return
