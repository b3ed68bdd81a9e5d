"""Proof that spans which are made directly are those that the SDK's tracer makes.

Before the direct way is taken for the first time in a process, the same spans go both ways through throw-away
providers, and all that an exporter can see of them is compared. That takes some milliseconds, so it is done on another
thread than the application's, and until it is done spans take the public way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple, TypeAlias, cast

from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from otel_quantmon.telemetry.direct_span import DirectSpans, SpanTemplate
from otel_quantmon.telemetry.proof import Job, Proof
from otel_quantmon.telemetry.span_mould import MOULD, count_with

__all__ = ["direct_spans_are_proven", "proof"]

_logger = logging.getLogger("otel_quantmon")

Make: TypeAlias = Callable[[Any, SpanTemplate, Context, int, int], SpanContext | None]


def direct_spans_are_proven() -> bool:
    """Return True if on this SDK spans that are made directly are the same as those of `start_span` and `end`."""
    try:
        return all(_seen(case, _publicly) == _seen(case, _directly) for case in _cases())
    except Exception:
        _logger.debug("spans cannot be made directly with this OpenTelemetry SDK", exc_info=True)
        return False


proof = Proof(lambda: direct_spans_are_proven())  # noqa: PLW0108  as it is when it is asked for


_TRACE_STATE = TraceState([("vendor", "value"), ("other", "1")])
_ATTRIBUTES: Mapping[str, AttributeValue] = {
    "text": "a text of some length",
    "whole": 7,
    "number": 0.5,
    "flag": True,
    "texts": ("x:1x3", "y:longer"),
    "list": [1, 2],
    "numbers": (0.5, 1.5),
    "empty": (),
}
# None, one that is not valid, and traces on either side of a ratio of a half; local and remote, sampled and not, of
# random identifiers and of others.
_PARENTS = (
    None,
    SpanContext(0, 0, is_remote=False),
    SpanContext(3, 5, is_remote=False, trace_flags=TraceFlags(3), trace_state=_TRACE_STATE),
    SpanContext(2**128 - 3, 5, is_remote=False, trace_flags=TraceFlags(1)),
    SpanContext(3, 5, is_remote=False, trace_flags=TraceFlags(2), trace_state=_TRACE_STATE),
    SpanContext(3, 5, is_remote=True, trace_flags=TraceFlags(1), trace_state=_TRACE_STATE),
    SpanContext(2**128 - 3, 5, is_remote=True, trace_flags=TraceFlags(3)),
    SpanContext(3, 5, is_remote=True, trace_flags=TraceFlags(0)),
)


class _Case(NamedTuple):
    """How a provider is made.

    Attributes:
        sampler, limits: Sampler and limits of the provider.
        is_random: What its generator of identifiers says of them.
    """

    sampler: Any
    is_random: bool = True
    limits: Any = None


def _cases() -> list[_Case]:
    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased

    return [
        _Case(ParentBased(ALWAYS_ON)),
        _Case(ParentBased(TraceIdRatioBased(0.5), local_parent_sampled=TraceIdRatioBased(0.5))),
        _Case(ALWAYS_ON, is_random=False),
        _Case(ALWAYS_OFF),
        # The SDK warns of an attribute that it cuts or drops, but not where it takes none.
        _Case(ALWAYS_ON, limits=SpanLimits(max_span_attributes=0, max_events=0, max_links=0)),
    ]


def _publicly(
    tracer: Any, template: SpanTemplate, context: Context, start: int, end: int
) -> SpanContext | None:
    span = tracer.start_span(template.name, context, SpanKind.INTERNAL, template.attributes, None, start)
    span.end(end)
    made = span.get_span_context()
    return made if made.trace_flags.sampled else None


def _directly(
    tracer: Any, template: SpanTemplate, context: Context, start: int, end: int
) -> SpanContext | None:
    direct = DirectSpans(tracer)
    current = get_current_span(context).get_span_context()
    parent = current if current.is_valid else None
    if not direct.takes(parent):
        raise NotImplementedError("a tracer, a sampler or a processor is not as it is known")
    return direct.make(template, context, parent, start, end)


class _Counted:
    """Keeps what the SDK reports to the metrics of its spans."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def start_span(self, parent: SpanContext | None, decision: Any) -> Job:
        self.reports.append((_context(parent), str(decision)))
        return lambda: self.reports.append("ended")


