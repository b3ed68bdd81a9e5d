"""What is made once for the spans of a template, and when."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from otel_quantmon.telemetry import direct_span
from otel_quantmon.telemetry.direct_span import SpanTemplate
from otel_quantmon.telemetry.span_proof import proof
from otel_quantmon.telemetry.spans import Spans

ATTRIBUTES = {"model": "a model", "shapes": ("x:1x3", "y:2"), "warmup": True, "batch": 8}


def test_a_template_of_one_span_has_no_mould(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would cost more than the span; the second span of a template has one, which makes the others."""
    made: list[Any] = []

    class Noting(direct_span.Mould):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(direct_span, "Mould", Noting)
    monkeypatch.setattr(proof, "given", True)
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans(provider, lambda job: job())
    # There is a tracer from the first span on.
    spans.make(SpanTemplate("first", ATTRIBUTES), Context(), None, 1, 2)
    for _ in range(3):
        spans.make(SpanTemplate("alone", ATTRIBUTES), Context(), None, 1, 2)
    assert made == []
    recurring = SpanTemplate("recurring", ATTRIBUTES)
    for _ in range(3):
        assert spans.make(recurring, Context(), None, 1, 2) is not None
    assert len(made) == 1
    finished = exporter.get_finished_spans()
    provider.shutdown()
    assert [span.name for span in finished] == ["first", *["alone"] * 3, *["recurring"] * 3]
    assert {tuple((span.attributes or {}).items()) for span in finished} == {tuple(ATTRIBUTES.items())}


def test_moulds_share_their_classes() -> None:
    """A class for each would stay until a collection of garbage finds it."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("scope")
    first, second = (direct_span.Mould(tracer, name, ATTRIBUTES, None) for name in ("first", "second"))
    context = SpanContext(3, 5, is_remote=False)
    one, other = (mould.cast(context, None, 1, 2) for mould in (first, second))
    assert type(one) is type(other)
    for container, elements in (("_attributes", "_dict"), ("_events", "_dq"), ("_links", "_dq")):
        kinds = {type(getattr(getattr(span, container), elements)) for span in (one, other)}
        assert len(kinds) == 1
