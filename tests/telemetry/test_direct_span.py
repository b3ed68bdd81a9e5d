"""A span that is made directly is the one that the SDK makes, and is only made so where that is known."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, StaticSampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from otel_quantmon.telemetry import direct_span, span_proof
from otel_quantmon.telemetry.direct_span import DirectSpans, SpanTemplate
from otel_quantmon.telemetry.proof import Proof
from otel_quantmon.telemetry.span_proof import direct_spans_are_proven

ATTRIBUTES = {"model": "a model", "shapes": ("x:1x3", "y:2"), "warmup": True, "batch": 8}
TEMPLATE = SpanTemplate("inference a model", ATTRIBUTES)
PARENT = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1))


class Ids(IdGenerator):
    """The same identifiers for each provider."""

    def __init__(self) -> None:
        self._next = count(1)

    def generate_span_id(self) -> int:
        return next(self._next)

    def generate_trace_id(self) -> int:
        return next(self._next)


def under(parent: SpanContext | None) -> Context:
    return Context() if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), Context())


def publicly(tracer: Any, parent: SpanContext | None, template: SpanTemplate = TEMPLATE) -> None:
    span = tracer.start_span(
        template.name, under(parent), SpanKind.INTERNAL, template.attributes, None, 1_000_000
    )
    span.end(2_000_000)


def directly(tracer: Any, parent: SpanContext | None, template: SpanTemplate = TEMPLATE) -> None:
    direct = DirectSpans(tracer)
    assert direct.takes(parent)
    direct.make(template, under(parent), parent, 1_000_000, 2_000_000)


def exported(
    make: Callable[[Any, SpanContext | None], None],
    parent: SpanContext | None = PARENT,
    processor: Callable[[Any], SpanProcessor] = SimpleSpanProcessor,
    **options: Any,
) -> list[str]:
    """The spans that a provider exports when ``make`` makes two, as text."""
    exporter = InMemorySpanExporter()
    options = {"resource": Resource({"service.name": "s"}), "id_generator": Ids()} | options
    provider = TracerProvider(shutdown_on_exit=False, **options)
    provider.add_span_processor(processor(exporter))
    tracer = provider.get_tracer("scope", "1", "https://example.org/schema")
    make(tracer, parent)
    make(tracer, parent)
    provider.force_flush()
    spans = exporter.get_finished_spans()
    provider.shutdown()
    return [repr(span_proof._shown(span, provider.resource)) for span in spans]


def test_the_direct_way_is_proven_on_this_sdk() -> None:
    """On the oldest SDK that is supported and on the newest: else every span pays for the public way."""
    assert direct_spans_are_proven()


@pytest.mark.parametrize("processor", [SimpleSpanProcessor, BatchSpanProcessor])
@pytest.mark.parametrize("parent", [None, PARENT])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampler": ALWAYS_ON},
        {"sampler": ParentBased(ALWAYS_OFF)},
        {"span_limits": SpanLimits(max_span_attributes=2)},
        {"span_limits": SpanLimits(max_span_attribute_length=4)},
    ],
    ids=["defaults", "always_on", "parent_based", "few_attributes", "short_values"],
)
def test_what_is_exported_is_the_same(processor, parent, options) -> None:
    """All that an exporter sees, for both processors, a root and a child, samplers and limits."""
    public = exported(publicly, parent, processor, **options)
    assert exported(directly, parent, processor, **options) == public
    assert len(public) == (0 if parent is None and options.get("sampler") not in (None, ALWAYS_ON) else 2)


@pytest.mark.parametrize("processor", [SimpleSpanProcessor, BatchSpanProcessor])
def test_after_a_shutdown_as_much_is_exported(processor: Any) -> None:
    """As of spans that the SDK makes then: by most releases and processors nothing."""

    class Open(InMemorySpanExporter):
        def shutdown(self) -> None:
            pass

    def after_shutdown(make: Callable[..., None]) -> int:
        exporter = Open()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor(exporter))
        tracer = provider.get_tracer("scope")
        make(tracer, PARENT)
        provider.shutdown()
        make(tracer, PARENT)
        return len(exporter.get_finished_spans())

    assert after_shutdown(directly) == after_shutdown(publicly) >= 1


def test_a_resource_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many spans an exporter groups by it; and they go with those that the application makes."""
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, resource=Resource({"service.name": "s"}))
    provider.add_span_processor(SimpleSpanProcessor(spans))
    hashed: list[Resource] = []
    hash_of = Resource.__hash__

    def counting(resource: Resource) -> int:
        hashed.append(resource)
        return hash_of(resource)

    monkeypatch.setattr(Resource, "__hash__", counting)
    direct = DirectSpans(provider.get_tracer("scope"))
    for _ in range(3):
        assert direct.takes(PARENT)
        direct.make(TEMPLATE, under(PARENT), PARENT, 1_000_000, 2_000_000)
    assert len({span.resource for span in spans.get_finished_spans()}) == 1
    assert len(hashed) == 1
    publicly(provider.get_tracer("scope"), PARENT)
    resources = [span.resource for span in spans.get_finished_spans()]
    assert len(set(resources)) == len({resources[-1], resources[0]}) == 1
    assert Resource({"service.name": "another"}) not in resources
    provider.shutdown()


