"""Which calls are checked: as many as the budget pays for, spread over time, and a few of those too short to pay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from runtimes.models import doubling

from fidelity.waiting import fidelity_of, pipeline_of, settle, until
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.probe.sampling import LeastChecks, Sampler
from otel_quantmon.process.worker import worker

Instrument = Callable[..., None]

X = {"x": np.ones((2, 3), np.float32)}


def session() -> Any:
    return onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])


def sampler_of(exported: Exported) -> Sampler:
    """That of the only method of the only model."""
    ((state,),) = (probe.calls() for probe in pipeline_of(exported).probes())
    assert isinstance(state, CallState)
    assert state.sampler is not None
    return state.sampler


def checks(exported: Exported) -> int:
    """Checks so far, by the observations that each has left or will leave."""
    streams = fidelity_of(exported).signals.streams
    return sum(reading.kind == "nonfinite" for reading in list(streams._readings))


def unjudged(instrument: Instrument, **settings: Any) -> None:
    """Instrument so that no judgement comes in between, and no call state is full."""
    instrument(judgement_interval=3600.0, queue_size=100_000, spans="none", **settings)


def test_there_are_so_many_checks_beyond_the_budget_and_no_more() -> None:
    """What is not wanted is not taken, and what was not there is not given."""
    least = LeastChecks()
    assert least.take(-3.0) == 0.0
    assert least.take(0.5) == 0.5
    assert least.take(1000.0) <= 20.0


@pytest.mark.parametrize(("budget", "expected"), [(1e-9, True), (0.0, False)])
def test_a_model_too_small_to_pay_is_checked_all_the_same(
    budget: float, expected: bool, instrument: Instrument, exported: Exported
) -> None:
    """One call in a hundred, whatever it costs; unless there is to be no check at all."""
    unjudged(instrument, check_budget=budget)
    model = session()
    for _ in range(500):
        model.run(None, X)
    settle()
    sampler = sampler_of(exported)
    assert not sampler.due  # the first call was checked, and nothing has been recorded since
    worker.submit(pipeline_of(exported).recorder.take)
    settle()
    assert sampler.due is expected


def test_checks_are_spread_over_as_long_as_the_last_records_took(
    instrument: Instrument, exported: Exported
) -> None:
    """Eight are due, and the next call alone is checked: calls in a row are much alike."""
    unjudged(instrument)
    model = session()
    model.run(None, X)
    settle()
    before, sampler = checks(exported), sampler_of(exported)
    sampler._pairs, sampler._pair = 0, None  # two in a row have shown how much they are alike
    sampler._at -= 10_000.0  # the records are of a long time
    sampler.add_budget(1e12, 1)
    for _ in range(50):
        model.run(None, X)
    settle()
    # The next one comes in an eighth of a second at the earliest.
    assert checks(exported) - before >= 1
    until(lambda: checks(exported) - before >= 8, lambda: model.run(None, X))
    settle()
    for _ in range(50):
        model.run(None, X)
    settle()
    assert checks(exported) - before == 8


def test_the_check_of_a_small_sample_lets_the_next_calls_pass_first(
    instrument: Instrument, exported: Exported
) -> None:
    """It takes longer than the call, and would have the next one wait for the interpreter."""
    unjudged(instrument)
    model = session()
    before: list[int] = []

    def call_and_look() -> None:
        had = checks(exported)
        sampler_of(exported).check()
        model.run(None, X)
        worker.submit(lambda: before.append(checks(exported) - had))

    model.run(None, X)
    settle()
    # Where this thread has had to wait for the processor in between, the check may have come first.
    until(lambda: 0 in before, call_and_look)


def test_a_suspicion_has_calls_checked_one_after_the_other(
    instrument: Instrument, exported: Exported
) -> None:
    """A burst of 64, each as soon as the check before is over, and once in a while only."""
    unjudged(instrument)
    model = session()
    model.run(None, X)
    settle()
    before, assessment = checks(exported), fidelity_of(exported)
    assessment.signals.autocorrelation.alike = False
    assessment.check_closely(1000.0)
    until(lambda: checks(exported) - before >= 64, lambda: model.run(None, X))
    assessment.check_closely(1009.0)
    for _ in range(10):
        model.run(None, X)
        settle()
    assert checks(exported) - before <= 65
    assessment.check_closely(1011.0)
    until(lambda: checks(exported) - before >= 70, lambda: model.run(None, X))
