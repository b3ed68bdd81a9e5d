"""Events: log records with a name, through the SDK's logs where there is one."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Mapping
from time import time_ns
from typing import Any

from opentelemetry import _logs
from opentelemetry.trace import INVALID_SPAN_ID, INVALID_TRACE_ID, SpanContext, TraceFlags

from otel_quantmon import semconv
from otel_quantmon._version import __version__
from otel_quantmon.guard import internal_error

__all__ = ["Events"]

# Before the API had names for events, convention put them there.
_EVENT_NAME = "event.name"


class Events:
    """Emits events to a logger provider, None for the global one, also one that is set later."""

    __slots__ = ("_logger", "_of", "logger_provider")

    def __init__(self, logger_provider: Any = None) -> None:
        self.logger_provider = logger_provider
        self._logger: Any = None
        self._of: Any = None

    @property
    def heard(self) -> bool:
        """True if there is an SDK to take events, and it has somebody to hand them on to.

        The API's own providers drop all, and have nothing to flush. So does that of an SDK without a processor, which
        `opentelemetry-instrument` makes where no exporter of logs is named.
        """
        provider: Any = self.logger_provider or _logs.get_logger_provider()
        # Where all releases of the SDK so far have them; a provider that has them elsewhere is believed.
        within = getattr(provider, "_multi_log_record_processor", None)
        return hasattr(provider, "force_flush") and getattr(within, "_log_record_processors", None) != ()

    def emit(
        self,
        event: semconv.Event,
        attributes: Mapping[str, Any],
        body: str | bytes,
        *,
        warning: bool,
        span: SpanContext | None = None,
    ) -> bool:
        """Emit ``event`` if it is heard. Attributes that are None or not finite are left out.

        Returns:
            True if it was given to an SDK.
        """
        try:
            if not self.heard:
                return False
            provider = self.logger_provider or _logs.get_logger_provider()
            if self._of is not provider:
                self._of, self._logger = provider, provider.get_logger(semconv.SCOPE, __version__)
            exported = {name: value for name, value in attributes.items() if _exportable(value)}
            self._logger.emit(_record(provider, event.name, exported, body, warning, span))
        except Exception as error:  # noqa: BLE001  the logs API is in development: what fails costs the event
            internal_error(error)
            return False
        return True


def _exportable(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _record(
    provider: Any,
    name: str,
    attributes: dict[str, Any],
    body: str | bytes,
    warning: bool,
    span: SpanContext | None,
) -> Any:
    """A record as this release of the SDK takes it: up to 1.38 one of its own class, later the API's."""
    now = time_ns()
    severity = _logs.SeverityNumber.WARN if warning else _logs.SeverityNumber.INFO
    fields: dict[str, Any] = {
        "timestamp": now,
        "observed_timestamp": now,
        "severity_number": severity,
        "severity_text": severity.name,
        "body": body,
        "attributes": attributes,
    }
    # Whoever has a provider that can be flushed has imported the SDK.
    kind: Any = getattr(sys.modules.get("opentelemetry.sdk._logs"), "LogRecord", _logs.LogRecord)
    known = inspect.signature(kind.__init__).parameters
    if "event_name" in known:
        fields["event_name"] = name
    else:
        attributes[_EVENT_NAME] = name
    if "resource" in known:
        fields["resource"] = getattr(provider, "resource", None) or getattr(provider, "_resource", None)
    if span is not None:
        fields |= {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "trace_flags": span.trace_flags,
        }
    elif "trace_id" in known and "context" not in known:
        # Before 1.35 the SDK asks nobody for the span, and the encoder fails with all records beside it at a None.
        fields |= {"trace_id": INVALID_TRACE_ID, "span_id": INVALID_SPAN_ID, "trace_flags": TraceFlags(0)}
    return kind(**fields)
