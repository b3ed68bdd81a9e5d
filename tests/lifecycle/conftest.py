from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lifecycle.sink import Sink
from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.fixture
def instrumentor() -> Iterator[ONNXRuntimeInstrumentor]:
    """ONNX Runtime's, switched off again after the test."""
    used = ONNXRuntimeInstrumentor()
    yield used
    _off(used)


@pytest.fixture
def tflite_instrumentor() -> Iterator[TFLiteInstrumentor]:
    """TFLite's, switched off again after the test."""
    used = TFLiteInstrumentor()
    yield used
    _off(used)


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard keeps failures of ours to itself, as it does outside of tests."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")


def _off(instrumentor: Any) -> None:
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
