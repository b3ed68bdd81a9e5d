"""What `instrument()` does with arguments that it does not take: it says so, and goes on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from exported import Exported

from lifecycle.models import X, one_op_session
from otel_quantmon import semconv
from otel_quantmon.settings import Settings


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What this package has warned of so far, or worse."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("otel_quantmon") and record.levelno >= logging.WARNING
    ]


def test_a_misspelt_keyword_is_warned_of_once(
    exported: Exported, instrumentor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One line names all that are not known; models are observed without them, through the given providers."""
    instrumentor.instrument(**exported.providers, requesthook=print, timeout=1, settings=Settings(warmup=0))
    one_op_session().run(None, X)
    (warning,) = warned(caplog)
    assert "ONNXRuntimeInstrumentor.instrument() has no requesthook, timeout" in warning
    assert "settings=Settings(...)" in warning
    assert exported.calls() == 1


def test_what_opentelemetry_passes_is_not_warned_of(
    exported: Exported, instrumentor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """`opentelemetry-instrument` passes one of these, by its release."""
    instrumentor.instrument(**exported.providers, skip_dep_check=True)
    instrumentor.uninstrument()
    instrumentor.instrument(**exported.providers)
    assert warned(caplog) == []


@pytest.mark.parametrize(
    "settings", [{"warmup": 1}, "quantmon.toml", Settings], ids=["dict", "path", "class"]
)
def test_settings_of_another_type_are_not_taken(
    settings: Any,
    exported: Exported,
    instrumentor: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    production: None,
) -> None:
    """One warning says what to pass; the environment's settings hold, and models are observed."""
    monkeypatch.setenv("QUANTMON_SPANS", "all")
    instrumentor.instrument(**exported.providers, settings=settings)
    one_op_session().run(None, X)
    (warning,) = warned(caplog)
    assert f"takes a Settings, such as Settings(timeout=0.2), and no {type(settings).__name__}" in warning
    (span,) = exported.exporter.get_finished_spans()
    assert (span.attributes or {})[semconv.RUNTIME_NAME] == "onnxruntime"
