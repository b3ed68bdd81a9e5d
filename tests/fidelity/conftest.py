"""Ends the references' processes of a test with it: its providers, which hold them, live as long as pytest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_quantmon.probe.observer import observers
from otel_quantmon.probe.worker import reference_worker

from .waiting import SECONDS


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    yield
    for observer in observers():
        reference_worker.submit(observer.references.process.close)
    assert reference_worker.flush(SECONDS)
