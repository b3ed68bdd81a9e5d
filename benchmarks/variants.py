"""Every way of observing a call that the benchmark compares: how each is set up, and what it wraps a call in.

A variant is set up in a process of its own, after the workload's class was imported and its bare form put aside.
All peers are used as their documentation shows, with everything looked up beforehand that can be.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from pipeline import Pipeline
from workloads import Calling


@dataclass(frozen=True)
class Subject:
    """What is observed, and how this project describes it.

    Attributes:
        cls, method: the runtime's class and the method that is called.
        span_name, span_attributes: of the span that this project makes of a call.
        metric_attributes: of its duration.
        boundaries: of the duration's histogram, in seconds.
    """

    cls: type
    method: str
    span_name: str
    span_attributes: Mapping[str, Any]
    metric_attributes: Mapping[str, Any]
    boundaries: tuple[float, ...]


@dataclass(frozen=True)
class Observation:
    """A variant that has been set up.

    Attributes:
        wrap: what observes a call, for variants that do not patch the runtime's class.
        flush: does what would otherwise be left to the background.
        parent: what a request that makes calls runs in.
        exported: spans that went out so far, None where that is not known.
    """

    wrap: Callable[[Calling], Calling] = lambda call: call
    flush: Callable[[], object] = lambda: None
    parent: Callable[[], AbstractContextManager[Any]] = nullcontext
    exported: Callable[[], int | None] = lambda: None


@dataclass(frozen=True)
class Variant:
    """A way of observing.

    Attributes:
        title: for the reader.
        set_up: begins to observe.
        parent: True if calls are made under a recording span.
        environment: variables of its process.
    """

    title: str
    set_up: Callable[[Subject], Observation]
    parent: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


# --- this project -----------------------------------------------------------------------------------------


def instrument() -> None:
    from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor

    ONNXRuntimeInstrumentor().instrument()
    TFLiteInstrumentor().instrument()


def global_pipeline() -> tuple[Pipeline, Observation]:
    from opentelemetry import metrics, trace

    pipeline = Pipeline()
    trace.set_tracer_provider(pipeline.tracer_provider)
    metrics.set_meter_provider(pipeline.meter_provider)
    tracer = trace.get_tracer("application")
    observation = Observation(
        flush=pipeline.flush,
        parent=lambda: tracer.start_as_current_span("request"),
        exported=lambda: pipeline.exporter.spans,
    )
    return pipeline, observation


def _this_project(_: Subject) -> Observation:
    _, observation = global_pipeline()
    instrument()
    return observation


def _this_project_without_provider(_: Subject) -> Observation:
    instrument()
    return Observation()


# --- by hand, with OpenTelemetry --------------------------------------------------------------------------


def _by_hand(subject: Subject) -> Observation:
    from opentelemetry import metrics, trace

    _, observation = global_pipeline()
    tracer = trace.get_tracer("application")
    histogram = metrics.get_meter("application").create_histogram(
        "inference.duration", unit="s", explicit_bucket_boundaries_advisory=subject.boundaries
    )
    name, attributes, of_metric = subject.span_name, subject.span_attributes, subject.metric_attributes

    def wrap(call: Calling) -> Calling:
        from time import perf_counter

        def observed() -> Any:
            with tracer.start_as_current_span(name, attributes=attributes):
                start = perf_counter()
                result = call()
                # Within the span, so that the exemplar leads to it.
                histogram.record(perf_counter() - start, of_metric)
            return result

        return observed

    return Observation(wrap, observation.flush, observation.parent, observation.exported)


def _span_decorator(subject: Subject) -> Observation:
    from opentelemetry import trace

    _, observation = global_pipeline()
    decorate = trace.get_tracer("application").start_as_current_span(subject.span_name)
    return Observation(
        lambda call: decorate(lambda: call()),  # noqa: PLW0108  a decorator wants a function that is its own
        observation.flush,
        observation.parent,
        observation.exported,
    )


# --- patches that do nothing ------------------------------------------------------------------------------


def _plain_function(subject: Subject) -> Observation:
    original = getattr(subject.cls, subject.method)

    @functools.wraps(original)
    def passing(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    setattr(subject.cls, subject.method, passing)
    return Observation()


def _wrapt(subject: Subject) -> Observation:
    import wrapt

    def passing(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    setattr(subject.cls, subject.method, wrapt.FunctionWrapper(getattr(subject.cls, subject.method), passing))
    return Observation()


# --- peers ------------------------------------------------------------------------------------------------


def _prometheus(subject: Subject) -> Observation:
    import prometheus_client

    labels = {name.replace(".", "_"): value for name, value in subject.metric_attributes.items()}
    duration = prometheus_client.Histogram(
        "inference_duration_seconds", "Duration of inference calls.", labels, buckets=subject.boundaries
    ).labels(**labels)
    last = prometheus_client.Gauge(
        "inference_last_success", "Whether the last call succeeded.", labels
    ).labels(**labels)

    def wrap(call: Calling) -> Calling:
        def observed() -> Any:
            with duration.time():
                result = call()
            last.set(1)
            return result

        return observed

    # A scrape: its answer is built and dropped.
    return Observation(wrap, prometheus_client.generate_latest)


def _sentry(subject: Subject, *, in_transaction: bool) -> Observation:
    import sentry_sdk
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.transport import Transport

    spans = 0

    class Dropping(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            nonlocal spans
            envelope.serialize()
            spans += 1

    # No integration: the peer is measured, not what it finds to patch.
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=Dropping,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    begin = sentry_sdk.start_span if in_transaction else sentry_sdk.start_transaction
    name, attributes = subject.span_name, tuple(subject.span_attributes.items())

    def wrap(call: Calling) -> Calling:
        def observed() -> Any:
            with begin(op="inference", name=name) as span:
                for key, value in attributes:
                    span.set_data(key, value)
                return call()

        return observed

    return Observation(
        wrap,
        sentry_sdk.flush,
        lambda: sentry_sdk.start_transaction(op="http.server", name="request"),
        lambda: None if in_transaction else spans,
    )


def _ddtrace(subject: Subject) -> Observation:
    from ddtrace.trace import TraceFilter, tracer

    spans = 0

    class Dropping(TraceFilter):
        def process_trace(self, trace: list[Any]) -> None:
            nonlocal spans
            spans += len(trace)

    # Dropped by the public filter interface, before they are encoded, which is to this peer's advantage.
    tracer.configure(trace_processors=[Dropping()])
    name, attributes = (
        subject.span_name,
        {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in subject.span_attributes.items()
        },
    )

    def wrap(call: Calling) -> Calling:
        def observed() -> Any:
            with tracer.trace("inference", resource=name) as span:
                span.set_tags(attributes)
                return call()

        return observed

    return Observation(wrap, tracer.flush, lambda: tracer.trace("request"), lambda: spans)


def _logfire(subject: Subject) -> Observation:
    import logfire
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from pipeline import DroppingSpanExporter

    exporter = DroppingSpanExporter()
    instance = logfire.configure(
        send_to_logfire=False,
        console=False,
        metrics=False,
        distributed_tracing=False,
        additional_span_processors=[BatchSpanProcessor(exporter)],
    )
    name = subject.span_name
    # A dot is not possible in a keyword written by hand.
    attributes = {key.replace(".", "_"): value for key, value in subject.span_attributes.items()}

    def wrap(call: Calling) -> Calling:
        def observed() -> Any:
            with logfire.span(name, **attributes):
                return call()

        return observed

    return Observation(wrap, instance.force_flush, lambda: logfire.span("request"), lambda: exporter.spans)


# --- all of them ------------------------------------------------------------------------------------------

_DDTRACE_QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CRASHTRACKING_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
}

BY_HAND = "by-hand"
BY_HAND_PARENT = "by-hand-parent"
DEFAULT = "auto"
DEFAULT_PARENT = "auto-parent"
DISABLED = "sdk-disabled"
NO_PROVIDER = "no-provider"

VARIANTS: dict[str, Variant] = {
    BY_HAND: Variant("by hand: span with attributes, histogram", _by_hand),
    BY_HAND_PARENT: Variant("by hand, under a recording parent", _by_hand, parent=True),
    **{
        mode: Variant(f"this project, spans={mode}", _this_project, environment={"QUANTMON_SPANS": mode})
        for mode in ("auto", "all", "parent", "none")
    },
    **{
        f"{mode}-parent": Variant(
            f"this project, spans={mode}, under a recording parent",
            _this_project,
            parent=True,
            environment={"QUANTMON_SPANS": mode},
        )
        for mode in ("auto", "all", "parent", "none")
    },
    DISABLED: Variant(
        "this project, OTEL_SDK_DISABLED", _this_project, environment={"OTEL_SDK_DISABLED": "true"}
    ),
    NO_PROVIDER: Variant("this project, no provider", _this_project_without_provider),
    "plain-function": Variant("a function on the class that passes through", _plain_function),
    "wrapt": Variant("a wrapt.FunctionWrapper that passes through", _wrapt),
    "decorator": Variant("span decorator without attributes", _span_decorator),
    "decorator-parent": Variant(
        "span decorator without attributes, under a recording parent", _span_decorator, parent=True
    ),
    "prometheus": Variant("prometheus_client: Histogram.time and a gauge", _prometheus),
    "sentry": Variant("sentry-sdk: a transaction", functools.partial(_sentry, in_transaction=False)),
    "sentry-parent": Variant(
        "sentry-sdk: a span under a transaction", functools.partial(_sentry, in_transaction=True), parent=True
    ),
    "ddtrace": Variant("ddtrace: a trace", _ddtrace, environment=_DDTRACE_QUIET),
    "ddtrace-parent": Variant(
        "ddtrace: a span under a trace", _ddtrace, parent=True, environment=_DDTRACE_QUIET
    ),
    "logfire": Variant("logfire: a span", _logfire),
    "logfire-parent": Variant("logfire: a span under a span", _logfire, parent=True),
}
