"""Spans of inferences, made with their real start and end once a call is over.

By then it is known whether a span is worth its cost, and all attributes, the error and the output's shapes among
them, can be given at its start, where a sampler sees them. Nothing runs inside an inference that could want
it as a parent, so no context is switched, which is a third of the cost of a span.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter_ns, time_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    NoOpTracer,
    ProxyTracer,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    get_tracer,
    get_tracer_provider,
)
from opentelemetry.util.types import AttributeValue

from otel_quantmon import semconv
from otel_quantmon._version import __version__
from otel_quantmon.guard import internal_error
from otel_quantmon.telemetry.direct_span import DirectSpans, SpanTemplate
from otel_quantmon.telemetry.span_proof import proof

__all__ = ["SpanTemplate", "Spans", "unix_time"]

# What a span costs after its end, in the batch processor and the OTLP encoder, over what it costs its caller:
# 145 µs against 25 µs of start and end, of which about half overlaps with the model (benchmarks/overhead.py).
_EXPORT_FACTOR = 3


class Spans:
    """Makes spans with ``tracer_provider``, or with the global one.

    Args:
        tracer_provider: None for the global one, also one that is set later.
        in_background: A function that runs a job on another thread than the application's.

    Attributes:
        proxied: True if the tracer is the API's, in place of that of a provider that is not yet set.
        cost: Nanoseconds that a span without a parent has lately cost, its export included.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        in_background: Callable[[Callable[[], object]], object],
    ) -> None:
        self._tracer: Tracer
        try:
            self._tracer = get_tracer(
                semconv.SCOPE, __version__, tracer_provider=tracer_provider, schema_url=semconv.SCHEMA_URL
            )
        except Exception as error:  # noqa: BLE001  a provider that fails costs the spans, and nothing else
            self._tracer = _plain_tracer(tracer_provider, error)
        self.proxied = isinstance(self._tracer, ProxyTracer)
        self.cost = 100_000.0 * _EXPORT_FACTOR
        self._in_background = in_background
        # None until there is a tracer.
        self._direct: DirectSpans | None = None

    def recording(self) -> bool:
        """Return False while spans go nowhere: no SDK, no provider yet, or one that is switched off."""
        # The API's proxy for a tracer forwards to this, which is a no-op until there is a provider.
        tracer: Any = self._tracer
        if self.proxied:
            try:
                _ = tracer._tracer
            except Exception as error:  # noqa: BLE001  as above, of a provider that is set late
                self._tracer = tracer = _plain_tracer(None, error)
                self.proxied = False
        # By type: the check of an abstract class for instances takes longer than all the rest.
        return type(tracer._tracer if self.proxied else tracer) is not NoOpTracer

    def start(
        self, name: str, context: Context, attributes: Mapping[str, AttributeValue], start: int | None = None
    ) -> Span:
        """Start the span of an inference; ``start`` in nanoseconds since the epoch, None for now."""
        return self._tracer.start_span(name, context, SpanKind.INTERNAL, attributes, None, start)

    def make(
        self, template: SpanTemplate, context: Context, parent: Span | None, start: int, end: int
    ) -> SpanContext | None:
        """Return the span of an inference that succeeded; both times and what is returned as below.

        Args:
            template: Template of the span.
            context: Context that the inference was run in.
            parent: The span in ``context``, None if there is none.
            start, end: Start and end of the inference.
        """
        direct = self._direct
        if direct is not None and proof.given:
            if template.recurs:
                above = None if parent is None else parent.get_span_context()
                if direct.takes(above):
                    return direct.make(template, context, above, start, end)
        else:
            self._prepare()
        template.recurs = True
        span = self._tracer.start_span(
            template.name, context, SpanKind.INTERNAL, template.attributes, None, start
        )
        span.end(end)
        made = span.get_span_context()
        return made if made.trace_flags & TraceFlags.SAMPLED else None

    def _prepare(self) -> None:
        """Have it proven that spans can be made directly, as soon as there is a tracer whose spans that concerns."""
        if self._direct is None:
            tracer: Any = self._tracer
            tracer = tracer._tracer if self.proxied else tracer
            if type(tracer) is NoOpTracer:
                return
            self._direct = DirectSpans(tracer)
        if self._direct.possible:
            proof.ask(self._in_background)

    def end(
        self, span: Span, end: int, error: BaseException | None, error_type: str | None
    ) -> SpanContext | None:
        """End ``span`` at ``end``, in nanoseconds since the epoch; its context if it was sampled, for an exemplar."""
        if error is not None:
            span.record_exception(error, timestamp=end)
        if error_type is not None:
            span.set_status(
                Status(StatusCode.ERROR, None if error is None else f"{type(error).__name__}: {error}")
            )
        span.end(end)
        context = span.get_span_context()
        return context if context.trace_flags.sampled else None

    def spent(self, cost: int) -> None:
        """Learn from a root span that took ``cost`` nanoseconds to make."""
        self.cost += 0.1 * (cost * _EXPORT_FACTOR - self.cost)


def _plain_tracer(provider: TracerProvider | None, error: Exception) -> Tracer:
    """Return the tracer of a provider that failed with ``error``, asked as the first releases of the API did."""
    try:
        return (provider or get_tracer_provider()).get_tracer(semconv.SCOPE, __version__)
    except Exception:  # noqa: BLE001  the first failure says more
        internal_error(error)
        return NoOpTracer()


def unix_time(instant: int) -> int:
    """Nanoseconds since the epoch at a moment of `time.perf_counter_ns` not long ago.

    The two clocks cannot be read at once. A thread that is stopped in between makes the answer too late, never too
    early, so that no span ends before it began; one span's times are to come from one reading.
    """
    ago = perf_counter_ns() - instant
    return time_ns() - ago
