"""The references' process: it ends with whoever needs it, may be killed, and is no other process's business."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest
from exported import Exported
from lifecycle.programs import environment
from runtimes.models import doubling

from otel_quantmon import ONNXRuntimeInstrumentor
from otel_quantmon.fidelity import shadow
from otel_quantmon.fidelity.reference import client
from otel_quantmon.fidelity.reference.client import niceness
from otel_quantmon.fidelity.shadow import References
from otel_quantmon.process.worker import reference_worker

from .waiting import (
    SECONDS,
    evaluate,
    fidelity_of,
    outcomes,
    pipeline_of,
    reference_process,
    settle,
    until_piping,
    warnings,
)

Instrument = Callable[..., None]

X = np.ones((2, 3), np.float32)

# An application that compares at once, and says what its reference's process is.
APPLICATION = """
import os, signal, sys
import numpy as np, onnxruntime
from exported import Exported
from fidelity.waiting import evaluate, fidelity_of, outcomes, reference_process, settle, until_piping
from otel_quantmon import ONNXRuntimeInstrumentor, Settings

exported = Exported()
# With a large budget the process is not nice, and starts on a busy machine too.
settings = Settings(reference={"*": sys.argv[1]}, reference_budget=0.7)
ONNXRuntimeInstrumentor().instrument(settings=settings, **exported.providers)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
x = np.ones((2, 3), np.float32)
run = lambda: session.run(None, {"x": x})
evaluate(exported, run)
process = reference_process(exported)
"""


@contextmanager
def start(program: str, reference: str) -> Iterator[subprocess.Popen[str]]:
    """Start `APPLICATION` and what follows it; at the end it is killed if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-c", APPLICATION + program, reference],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as application:
        try:
            yield application
        finally:
            if application.poll() is None:
                for process in (*psutil.Process(application.pid).children(recursive=True), application):
                    process.kill()


