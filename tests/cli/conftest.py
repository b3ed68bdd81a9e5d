"""Files that the commands are run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_models import digits_inputs, magika_inputs
from runtimes.models import doubling


@pytest.fixture
def magika_file(tmp_path):
    """Twelve real inputs of magika, as one batch."""
    path = tmp_path / "magika.npy"
    np.save(path, magika_inputs(12))
    return path


@pytest.fixture
def digits_file(tmp_path):
    """Images as the full-integer net takes them, eight calls of one image."""
    path = tmp_path / "digits.npz"
    codes = np.clip(np.round(digits_inputs(8) * 255) - 128, -128, 127).astype(np.int8)
    np.savez(path, **{f"{number}/serving_default_image:0": code[None] for number, code in enumerate(codes)})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the programs run: with a model."""
    (tmp_path / "net.onnx").write_bytes(doubling())
    return tmp_path
