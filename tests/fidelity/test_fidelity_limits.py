"""What bounds the copies of sampled calls: each overflow is counted, none is waited for, all memory comes back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from runtimes.models import doubling

from otel_quantmon.fidelity.sample import Sample
from otel_quantmon.process.worker import worker

from .waiting import evaluate, fidelity_of, outcomes, pipeline_of, reference_process, settle

Instrument = Callable[..., None]

X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize("rows", [20_000, 10_000], ids=["inputs", "outputs"])
def test_tensors_past_the_byte_limit_are_dropped_and_counted(
    rows: int, reference: str, instrument: Instrument, exported: Exported
) -> None:
    """A call whose inputs, or whose outputs on top of them, are too large is not copied; a smaller one is again."""
    instrument(reference={"*": reference}, capture_bytes=150_000)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    large = np.ones((rows, 3), np.float32)
    assert session.run(None, {"x": large})[0].shape == large.shape
    settle()
    assert outcomes(exported) == {"dropped_bytes": 1}
    assert pipeline_of(exported).capture.held == 0
    fidelity_of(exported).demand()
    session.run(None, {"x": X})
    settle()
    assert outcomes(exported) == {"dropped_bytes": 1, "evaluated": 1}
    assert pipeline_of(exported).capture.held == 0


def test_a_comparison_that_was_dropped_is_asked_for_again(
    reference: str, instrument: Instrument, exported: Exported
) -> None:
    """One call that is too large does not end the comparisons: without anybody's doing, a later one is sampled."""
    instrument(reference={"*": reference}, capture_bytes=150_000)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((20_000, 3), np.float32)})
    assert outcomes(exported) == {"dropped_bytes": 1}
    evaluate(exported, lambda: session.run(None, {"x": X}), 2)
    assert outcomes(exported) == {"dropped_bytes": 1, "evaluated": 1}


def test_a_sample_that_cannot_be_checked_costs_no_other_its_memory(
    instrument: Instrument, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of small samples that are checked together the second raises: the bytes and places of all come back."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    instrument()
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": X})
    settle()
    fidelity, capture = fidelity_of(exported), pipeline_of(exported).capture
    checked: list[int] = []

    def check(sample: Sample) -> None:
        checked.append(sample.copying)
        if sample.copying == 1:
            raise ValueError("not thought of")

    monkeypatch.setattr(fidelity, "_check", check)
    samples = [Sample(check=True, compare=False) for _ in range(3)]
    for number, sample in enumerate(samples):
        sample.copying, sample.size = number, 100
        assert capture.take(100)
    fidelity._small = samples
    fidelity._waiting = len(samples)
    fidelity.check_waiting()
    assert checked == [0, 1, 2]
    assert capture.held == 0
    assert fidelity._waiting == 0


def test_a_call_that_fails_is_not_compared_and_the_next_one_is(
    reference: str, instrument: Instrument, exported: Exported
) -> None:
    """The copies of a failed call are let go, nothing is counted, and a later call takes its turn."""
    instrument(reference={"*": reference})
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        session.run(None, {"x": np.ones((2, 4), np.float32)})
    assert pipeline_of(exported).capture.held == 0
    evaluate(exported, lambda: session.run(None, {"x": X}))
    assert outcomes(exported) == {"evaluated": 1}


def test_samples_past_the_queue_are_dropped_and_counted(
    reference: str, instrument: Instrument, exported: Exported
) -> None:
    """With the reference at a standstill, samples wait up to the limit; more are dropped, and no call waits."""
    instrument(reference={"*": reference}, reference_queue=2)
    first = onnxruntime.InferenceSession(doubling("first"), providers=["CPUExecutionProvider"])
    evaluate(exported, lambda: first.run(None, {"x": X}))
    process = reference_process(exported)
    process.send_signal(signal.SIGSTOP)
    try:
        sessions = [
            onnxruntime.InferenceSession(doubling(f"model{i}"), providers=["CPUExecutionProvider"])
            for i in range(4)
        ]
        for session in sessions:
            session.run(None, {"x": X})
        assert worker.flush(60)
        assert outcomes(exported) == {"evaluated": 1, "dropped_queue": 2}
        assert pipeline_of(exported).capture.held == 2 * 2 * X.nbytes
    finally:
        process.send_signal(signal.SIGCONT)
    settle()
    assert outcomes(exported) == {"evaluated": 3, "dropped_queue": 2}
    assert pipeline_of(exported).capture.held == 0


def test_threads_sample_and_give_back_alike(
    reference: str, instrument: Instrument, exported: Exported
) -> None:
    """Eight threads on one session with checks and comparisons at any rate: exact counts, no byte held after."""
    instrument(reference={"*": reference}, reference_budget=1.0, check_budget=1.0, queue_size=4)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])

    def run() -> None:
        for _ in range(200):
            session.run(None, {"x": X})

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settle()
    assert exported.count() == 1600
    assert outcomes(exported)["evaluated"] >= 1
    assert pipeline_of(exported).capture.held == 0
