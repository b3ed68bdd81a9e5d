"""What the tests of fidelity share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from otel_quantmon.probe.observer import observers
from otel_quantmon.probe.worker import reference_worker

from .waiting import SECONDS


@pytest.fixture
def instrument(instrument: Callable[..., None]) -> Callable[..., None]:
    """As elsewhere, but without a baseline, which a busy machine's next call may be far from."""
    return lambda **given: instrument(**({"baseline_calls": 1_000_000} | given))


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    """Ends the references' processes with the test: what refers to them lives as long as its providers."""
    yield
    for observer in observers():
        reference_worker.submit(observer.references.process.close)
    assert reference_worker.flush(SECONDS)
