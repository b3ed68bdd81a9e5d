"""What became of one call."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from otel_quantmon.models.description import IO
from otel_quantmon.semconv import AnomalyType
from otel_quantmon.telemetry.api import SpanContext

__all__ = ["TIMEOUT", "Outcome", "OutcomeRecord", "error_type_of"]

TIMEOUT = "timeout"
"""Value of ``error.type`` for a call that ran past its timeout."""


class Outcome(NamedTuple):
    """What there is to say of a call beyond its times and shapes; of most calls there is nothing.

    Attributes:
        error: Exception that the call raised, None once its span has been made.
        error_type: Value of ``error.type``, also for a call that succeeded too late; None for a success.
        warmup: True if the call state was not warm.
        anomaly: Value of ``quantmon.anomaly.type`` for the first call after an anomaly was found.
        span: Context of the sampled span that shows the call, for an exemplar.
        withheld: True if the span budget was what kept the call from having a span.
        failed: True if the call raised, and so has no output; a call that only overran its timeout has one.
        overhead: Nanoseconds that the observation took around the call.
    """

    error: BaseException | None = None
    error_type: str | None = None
    warmup: bool = False
    anomaly: AnomalyType | None = None
    span: SpanContext | None = None
    withheld: bool = False
    failed: bool = False
    overhead: int = 0

    @property
    def notable(self) -> bool:
        """True if the call gets a span whatever the budget says."""
        return self.error_type is not None or self.anomaly is not None


OutcomeRecord: TypeAlias = tuple[int, int, IO | None, Outcome]
"""A finished call of which there is more to say than its times: its end by `time.perf_counter_ns`, its duration in
nanoseconds, what it moved (None where that is fixed), and its outcome."""


def error_type_of(error: BaseException) -> str:
    """Return the name of the error's class, with its module unless that is built in."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
