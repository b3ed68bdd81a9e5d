"""The reference's process: reads tasks from its standard input until that is closed."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from time import process_time
from typing import Any

from otel_quantmon.fidelity.reference.evaluation import Evaluation, Evaluator, Task
from otel_quantmon.fidelity.reference.layers import Entry, EntryTask, find_entry
from otel_quantmon.fidelity.reference.messages import MessageError, read_message, write_message

__all__ = ["main"]


def main(niceness: int, memory: int = 0) -> None:
    """Serve until the application closes the pipe, or dies; with a limit of ``memory`` in bytes, for one task."""
    # Ctrl-C in a terminal goes to both; the application decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        os.nice(niceness)
    tasks = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  lives as long as the process
    # What a runtime prints must not get between the messages.
    results = open(os.dup(1), "wb", buffering=0)  # noqa: SIM115  as above
    os.dup2(2, 1)
    if memory:
        _limit(memory)
        with suppress(MessageError):
            write_message(results, _entry(read_message(tasks)).packed())
        return
    evaluator = Evaluator(process_time)
    counted = process_time()
    while True:
        try:
            message = read_message(tasks)
        except MessageError:
            return
        loading = evaluator.loading_seconds
        try:
            evaluation = evaluator.evaluate(Task.unpacked(message))
        except Exception as error:  # noqa: BLE001  one task must not end the process for all others
            evaluation = Evaluation(error=f"{type(error).__name__}: {error}")
        # Beside a small reference the messages are a good part of the whole; this answer's is the next one's.
        now = process_time()
        spent = now - counted - (evaluator.loading_seconds - loading)
        counted = now
        evaluation = replace(evaluation, cpu_seconds=spent)
        try:
            write_message(results, evaluation.packed())
        except MessageError:
            return


def _entry(message: dict[str, Any]) -> Entry:
    try:
        return find_entry(EntryTask.unpacked(message))
    except Exception as error:  # noqa: BLE001  memory that is not to be had comes as any error; it is told
        return Entry(error=f"{type(error).__name__}: {error}")


def _limit(memory: int) -> None:
    """Have what takes more than ``memory`` bytes fail, where the system can."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
