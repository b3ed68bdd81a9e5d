"""The span of one call: when it is made, and what it says."""

from __future__ import annotations

from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from otel_quantmon import semconv
from otel_quantmon.guard import internal_error
from otel_quantmon.hooks import InferenceCall
from otel_quantmon.probe.ambient import parent_in
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.loaded import Call, LoadedModel, Shapes, declared_shapes
from otel_quantmon.telemetry.instruments import Attributes
from otel_quantmon.telemetry.spans import unix_time

__all__ = ["Told", "end_span", "make_span", "may_be_sampled", "start_span"]


class Told(NamedTuple):
    """What there is to tell of a call beyond its times and shapes; of most there is nothing.

    Attributes:
        error: what it raised.
        error_type: value of ``error.type``, also for a call that succeeded too late; None for a success.
        warmup: True if the lane was not warm.
        anomaly: value of ``quantmon.anomaly.type`` for the first call after one was found.
    """

    error: BaseException | None
    error_type: str | None
    warmup: bool
    anomaly: semconv.AnomalyType | None

    @property
    def notable(self) -> bool:
        """True if the call gets a span whatever the budget says."""
        return self.error_type is not None or self.anomaly is not None


def may_be_sampled(parent: Span) -> bool:
    """True unless ``parent``, which does not record, stands for a trace that was not sampled."""
    context = parent.get_span_context()
    return not context.is_valid or context.trace_flags.sampled


def start_span(lane: Lane, context: Context, call: Call) -> Span | None:
    """Start the span of a call before it, for the request hook; None if it is not yet known to be wanted."""
    parent = parent_in(context)
    wanted = lane.spans == "all" or (lane.spans != "none" and parent is not None and parent.is_recording())
    if not wanted and lane.spans == "auto" and (parent is None or may_be_sampled(parent)):
        wanted = lane.credit >= lane.span_due
        if wanted:
            lane.pay_span()
    if not wanted:
        return None
    attributes = _attributes(lane, call)
    if lane.to_warm_up > 0:
        attributes = {**attributes, semconv.WARMUP: True}
    span = lane.observer.spans.start(lane.span_name, context, attributes)
    _call_request_hook(lane, span, call)
    return span


def end_span(lane: Lane, span: Span, call: Call, end: int, told: Told | None) -> SpanContext | None:
    """End what `start_span` started, with what is only known now."""
    error, error_type = (told.error, told.error_type) if told is not None else (None, None)
    if told is not None and told.anomaly is not None:
        span.set_attribute(semconv.ANOMALY_TYPE, told.anomaly)
    if error_type is not None:
        span.set_attribute(semconv.ERROR_TYPE, error_type)
    elif call[3] is not None and lane.io is None:
        span.set_attribute(semconv.OUTPUT_SHAPES, _shapes(lane, call).outputs)
    _call_response_hook(lane, span, call, error)
    return lane.observer.spans.end(span, unix_time(end), error, error_type)


def make_span(
    lane: Lane, context: Context, call: Call, start: int, end: int, told: Told | None
) -> SpanContext | None:
    """Make the whole span of a call that is over; its context if it was sampled."""
    attributes = _attributes(lane, call)
    spans = lane.observer.spans
    ended = unix_time(end)
    began = ended - (end - start)
    if told is None and lane.hookless:
        return spans.make(lane.span_name, context, attributes, began, ended)
    error, error_type = None, None
    if told is not None:
        error, error_type = told.error, told.error_type
        attributes = {**attributes, **_told_attributes(told)}
    span = spans.start(lane.span_name, context, attributes, began)
    _call_request_hook(lane, span, call)
    _call_response_hook(lane, span, call, error)
    return spans.end(span, ended, error, error_type)


