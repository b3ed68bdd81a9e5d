"""What the tests of samples that leave share."""

from __future__ import annotations

import numpy as np
import pytest
import real_models


@pytest.fixture
def features() -> np.ndarray:
    """Of two calls of the model."""
    return real_models.magika_inputs(2)
