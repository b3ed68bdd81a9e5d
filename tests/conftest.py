"""What the tests of the instrumentation share: providers of their own, and an end to what they switch on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from exported import Exported

from otel_quantmon import ONNXRuntimeInstrumentor, Settings, TFLiteInstrumentor


@pytest.fixture
def exported() -> Iterator[Exported]:
    """Providers that no other test reports to."""
    exported = Exported()
    yield exported
    exported.shut_down()


@pytest.fixture
def instrument(exported: Exported) -> Iterator[Callable[..., None]]:
    """Switches both instrumentors on for the providers of `exported`; they are switched off after the test.

    Without other settings every call has a span and is warm, and one call is enough for a baseline. The
    arguments of `instrument` that are not settings, such as hooks and providers, are given under their names.
    """
    instrumentors = ONNXRuntimeInstrumentor(), TFLiteInstrumentor()
    others = ("request_hook", "response_hook", "tracer_provider", "meter_provider")

    def instrument(**given: Any) -> None:
        arguments = exported.providers | {name: given.pop(name) for name in others if name in given}
        settings = Settings(**({"spans": "all", "warmup": 0, "baseline_calls": 1} | given))
        for instrumentor in instrumentors:
            instrumentor.instrument(settings=settings, **arguments)

    yield instrument
    for instrumentor in instrumentors:
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