def _attributes(lane: Lane, call: Call) -> Attributes:
    """What is known without the outcome. Not to be changed: it may be what the lane keeps."""
    attributes = lane.span_attributes
    if attributes is None:
        attributes = _fixed_attributes(lane)
        # The digest of a large file is read in the background, and not to be missing from what is kept.
        if lane.model.identified:
            lane.span_attributes = attributes
    if lane.io is None:
        attributes = {**attributes, **_shape_attributes(lane.model.loaded, _shapes(lane, call))}
    return attributes


def _told_attributes(told: Told) -> Attributes:
    attributes: Attributes = {}
    if told.warmup:
        attributes[semconv.WARMUP] = True
    if told.error_type is not None:
        attributes[semconv.ERROR_TYPE] = told.error_type
    if told.anomaly is not None:
        attributes[semconv.ANOMALY_TYPE] = told.anomaly
    return attributes


def _shape_attributes(loaded: LoadedModel, shapes: Shapes) -> Attributes:
    attributes: Attributes = {}
    if shapes.inputs:
        attributes[semconv.INPUT_SHAPES] = shapes.inputs
        batch = _batch_size(loaded, shapes.inputs)
        if batch is not None:
            attributes[semconv.BATCH_SIZE] = batch
    if shapes.outputs:
        attributes[semconv.OUTPUT_SHAPES] = shapes.outputs
    return attributes


def _fixed_attributes(lane: Lane) -> Attributes:
    model = lane.model
    facts = model.facts
    optional = {
        semconv.MODEL_DIGEST: model.digest,
        semconv.MODEL_VERSION: model.version,
        semconv.MODEL_PATH: model.shown_path,
        semconv.QUANTIZATION_WEIGHT_TYPE: facts.weight_type,
        semconv.QUANTIZATION_ACTIVATION_TYPE: facts.activation_type,
    }
    fixed: Attributes = {
        **lane.series.attributes,
        # The series of a model past ``max_models`` has a name that it shares.
        semconv.MODEL_NAME: model.name,
        semconv.OPERATION_NAME: lane.method.name,
        semconv.MODEL_FORMAT: facts.format,
        semconv.RUNTIME_VERSION: model.loaded.runtime_version,
        **{name: value for name, value in optional.items() if value is not None},
    }
    if lane.io is not None:
        # Every shape is fixed: the same text for all calls.
        fixed.update(_shape_attributes(model.loaded, declared_shapes(model.loaded)))
    return fixed


def _shapes(lane: Lane, call: Call) -> Shapes:
    try:
        return lane.method.shapes(lane.model.loaded, call)
    except Exception as problem:  # noqa: BLE001  an unusual tensor costs its shape, not the span
        internal_error(problem)
        return Shapes()


def _batch_size(loaded: LoadedModel, inputs: tuple[str, ...]) -> int | None:
    """The first dimension of ``name:8x3x224x224``, the model's first input; None where it is fixed or unknown."""
    if loaded.batch_input is None:
        return None
    # Inputs come in the order in which they were fed; a signature has names of its own for them.
    of_batch = f"{loaded.batch_input}:"
    shape = next((text for text in inputs if text.startswith(of_batch)), inputs[0])
    first = shape.rpartition(":")[2].partition("x")[0]
    return int(first) if first.isdecimal() else None


def _call_request_hook(lane: Lane, span: Span, call: Call) -> None:
    hook = lane.hooks.request
    if hook is not None and span.is_recording():
        try:
            hook(span, _inference_call(lane, call))
        except Exception as problem:  # noqa: BLE001  the application's hook is not to fail its inference
            internal_error(problem)


def _call_response_hook(lane: Lane, span: Span, call: Call, error: BaseException | None) -> None:
    hook = lane.hooks.response
    if hook is not None and span.is_recording():
        try:
            hook(span, _inference_call(lane, call), call[3], error)
        except Exception as problem:  # noqa: BLE001  as above
            internal_error(problem)


def _inference_call(lane: Lane, call: Call) -> InferenceCall:
    return InferenceCall(lane.model.name, lane.method.name, call[0], call[1], call[2])
