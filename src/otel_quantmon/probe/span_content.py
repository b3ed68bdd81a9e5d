"""The span of one call: when it is made, and what it says."""

from __future__ import annotations

from otel_quantmon import semconv
from otel_quantmon.guard import internal_error
from otel_quantmon.hooks import InferenceCall
from otel_quantmon.models.description import Call, CallKind, LoadedModel, Shapes, declared_shapes
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.recording.outcome import Outcome
from otel_quantmon.telemetry.api import Context, Span, SpanContext
from otel_quantmon.telemetry.context import parent_in
from otel_quantmon.telemetry.instruments import Attributes
from otel_quantmon.telemetry.spans import SpanTemplate, unix_time

__all__ = ["end_span", "make_span", "may_be_sampled", "show_late", "start_span", "template_of"]

# As many as a runtime has kinds of calls; spans of other shapes take as long as the SDK takes for them.
_MOST_SHAPES = 64


def may_be_sampled(parent: Span) -> bool:
    """Return True unless ``parent``, which does not record, stands for a trace that was not sampled."""
    context = parent.get_span_context()
    return not context.is_valid or context.trace_flags.sampled


def start_span(state: CallState, context: Context, call: Call) -> Span | None:
    """Start the span of a call before it, for the request hook; None if it is not yet known to be wanted."""
    parent = parent_in(context)
    wanted = state.span_mode == "all" or (
        state.span_mode != "none" and parent is not None and parent.is_recording()
    )
    if not wanted and state.span_mode == "auto" and (parent is None or may_be_sampled(parent)):
        wanted = state.credit >= state.span_due
        if wanted:
            state.pay_span()
    if not wanted:
        return None
    attributes = _template(state, call).attributes
    if state.to_warm_up > 0:
        attributes = {**attributes, semconv.WARMUP: True}
    span = state.providers.spans.start(state.span_name, context, attributes)
    _call_request_hook(state, span, call)
    return span


def end_span(
    state: CallState, span: Span, call: Call, end: int, outcome: Outcome | None
) -> SpanContext | None:
    """End what `start_span` started, with what is only known now."""
    error, error_type = (outcome.error, outcome.error_type) if outcome is not None else (None, None)
    if outcome is not None and outcome.anomaly is not None:
        span.set_attribute(semconv.ANOMALY_TYPE, outcome.anomaly)
    if error_type is not None:
        span.set_attribute(semconv.ERROR_TYPE, error_type)
    elif not state.fixed_shapes:
        span.set_attribute(semconv.OUTPUT_SHAPES, _shapes(state, call).outputs)
    _call_response_hook(state, span, call, error)
    return state.providers.spans.end(span, unix_time(end), error, error_type)


def make_span(
    state: CallState, context: Context, call: Call, start: int, end: int, outcome: Outcome | None
) -> SpanContext | None:
    """Make the whole span of a call that is over; its context if it was sampled."""
    template = _template(state, call)
    spans = state.providers.spans
    ended = unix_time(end)
    began = ended - (end - start)
    if outcome is None and state.hookless:
        return spans.make(template, context, parent_in(context), began, ended)
    attributes = template.attributes
    error, error_type = None, None
    if outcome is not None:
        error, error_type = outcome.error, outcome.error_type
        attributes = {**attributes, **_outcome_attributes(outcome)}
    span = spans.start(state.span_name, context, attributes, began)
    _call_request_hook(state, span, call)
    _call_response_hook(state, span, call, error)
    return spans.end(span, ended, error, error_type)


def show_late(state: CallState, kind: semconv.AnomalyType, start: int, end: int) -> SpanContext | None:
    """Make a root span of a call that ended a while ago, since an anomaly was found in it; its context if sampled.

    What it moved is no longer known, so the shapes are those that are fixed.
    """
    ended = unix_time(end)
    attributes = {**_fixed_attributes(state), semconv.ANOMALY_TYPE: kind}
    spans = state.providers.spans
    span = spans.start(state.span_name, Context(), attributes, ended - (end - start))
    return spans.end(span, ended, None, None)


def _template(state: CallState, call: Call) -> SpanTemplate:
    """Return what is known without the outcome."""
    template = state.span_template
    if template is None:
        template = SpanTemplate(state.span_name, _fixed_attributes(state))
        # The digest of a large file is read in the background, and not to be missing from what is kept.
        if state.model.identified:
            state.span_template = template
    return template if state.fixed_shapes else _with_shapes(state, template, _shapes(state, call))


