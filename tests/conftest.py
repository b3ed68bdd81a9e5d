"""What the tests of the instrumentation share: providers of their own, and an end to what they switch on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from exported import Exported

from otel_quantmon import ONNXRuntimeInstrumentor, Settings, TFLiteInstrumentor

# An example may take long on a busy machine: that is no property of what is tested.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# Shells have what runs in the background ignore it, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    others = (
        "request_hook",
        "response_hook",
        "on_anomaly",
        "sample_hook",
        "tracer_provider",
        "meter_provider",
        "logger_provider",
    )

    def instrument(**given: Any) -> None:
        arguments = exported.providers | {name: given.pop(name) for name in others if name in given}
        # Judged when a test asks for it, and not in between.
        usual = {"spans": "all", "warmup": 0, "baseline_calls": 1, "judgement_interval": 3600.0}
        settings = Settings(**(usual | given))
        for instrumentor in instrumentors:
            instrumentor.instrument(settings=settings, **arguments)

    yield instrument
    for instrumentor in instrumentors:
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
