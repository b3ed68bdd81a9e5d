"""The span of one call: when it is made, and what it says."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, get_current_span

from otel_quantmon import semconv
from otel_quantmon.guard import internal_error
from otel_quantmon.hooks import InferenceCall
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.loaded import Call, Shapes, declared_shapes
from otel_quantmon.telemetry.instruments import Attributes

__all__ = ["end_span", "make_span", "may_be_sampled", "start_span"]


def may_be_sampled(parent: Span) -> bool:
    """True unless ``parent``, which does not record, stands for a trace that was not sampled."""
    context = parent.get_span_context()
    return not context.is_valid or context.trace_flags.sampled


def start_span(lane: Lane, context: Context, call: Call) -> Span | None:
    """Start the span of a call before it, for the request hook; None if it is not yet known to be wanted."""
    parent = get_current_span(context)
    wanted = lane.spans == "all" or (lane.spans != "none" and parent.is_recording())
    if not wanted and lane.spans == "auto" and may_be_sampled(parent):
        wanted = lane.credit >= lane.observer.spans.cost
        if wanted:
            lane.credit = 0.0
    if not wanted:
        return None
    span = lane.observer.spans.start(lane.model.name, context, _attributes(lane, call, lane.to_warm_up > 0))
    _call_request_hook(lane, span, call)
    return span


def end_span(
    lane: Lane, span: Span, call: Call, end: int, error: BaseException | None, error_type: str | None
) -> SpanContext | None:
    """End what `start_span` started, with what is only known now."""
    if error_type is not None:
        span.set_attribute(semconv.ERROR_TYPE, error_type)
    elif call[3] is not None and lane.model.loaded.io is None:
        span.set_attribute(semconv.OUTPUT_SHAPES, _shapes(lane, call).outputs)
    _call_response_hook(lane, span, call, error)
    return lane.observer.spans.end(span, end, error, error_type)


def make_span(
    lane: Lane,
    context: Context,
    call: Call,
    start: int,
    end: int,
    error: BaseException | None,
    error_type: str | None,
    warmup: bool,
) -> SpanContext | None:
    """Make the whole span of a call that is over; its context if it was sampled."""
    attributes = _attributes(lane, call, warmup)
    if error_type is not None:
        attributes[semconv.ERROR_TYPE] = error_type
    spans = lane.observer.spans
    span = spans.start(lane.model.name, context, attributes, start)
    if lane.hooks.request is not None:
        _call_request_hook(lane, span, call)
    if lane.hooks.response is not None:
        _call_response_hook(lane, span, call, error)
    return spans.end(span, end, error, error_type)


def _attributes(lane: Lane, call: Call, warmup: bool) -> Attributes:
    attributes = _fixed_attributes(lane).copy()
    if lane.model.loaded.io is None:
        attributes.update(_shape_attributes(_shapes(lane, call)))
    if warmup:
        attributes[semconv.WARMUP] = True
    return attributes


def _shape_attributes(shapes: Shapes) -> Attributes:
    attributes: Attributes = {}
    if shapes.inputs:
        attributes[semconv.INPUT_SHAPES] = shapes.inputs
        batch = _batch_size(shapes.inputs[0])
        if batch is not None:
            attributes[semconv.BATCH_SIZE] = batch
    if shapes.outputs:
        attributes[semconv.OUTPUT_SHAPES] = shapes.outputs
    return attributes


def _fixed_attributes(lane: Lane) -> Attributes:
    fixed = lane.span_attributes
    model = lane.model
    # The digest of a large file is read in the background, and is added once it is there.
    if fixed is None or (model.digest is not None and semconv.MODEL_DIGEST not in fixed):
        facts = model.facts
        optional = {
            semconv.MODEL_DIGEST: model.digest,
            semconv.MODEL_VERSION: model.version,
            semconv.MODEL_PATH: model.shown_path,
            semconv.QUANTIZATION_WEIGHT_TYPE: facts.weight_type,
            semconv.QUANTIZATION_ACTIVATION_TYPE: facts.activation_type,
        }
        fixed = lane.span_attributes = {
            **lane.series.attributes,
            semconv.OPERATION_NAME: lane.method.name,
            semconv.MODEL_FORMAT: facts.format,
            semconv.RUNTIME_VERSION: model.loaded.runtime_version,
            **{name: value for name, value in optional.items() if value is not None},
        }
        if model.loaded.io is not None:
            # Every shape is fixed: the same text for all calls.
            fixed.update(_shape_attributes(declared_shapes(model.loaded)))
    return fixed


def _shapes(lane: Lane, call: Call) -> Shapes:
    try:
        return lane.method.shapes(lane.model.loaded, call)
    except Exception as problem:  # noqa: BLE001  an unusual tensor costs its shape, not the span
        internal_error(problem)
        return Shapes()


def _batch_size(shape: str) -> int | None:
    """The first dimension of ``name:8x3x224x224``, None for a scalar."""
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