def template_of(state: CallState, kind: CallKind | None) -> SpanTemplate | None:
    """Return the template of the span of a success that its ``kind`` describes in full; None if it does not."""
    template = state.span_template
    if template is None or not state.hookless:
        return None
    if state.fixed_shapes:
        return template
    if kind is None:
        return None
    if kind.span_template is None:
        kind.span_template = _with_shapes(state, template, kind.shapes)
    return kind.span_template


def _with_shapes(state: CallState, template: SpanTemplate, shapes: Shapes) -> SpanTemplate:
    known = state.span_templates.get(shapes)
    if known is None:
        of_call = _shape_attributes(state.model.loaded, shapes)
        known = SpanTemplate(template.name, {**template.attributes, **of_call})
        # Spans of the same template are made in a fraction of the time.
        if template is state.span_template and len(state.span_templates) < _MOST_SHAPES:
            state.span_templates[shapes] = known
    return known


def _outcome_attributes(outcome: Outcome) -> Attributes:
    attributes: Attributes = {}
    if outcome.warmup:
        attributes[semconv.WARMUP] = True
    if outcome.error_type is not None:
        attributes[semconv.ERROR_TYPE] = outcome.error_type
    if outcome.anomaly is not None:
        attributes[semconv.ANOMALY_TYPE] = outcome.anomaly
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


def _fixed_attributes(state: CallState) -> Attributes:
    model = state.model
    facts = model.facts
    optional = {
        semconv.MODEL_DIGEST: model.digest,
        semconv.MODEL_VERSION: model.version,
        semconv.MODEL_PATH: model.shown_path,
        semconv.QUANTIZATION_WEIGHT_TYPE: facts.weight_type,
        semconv.QUANTIZATION_ACTIVATION_TYPE: facts.activation_type,
    }
    fixed: Attributes = {
        **state.series.attributes,
        # The series of a model past ``max_models`` has a name that it shares.
        semconv.MODEL_NAME: model.name,
        semconv.OPERATION_NAME: state.method.name,
        semconv.MODEL_FORMAT: facts.format,
        semconv.RUNTIME_VERSION: model.loaded.runtime_version,
        **{name: value for name, value in optional.items() if value is not None},
    }
    if state.fixed_shapes:
        # Every shape is fixed, or is not asked for: the same text for all calls.
        fixed.update(_shape_attributes(model.loaded, declared_shapes(model.loaded)))
    return fixed


def _shapes(state: CallState, call: Call) -> Shapes:
    try:
        return state.method.shapes(state.model.loaded, call)
    except Exception as problem:  # noqa: BLE001  an unusual tensor costs its shape, not the span
        internal_error(problem)
        return Shapes()


def _batch_size(loaded: LoadedModel, inputs: tuple[str, ...]) -> int | None:
    """Return the first dimension of the batch's input, ``name:8x3x224x224``; None where it is fixed or unknown."""
    if loaded.batch_input is None:
        return None
    # Inputs come in the order in which they were fed; a signature has names of its own for them.
    names = {semconv.bounded(name) for name in (loaded.batch_input, *loaded.batch_aliases)}
    named = (text.rpartition(":") for text in inputs)
    first = next((shape.partition("x")[0] for name, _, shape in named if name in names), "")
    return int(first) if first.isdecimal() else None


def _call_request_hook(state: CallState, span: Span, call: Call) -> None:
    hook = state.hooks.request
    if hook is not None and span.is_recording():
        try:
            hook(span, _inference_call(state, call))
        except Exception as problem:  # noqa: BLE001  the application's hook is not to fail its inference
            internal_error(problem)


def _call_response_hook(state: CallState, span: Span, call: Call, error: BaseException | None) -> None:
    hook = state.hooks.response
    if hook is not None and span.is_recording():
        try:
            hook(span, _inference_call(state, call), call[3], error)
        except Exception as problem:  # noqa: BLE001  as above
            internal_error(problem)


def _inference_call(state: CallState, call: Call) -> InferenceCall:
    return InferenceCall(state.model.name, state.method.name, call[0], call[1], call[2])
