"""A finished span that is made directly, without being started and ended.

The SDK's `Tracer.start_span` and `Span.end` make an object that can be written to from many threads, then a second one
that can be read: 13 µs for a span of which all is known beforehand. Here the second one is made alone, as a copy of a
span that the SDK has made once of the same name and attributes, and is handed to the processors: 4 µs. What of it is
slow for an exporter to read, its resource's hash above all, is of a class that answers faster.

The way there leads through private parts of the SDK, named here and in `span_mould`, so it is taken only where it is
proven (`span_proof`), and only with the SDK's own tracer, samplers and processors, as they are known here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import FunctionType
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import AttributeValue

from otel_quantmon.guard import pass_on
from otel_quantmon.telemetry.span_mould import Mould, hashed

__all__ = ["DirectSpans", "SpanTemplate"]

_logger = logging.getLogger("otel_quantmon")

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
# Not in the API before 1.42.
_RANDOM = getattr(TraceFlags, "RANDOM_TRACE_ID", 0)
_SAMPLED_AND_RANDOM = TraceFlags(TraceFlags.SAMPLED | _RANDOM)

# All that the SDK's tracer has had in the releases from 1.30 to 1.45.
_KNOWN_STATE = {
    "sampler",
    "resource",
    "span_processor",
    "id_generator",
    "instrumentation_info",
    "_span_limits",
    "_instrumentation_scope",
    "_tracer_config",
    "_tracer_metrics",
    "_tracer_provider",
}


class SpanTemplate:
    """What the spans of one kind have in common. Not to be changed but for `recurs`.

    Attributes:
        name: Name of the spans.
        attributes: Attributes of the spans, before the limits of a provider.
        recurs: True once a span was made of it. A mould costs as much as two spans of the SDK, which one span does not
            pay for.
    """

    __slots__ = ("_made", "attributes", "name", "recurs")

    def __init__(self, name: str, attributes: Mapping[str, AttributeValue]) -> None:
        self.name = name
        self.attributes = attributes
        self.recurs = False
        self._made: tuple[_State, Mould] | None = None

    def mould(self, state: _State) -> Mould:
        """Return the span of this template that a tracer in ``state`` makes."""
        made = self._made
        if made is None or made[0] is not state:
            # Threads that come here at once make the same one twice.
            made = self._made = state, Mould(state.tracer, self.name, self.attributes, state.resource)
        return made[1]


class DirectSpans:
    """Makes the spans of ``tracer`` directly, where that is possible.

    Args:
        tracer: Tracer of the SDK, or any other.
    """

    __slots__ = ("_state", "_tracer")

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._state = _State(tracer)

    @property
    def possible(self) -> bool:
        """True unless the tracer, or what it has, is such as is not known here."""
        return self._state.known

    def takes(self, parent: SpanContext | None) -> bool:
        """Return True if a span under ``parent`` may be made directly now."""
        state = self._state
        if not state.holds():
            # A processor was added, the resource of a forked process was set, or the like.
            state = self._state = _State(self._tracer)
        return (
            state.known
            and (parent is None or type(parent) is SpanContext)
            and (state.enabled is None or bool(state.enabled()))
        )

    def make(
        self, template: SpanTemplate, context: Context, parent: SpanContext | None, start: int, end: int
    ) -> SpanContext | None:
        """Make a span as `Tracer.start_span` and `Span.end` would, for a parent that is taken.

        Args:
            template: Template of the span.
            context: Context that it is made in.
            parent: Context of the span in ``context``, None if there is none.
            start, end: Times in nanoseconds since the epoch.

        Returns:
            Its context, None if it was not sampled.

        Raises:
            Exception: Whatever a processor raises.
        """
        state = self._state
        generator = state.generator
        random = 0
        if parent is None or not parent[5]:
            parent = None
            trace_id = generator.generate_trace_id()
            if _RANDOM and generator.is_trace_id_random():
                random = _RANDOM
        else:
            trace_id = parent[0]
            random = parent[3] & _RANDOM
        if parent is not None and state.samples_local and parent[3] & 1 and not parent[2]:
            decision: Any = state.sample
            trace_state = parent[4]
        else:
            result = state.sampler.should_sample(
                context, trace_id, template.name, SpanKind.INTERNAL, template.attributes, ()
            )
            decision = result.decision
            trace_state = result.trace_state
        span_id = generator.generate_span_id()
        counted = None if state.metrics is None else state.metrics.start_span(parent, decision)
        if decision is not state.sample:
            return None
        flags = _SAMPLED_AND_RANDOM if random else _SAMPLED
        made = SpanContext(trace_id, span_id, False, flags, trace_state)
        span = template.mould(state).cast(made, parent, start, end)
        if counted is not None:
            counted()
        state.processor.on_end(span)
        return made


class _State:
    """A tracer as it was at one moment.

    Attributes:
        tracer: The tracer itself.
        known: False if its spans must not be made directly.
        sampler, generator, processor: Sampler, id generator and span processor of the tracer.
        metrics: Metrics of the tracer's spans, None where the SDK has none.
        resource: What stands for the tracer's resource, None where spans are not made directly.
        enabled: Tells whether the tracer is switched on, None where a tracer has no switch.
        sample: The decision that a span is recorded and sampled.
        samples_local: True if that is the decision for each child of a local span that is sampled.
    """

    __slots__ = (
        "_before",
        "_now",
        "_processors",
        "enabled",
        "generator",
        "known",
        "metrics",
        "processor",
        "resource",
        "sample",
        "sampler",
        "samples_local",
        "tracer",
    )

    def __init__(self, tracer: Any) -> None:
        self.tracer = tracer
        self.resource: Any = None
        # Another's may have none.
        self._now: dict[str, Any] = getattr(tracer, "__dict__", {})
        self._before = self._now.copy()
        self.processor: Any = self._before.get("span_processor")
        self._processors = getattr(self.processor, "_span_processors", None)
        self.sampler: Any = self._before.get("sampler")
        self.generator: Any = self._before.get("id_generator")
        self.metrics: Any = self._before.get("_tracer_metrics")
        self.enabled: Any = getattr(tracer, "_is_enabled", None)
        self.sample: Any = None
        self.samples_local = False
        try:
            self.known = _is_known_tracer(tracer) and _are_known_processors(self.processor)
            if self.known:
                from opentelemetry.sdk.trace.sampling import Decision

                self.sample = Decision.RECORD_AND_SAMPLE
                self.known = _is_known_sampler(self.sampler)
                self.samples_local = _samples_local_children(self.sampler)
                if self.known:
                    self.resource = hashed(self._before["resource"])
                if type(self.metrics).__name__ == "NoOpTracerMetrics":
                    self.metrics = None
        except Exception as error:
            pass_on(error)
            _logger.debug("the spans of %r are not made directly", tracer, exc_info=True)
            self.known = False

    def holds(self) -> bool:
        """Return True as long as nothing of the tracer was replaced."""
        return (
            getattr(self.processor, "_span_processors", None) is self._processors
            and self._now == self._before
        )


def _is_known_tracer(tracer: Any) -> bool:
    # Not `__class__`, which a wrapper feigns, here and below.
    kind = cast("type[object]", type(tracer))
    if kind.__module__ != "opentelemetry.sdk.trace" or kind.__name__ != "Tracer":
        return False
    from opentelemetry.sdk import trace as sdk

    skipped = sdk.Tracer.start_span, sdk.Span.start, sdk.Span.end, sdk.Span.__init__
    return (
        kind is sdk.Tracer
        and tracer.__dict__.keys() <= _KNOWN_STATE
        # An application or another tool may have wrapped them, and then wants them called.
        and all(_is_of(sdk, function) for function in skipped)
    )


def _is_of(module: Any, function: Any) -> bool:
    return type(function) is FunctionType and function.__globals__ is vars(module)


def _are_known_processors(processor: Any) -> bool:
    from opentelemetry.sdk import trace as sdk
    from opentelemetry.sdk.trace import export

    if type(processor) is not sdk.SynchronousMultiSpanProcessor:
        return False
    # What these do at the start and before the end of a span is nothing, unless somebody has put something there.
    processors: tuple[Any, ...] = processor.__dict__["_span_processors"]
    for one in processors:
        kind = cast("type[object]", type(one))
        if kind not in (export.BatchSpanProcessor, export.SimpleSpanProcessor):
            return False
        for name in ("on_start", "_on_ending"):
            function: Any = getattr(kind, name, None)
            if name in vars(one) or not (
                function is None or _is_of(export, function) or function is getattr(sdk.SpanProcessor, name)
            ):
                return False
    return True


def _is_known_sampler(sampler: Any) -> bool:
    """Return True if ``sampler`` decides by trace identifier and parent alone, and adds nothing."""
    from opentelemetry.sdk.trace import sampling

    decide = _decides(sampler)
    if not _is_of(sampling, decide) or "should_sample" in vars(sampler):
        return False
    if decide is sampling.StaticSampler.should_sample:
        return sampler._decision is not sampling.Decision.RECORD_ONLY
    if decide is sampling.ParentBased.should_sample:
        return all(_is_known_sampler(delegate) for delegate in _delegates(sampler))
    return decide is sampling.TraceIdRatioBased.should_sample


def _samples_local_children(sampler: Any) -> bool:
    from opentelemetry.sdk.trace import sampling

    if _decides(sampler) is sampling.ParentBased.should_sample:
        sampler = sampler._local_parent_sampled
    return (
        _decides(sampler) is sampling.StaticSampler.should_sample
        and sampler._decision is sampling.Decision.RECORD_AND_SAMPLE
    )


def _decides(sampler: Any) -> Any:
    return getattr(sampler.__class__, "should_sample", None)


def _delegates(sampler: Any) -> tuple[Any, ...]:
    return (
        sampler._root,
        sampler._remote_parent_sampled,
        sampler._remote_parent_not_sampled,
        sampler._local_parent_sampled,
        sampler._local_parent_not_sampled,
    )