def test_a_killed_reference_costs_one_evaluation(
    reference: str, instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """SIGKILL in the middle of an evaluation: it is counted as failed, and the next one has a new process."""
    instrument(reference={"*": reference})
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    evaluate(exported, lambda: session.run(None, {"x": X}))
    killed = reference_process(exported)
    killed.send_signal(signal.SIGSTOP)
    fidelity_of(exported).demand()
    assert np.array_equal(session.run(None, {"x": X})[0], X + X)
    until_piping("_read")
    killed.kill()
    settle()
    assert outcomes(exported) == {"evaluated": 1, "failed": 1}
    (warning,) = warnings(caplog)
    assert "process has ended" in warning
    fidelity_of(exported).demand()
    session.run(None, {"x": X})
    settle()
    assert outcomes(exported) == {"evaluated": 2, "failed": 1}
    assert reference_process(exported).pid != killed.pid
    assert pipeline_of(exported).capture.held == 0


def test_a_comparison_that_our_code_fails_over_is_followed_by_the_next(
    reference: str, instrument: Instrument, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever raises in it: another call is sampled after a while, without anybody's doing."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    monkeypatch.setattr(shadow, "_AFTER_ERROR", 0.001)
    instrument(reference={"*": reference})
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    working, failed = References.evaluate, list[bool]()

    def once(self: References, task: Any) -> Any:
        if not failed:
            failed.append(True)
            raise ZeroDivisionError
        return working(self, task)

    monkeypatch.setattr(References, "evaluate", once)
    evaluate(exported, lambda: session.run(None, {"x": X}))
    assert failed
    assert outcomes(exported) == {"evaluated": 1}
    assert pipeline_of(exported).capture.held == 0


def test_the_process_is_the_nicer_the_smaller_its_budget(
    reference: str, instrument: Instrument, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives way to all else on the machine, as far as its budget allows."""
    assert [niceness(budget) for budget in (0.01, 0.2, 0.7, 1.0)] == [19, 5, 0, 0]
    monkeypatch.setattr(client, "niceness", niceness)
    instrument(reference={"*": reference}, reference_budget=0.2)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    evaluate(exported, lambda: session.run(None, {"x": X}))
    assert reference_process(exported).nice() == min(psutil.Process().nice() + 5, 19)


@pytest.mark.parametrize("end", ["killed", "exits"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in the middle"])
def test_no_process_is_left_behind(end: str, busy: bool, reference: str) -> None:
    """Whether the application is killed or exits, between evaluations or in one, the reference's process ends."""
    program = """
if %r:
    process.send_signal(signal.SIGSTOP)
    fidelity_of(exported).demand()
    run()
    until_piping("_read")
print(process.pid, flush=True)
sys.stdin.readline()
"""
    with start(program % busy, reference) as application:
        assert application.stdout is not None
        process = psutil.Process(int(application.stdout.readline()))
        if end == "killed":
            application.kill()
        application.communicate("\n", timeout=SECONDS)
        assert application.returncode == (-signal.SIGKILL if end == "killed" else 0)
    if busy:
        process.send_signal(signal.SIGCONT)
    process.wait(SECONDS)


def test_an_application_that_ends_with_sigpipe_does_not_end_with_the_reference(reference: str) -> None:
    """The reference is killed while a tensor is on its way to it; an application with SIGPIPE's default goes on."""
    program = """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
process.send_signal(signal.SIGSTOP)
fidelity_of(exported).demand()
# More than any pipe holds, so that the write is under way when its reader dies.
session.run(None, {"x": np.ones((1_000_000, 3), np.float32)})
until_piping("_write")
process.kill()
settle()
print(outcomes(exported))
"""
    with start(program, reference) as application:
        printed, _ = application.communicate(timeout=SECONDS)
    assert application.returncode == 0
    assert printed.strip() == "{'evaluated': 1, 'failed': 1}"


def test_a_fork_leaves_the_reference_to_the_parent(reference: str) -> None:
    """A child forked in the middle of an evaluation compares in a process of its own; the parent's goes on."""
    program = """
process.send_signal(signal.SIGSTOP)
fidelity_of(exported).demand()
run()
until_piping("_read")
child = os.fork()
if not child:
    evaluate(exported, run, 2)
    own = reference_process(exported)
    print("child", outcomes(exported)["evaluated"], own.pid != process.pid, own.ppid() == os.getpid(), flush=True)
    own.kill()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
process.send_signal(signal.SIGCONT)
settle()
fidelity_of(exported).demand()
run()
settle()
print("parent", outcomes(exported)["evaluated"], reference_process(exported).pid == process.pid)
"""
    with start(program, reference) as application:
        printed, _ = application.communicate(timeout=SECONDS)
    assert application.returncode == 0
    # The child's counters begin with what the parent had counted.
    assert printed.splitlines() == ["child 2 True True", "parent 3 True"]


def test_the_process_ends_with_the_last_model_that_needs_it(
    reference: str, instrument: Instrument, exported: Exported
) -> None:
    """Two models share one process; it stays when one of them is dropped, and ends with the other."""
    instrument(reference={"*": reference})
    sessions = [
        onnxruntime.InferenceSession(doubling(name), providers=["CPUExecutionProvider"])
        for name in ("one", "two")
    ]

    def run() -> None:
        for session in sessions:
            session.run(None, {"x": X})

    evaluate(exported, run, 2)
    process = reference_process(exported)
    for alive in (True, False):
        sessions.pop()
        gc.collect()
        exported.raw_metrics()
        gc.collect()
        settle()
        assert (pipeline_of(exported).references.process._process is not None) == alive
    process.wait(SECONDS)


def test_a_server_without_a_python_of_its_own_compares_in_itself(
    reference: str, instrument: Instrument, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ``sys.executable`` is no Python the reference runs here, and is not taken for an inference."""
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    instrument(reference={"*": reference}, reference_budget=1.0)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    runs = 0

    def run() -> None:
        nonlocal runs
        runs += 1
        session.run(None, {"x": X})

    evaluate(exported, run, 3)
    assert pipeline_of(exported).references.process._process is None
    assert outcomes(exported) == {"evaluated": 3}
    assert exported.count() == runs == len(exported.raw_spans())
    assert exported.point("quantmon.model.load.duration").count == 1


@pytest.mark.parametrize("end", ["uninstrumented", "shut down", "model gone"])
def test_the_process_ends_with_the_need_for_it(
    end: str, reference: str, instrument: Instrument, exported: Exported
) -> None:
    """After `uninstrument`, after the shutdown of the providers and after the last session it ends by itself, with no
    collection and no call to tell of it.
    """
    instrument(reference={"*": reference})
    sessions = [onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])]
    evaluate(exported, lambda: sessions[0].run(None, {"x": X}))
    process = reference_process(exported)
    if end == "uninstrumented":
        ONNXRuntimeInstrumentor().uninstrument()
    elif end == "shut down":
        exported.shut_down()
    else:
        sessions.clear()
        gc.collect()
    process.wait(SECONDS)


def test_a_sample_after_the_shutdown_starts_no_process(
    reference: str, instrument: Instrument, exported: Exported
) -> None:
    """What is still compared when the providers have been shut down is dropped, and its tensors are let go of."""
    instrument(reference={"*": reference})
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    evaluate(exported, lambda: session.run(None, {"x": X}))
    process = reference_process(exported)
    pipeline, assessment = pipeline_of(exported), fidelity_of(exported)
    exported.shut_down()
    process.wait(SECONDS)
    assert reference_worker.flush(SECONDS)
    assessment.demand()
    session.run(None, {"x": X})
    settle()
    assert pipeline.references.process._process is None
    assert not assessment.tokens
    assert pipeline.capture.held == 0
