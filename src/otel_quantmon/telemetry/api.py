"""The types of OpenTelemetry's API that other rooms have in their signatures."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanContext, TracerProvider

__all__ = ["Context", "MeterProvider", "Span", "SpanContext", "TracerProvider"]