def test_a_change_to_one_span_is_none_to_the_next() -> None:
    """An exporter that removes what must not leave, or adds something, does so in the span that it was given."""
    spans: list[Any] = []

    class Changing(InMemorySpanExporter):
        def export(self, exported: Any) -> Any:
            for span in exported:
                spans.append((dict(span.attributes), len(span._events), len(span._links)))
                span._attributes._dict["model"] = "hidden"
                span._events.append("event")
                span._links.extend(["link"])
                assert (list(span.events), list(span.links)) == (["event"], ["link"])
            return super().export(exported)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Changing()))
    tracer = provider.get_tracer("scope")
    for _ in range(2):
        directly(tracer, PARENT)
    provider.shutdown()
    assert spans == [(ATTRIBUTES, 0, 0)] * 2


def test_containers_are_made_when_they_are_asked_for() -> None:
    """Who makes a span does not pay for them; of a span without events and links an exporter makes none."""
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    directly(provider.get_tracer("scope"), PARENT)
    (span,) = spans.get_finished_spans()
    provider.shutdown()
    containers = {"_attributes", "_events", "_links"}
    assert (span.events, span.links, span.dropped_events, span.dropped_links) == ((), (), 0, 0)
    assert not containers & vars(span).keys()
    assert span.attributes == ATTRIBUTES
    assert vars(span)["_attributes"] is span._attributes
    assert (list(span._events), list(copy.copy(span)._links)) == ([], [])
    with pytest.raises(AttributeError, match="'ReadableSpan' object has no attribute '_other'"):
        _ = span._other