def _seen(case: _Case, make: Make) -> list[Any]:
    """All that can be seen of two spans under each parent."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Counting(IdGenerator):
        def __init__(self) -> None:
            self.last = 0

        def generate_span_id(self) -> int:
            self.last += 1
            return self.last

        def generate_trace_id(self) -> int:
            # Now on one side and now on the other of what a ratio asks for.
            self.last += 1
            return self.last if self.last % 4 else 2**128 - self.last

        def is_trace_id_random(self) -> bool:
            return case.is_random

    exporter: Any = _Exporter()
    # Not the application's resource: to find that out may take requests to a cloud's metadata.
    resource = Resource({"service.name": "check"}, "https://example.org/resource")
    provider = TracerProvider(
        case.sampler,
        resource,
        shutdown_on_exit=False,
        id_generator=Counting(),
        span_limits=case.limits,
        **_uncounted(TracerProvider),
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter, **_uncounted(SimpleSpanProcessor)))
    tracer = provider.get_tracer("otel_quantmon.check", "1", "https://example.org/schema")
    counted = _Counted()
    count_with(tracer, counted)
    template = SpanTemplate("name", _ATTRIBUTES)
    returned: list[Any] = []
    for start, parent in enumerate(_PARENTS * 2):
        context = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
        returned.append(_context(make(tracer, template, context, start, start + 20)))
    provider.shutdown()
    return [returned, [_shown(span, resource) for span in exporter.spans], counted.reports]


def _uncounted(kind: type) -> dict[str, Any]:
    # Later releases count their spans with the global provider, which is the application's.
    return {"meter_provider": NoOpMeterProvider()} if "meter_provider" in signature(kind).parameters else {}


class _Exporter:
    def __init__(self) -> None:
        self.spans: list[Any] = []

    def export(self, spans: Iterable[Any]) -> object:
        self.spans += spans
        return None

    def shutdown(self) -> None:
        pass


def _shown(span: Any, resource: Any) -> list[Any]:
    from opentelemetry.sdk.trace import ReadableSpan

    # First as an exporter asks. After that containers that are made late are asked for by their own names.
    before = [list(span.events), list(span.links), span.dropped_events, span.dropped_links]
    containers = [_named(getattr(span, name)) for name in ("_attributes", "_events", "_links")]
    # Spans, attributes and a resource that take less time are of classes that only look like the SDK's.
    state = sorted(
        (name, _named(value)) for name, value in cast("dict[str, Any]", vars(span)).items() if name != MOULD
    )
    return [
        _named(span),
        isinstance(span, ReadableSpan),
        before,
        containers,
        state,
        span.name,
        span.kind,
        _context(span.context),
        _context(span.get_span_context()),
        _context(span.parent),
        (span.start_time, span.end_time),
        _inside(span.attributes),
        [list(span.events), list(span.links)],
        (span.dropped_attributes, span.dropped_events, span.dropped_links),
        (span.status.status_code, span.status.description),
        (isinstance(span.resource, resource.__class__), hash(span.resource) == hash(resource)),
        (span.resource == resource, resource == span.resource, span.resource != resource),
        (span.resource.schema_url, _inside(span.resource.attributes)),
        span.instrumentation_scope,
        span.to_json(),
    ]


def _named(value: object) -> tuple[str, str]:
    return value.__class__.__module__, value.__class__.__qualname__


def _context(context: SpanContext | None) -> Any:
    if context is None:
        return None
    types = [type(context), *map(type, context)]
    return types, tuple(context)[:4], list(context.trace_state.items()), context.is_valid


def _inside(value: object) -> Any:
    """Return a value with its type, and what is in it; 1, 1.0 and True are equal for Python."""
    kind = value.__class__
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value).items()
        return kind, [(key, _inside(one)) for key, one in pairs]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return kind, list(map(_inside, value))  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]  of any elements
    return kind, value
