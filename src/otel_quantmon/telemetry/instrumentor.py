"""The base of OpenTelemetry's instrumentors."""

from __future__ import annotations

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

__all__ = ["BaseInstrumentor"]