def test_the_sdk_counts_its_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has metrics of its own, started spans are counted, and none stays alive."""
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")

    def counted(make: Callable[..., None]) -> list[Any]:
        reader = InMemoryMetricReader()
        meters = MeterProvider([reader], shutdown_on_exit=False)
        try:
            provider = TracerProvider(shutdown_on_exit=False, meter_provider=meters)
        except TypeError:
            pytest.skip("this SDK does not count its spans")
        make(provider.get_tracer("scope"), PARENT)
        data: Any = reader.get_metrics_data()
        provider.shutdown()
        meters.shutdown()
        return [
            (metric.name, point.value, dict(point.attributes))
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
            for point in metric.data.data_points
        ]

    public = counted(publicly)
    assert counted(directly) == public
    assert {value for name, value, _ in public if name == "otel.sdk.span.live"} == {0}


class Other(SpanProcessor):
    """A processor of the application, which wants to hear of each start."""


class OtherSampler(StaticSampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> Any:
        return super().should_sample(*args, **kwargs)


def patched_processor(_: TracerProvider, tracer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimpleSpanProcessor, "on_start", lambda *_, **__: None)


def own_processor_patched(provider: TracerProvider, tracer: Any, __: pytest.MonkeyPatch) -> None:
    provider._active_span_processor._span_processors[0].on_start = lambda *_, **__: None


def patched_start(_: TracerProvider, tracer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = sdk.Tracer.start_span

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return start(*args, **kwargs)

    monkeypatch.setattr(sdk.Tracer, "start_span", wrapped)


def another_processor(provider: TracerProvider, tracer: Any, __: pytest.MonkeyPatch) -> None:
    provider.add_span_processor(Other())


def own_start(_: TracerProvider, tracer: Any, __: pytest.MonkeyPatch) -> None:
    tracer.start_span = tracer.start_span


def unknown_state(_: TracerProvider, tracer: Any, __: pytest.MonkeyPatch) -> None:
    tracer._what_a_later_release_has = 1


def other_sampler(_: TracerProvider, tracer: Any, __: pytest.MonkeyPatch) -> None:
    tracer.sampler = ParentBased(ALWAYS_ON, remote_parent_sampled=OtherSampler(Decision.RECORD_AND_SAMPLE))


def recording_without_sampling(_: TracerProvider, tracer: Any, __: pytest.MonkeyPatch) -> None:
    tracer.sampler = StaticSampler(Decision.RECORD_ONLY)


@pytest.mark.parametrize(
    "change",
    [
        patched_processor,
        own_processor_patched,
        patched_start,
        another_processor,
        own_start,
        unknown_state,
        other_sampler,
        recording_without_sampling,
    ],
)
@pytest.mark.parametrize("before", [True, False], ids=["from_the_start", "later"])
def test_what_is_not_known_takes_the_public_way(change, before, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK would have called there is then called; some changes are also seen after the first span."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    tracer = provider.get_tracer("scope")
    if before:
        change(provider, tracer, monkeypatch)
    direct = DirectSpans(tracer)
    assert direct.takes(PARENT) is not before
    if not before:
        change(provider, tracer, monkeypatch)
        # To patch a class, or a processor of a provider, while spans are made is not looked for at each of them.
        patched_late = change in (patched_processor, own_processor_patched, patched_start)
        assert direct.takes(PARENT) is patched_late
    provider.shutdown()


def test_a_tracer_that_is_not_the_sdks_takes_the_public_way() -> None:
    """The API's own, one without state, and a subclass of the SDK's."""

    class Subclass(sdk.Tracer):
        pass

    ours: Any = TracerProvider(shutdown_on_exit=False).get_tracer("scope")
    ours.__class__ = Subclass
    for tracer in (trace.NoOpTracer(), object(), ours):
        assert not DirectSpans(tracer).takes(None)


def test_a_tracer_that_is_switched_off_takes_the_public_way() -> None:
    """Where an SDK can switch tracers off."""
    provider: Any = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("scope")
    if not hasattr(tracer, "_tracer_config"):
        pytest.skip("this SDK cannot switch a tracer off")
    direct = DirectSpans(tracer)
    assert direct.takes(PARENT)
    tracer._tracer_config.is_enabled = False
    assert not direct.takes(PARENT)


def test_a_parent_of_another_kind_takes_the_public_way() -> None:
    """A class that only looks like the API's, which the SDK refuses."""

    class Like(tuple[Any, ...]):
        __slots__ = ()

    assert not DirectSpans(TracerProvider(shutdown_on_exit=False).get_tracer("scope")).takes(Like(PARENT))


@pytest.mark.parametrize("name", ["_kind", "_status", "_end_time", "_resource", "_events"])
def test_an_sdk_that_makes_other_spans_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that lacks one thing of the SDK's span: nothing is proven, and nothing raised."""
    cast = direct_span.Mould.cast

    def lacking(self: Any, *args: Any) -> Any:
        span = cast(self, *args)
        vars(span)[name] = None
        return span

    monkeypatch.setattr(direct_span.Mould, "cast", lacking)
    assert not direct_spans_are_proven()


def test_a_proof_keeps_to_itself(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It asks for no resource, which may take requests to a cloud, says nothing, and leaves no provider set."""

    def asked(*_: Any) -> Any:
        raise AssertionError("the application's resource was asked for")

    monkeypatch.setattr(Resource, "create", asked)
    caplog.set_level(0)
    before = trace._TRACER_PROVIDER
    assert direct_spans_are_proven()
    assert caplog.messages == []
    assert trace._TRACER_PROVIDER is before


def test_a_proof_is_asked_for_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is given the answer is no; a child process asks anew, since it has no thread of its parent's."""
    jobs: list[Callable[[], object]] = []
    proof = Proof(lambda: span_proof.direct_spans_are_proven())  # noqa: PLW0108  as patched
    proof.ask(jobs.append)
    proof.ask(jobs.append)
    assert len(jobs) == 1
    assert not proof.given
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    proof.ask(jobs.append)
    assert len(jobs) == 2
    jobs[1]()
    assert proof.given
