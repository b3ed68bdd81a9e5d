"""What several modules of this folder have in common."""

from __future__ import annotations

import pytest

from detection.clock import Clock
from otel_quantmon.detection.monitor import Monitor


@pytest.fixture
def clock() -> Clock:
    return Clock(Monitor(1.0))
