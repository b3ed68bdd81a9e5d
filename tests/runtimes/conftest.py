"""What tests of TensorFlow Lite's interpreter share: each package that carries it and is installed here."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError
from types import ModuleType

import pytest
import real_models


@pytest.fixture(
    scope="module",
    params=[
        "ai_edge_litert.interpreter",
        "tflite_runtime.interpreter",
        "tensorflow.lite.python.interpreter",
    ],
)
def module(request: pytest.FixtureRequest) -> ModuleType:
    """A module with `Interpreter`; TensorFlow's costs seconds to import, once."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip(request.param, exc_type=ModuleNotFoundError)


@pytest.fixture
def runtime(module: ModuleType) -> str:
    """Value of ``quantmon.runtime.name`` for `module`."""
    return "litert" if module.__name__.startswith("ai_edge_litert") else "tflite"


@pytest.fixture
def digits() -> str:
    """A full-integer net whose batch is dynamic."""
    try:
        return str(real_models.digits_tflite_full_integer())
    except (PackageNotFoundError, RuntimeError):
        pytest.skip("TensorFlow is not installed here to convert the model")
