"""What the tests of recording share."""

from __future__ import annotations

import pytest
from exported import Exported

from otel_quantmon.pipeline import Pipeline
from recording.engines import observer_with


@pytest.fixture
def pipeline(exported: Exported) -> Pipeline:
    """Of calls that get no span, in short queues."""
    return observer_with(exported, spans="none", warmup=0, queue_size=16)
