"""The SDK of a command of the project's own, configured by the standard variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import quote

from opentelemetry.metrics import get_meter_provider

__all__ = ["begin_export", "is_export_asked_for"]

_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"
_INSTANCE = "service.instance.id"

_ASKING = ("OTEL_EXPORTER_", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")


def is_export_asked_for(environment: Mapping[str, str]) -> bool:
    """Return True if a variable names an exporter, or something of one, and nobody has configured an SDK yet."""
    # The API's own providers have nothing to flush.
    configured = hasattr(get_meter_provider(), "force_flush")
    return not configured and any(name.startswith(_ASKING) for name in environment)


def begin_export(service: str, instance: str | None = None) -> None:
    """Configure the SDK by the variables of the environment, metrics and events alone.

    Args:
        service: Value of ``OTEL_SERVICE_NAME`` where that is not set.
        instance: Value of ``service.instance.id`` where ``OTEL_RESOURCE_ATTRIBUTES`` has none; None for one that the
            SDK makes up.
    """
    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    attributes = os.environ.get(_ATTRIBUTES, "")
    if instance is not None and f"{_INSTANCE}=" not in attributes:
        own = f"{_INSTANCE}={quote(instance)}"
        os.environ[_ATTRIBUTES] = f"{attributes},{own}" if attributes else own
    os.environ.setdefault("OTEL_TRACES_EXPORTER", "none")
    distro: Any = import_module("opentelemetry.distro")
    distro.OpenTelemetryDistro().configure()
    distro.OpenTelemetryConfigurator().configure()
