"""Reading the context in the short way tells what the API's functions tell."""

from __future__ import annotations

import pytest
from opentelemetry import context as api
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from otel_quantmon.telemetry import context

SPAN = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))


def test_the_current_context_is_the_apis() -> None:
    """Within a span and without one, and by the short way: else every call would pay for the long one."""
    assert context.current_context is not api.get_current
    assert context.current_context() is api.get_current()
    with trace.use_span(SPAN):
        assert context.current_context() is api.get_current()


@pytest.mark.parametrize("short", [True, False])
def test_the_parent_is_the_current_span(short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """None without one; also where an API keeps it under another key."""
    if not short:
        monkeypatch.setattr(context, "_SPAN_KEY", None)
    assert context.parent_in(api.Context()) is None
    assert context.parent_in(trace.set_span_in_context(SPAN)) is SPAN


def test_another_implementation_of_the_context_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without the variable, as OTEL_PYTHON_CONTEXT may choose, is read through the API."""
    monkeypatch.setattr(api, "_RUNTIME_CONTEXT", object())
    assert context._reader_of_context() is api.get_current


def test_suppression_is_seen() -> None:
    """As the instrumentation package sets it."""
    assert not context.suppressed(api.get_current())
    with suppress_instrumentation():
        assert context.suppressed(api.get_current())
