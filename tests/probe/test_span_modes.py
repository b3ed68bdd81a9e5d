"""Which calls get a span, whose child it is, what the hooks see of it, and how metrics lead to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, Span, get_current_span, use_span
from runtimes.models import doubling

from otel_quantmon import InferenceCall

Instrument = Callable[..., None]

X = {"x": np.ones((2, 3), np.float32)}
WRONG = {"x": np.ones((2, 5), np.float32)}


def session_of(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def suppressed(exported: Exported) -> int:
    return sum(point.value for point in exported.points("quantmon.spans.suppressed"))


@pytest.mark.parametrize(
    ("mode", "under_a_parent", "without", "on_failure"),
    [("auto", 1, 0, 1), ("all", 1, 1, 1), ("parent", 1, 0, 0), ("none", 0, 0, 0)],
)
def test_the_mode_decides_which_calls_get_a_span(
    mode: str, under_a_parent: int, without: int, on_failure: int, exported: Exported, instrument: Instrument
) -> None:
    """Under a recording parent, without any (no budget yet), and for a failure; every call is counted in any mode."""
    instrument(spans=mode, span_budget=0.0)
    session = session_of(doubling())
    with exported.tracer.start_as_current_span("request"):
        session.run(None, X)
    assert len(exported.raw_spans()) == under_a_parent
    session.run(None, X)
    assert len(exported.raw_spans()) == under_a_parent + without
    with pytest.raises(InvalidArgument):
        session.run(None, WRONG)
    assert len(exported.raw_spans()) == under_a_parent + without + on_failure
    assert exported.count() == 3
    assert suppressed(exported) == (1 if mode == "auto" else 0)


def test_a_parent_that_was_not_sampled_has_no_children(exported: Exported, instrument: Instrument) -> None:
    """A trace that was decided against gets no root span of ours in its place, and none counts as withheld."""
    instrument(spans="auto", span_budget=1.0)
    tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("application")
    session = session_of(doubling())
    with tracer.start_as_current_span("request"):
        for _ in range(50):
            session.run(None, X)
    assert exported.raw_spans() == []
    assert suppressed(exported) == 0
    assert exported.count() == 50


def test_root_spans_keep_to_their_budget_and_the_rest_is_counted(
    exported: Exported, instrument: Instrument
) -> None:
    """With a generous budget some calls get a span; those and the withheld ones add up to all, exactly."""
    instrument(spans="auto", span_budget=1.0)
    session = session_of(doubling())
    calls = 2000
    for _ in range(calls):
        session.run(None, X)
    shown = len(exported.raw_spans())
    assert 0 < shown < calls
    assert suppressed(exported) == calls - shown
    assert exported.count() == calls


def test_without_traces_no_span_counts_as_withheld(exported: Exported, instrument: Instrument) -> None:
    """Traces off, metrics on: the calls are counted, and the budget has kept nothing from anyone."""
    instrument(spans="auto", span_budget=1.0, tracer_provider=NoOpTracerProvider())
    session = session_of(doubling())
    for _ in range(500):
        session.run(None, X)
    assert exported.count() == 500
    assert suppressed(exported) == 0
    # Each call went on by the cheap way: credit that nothing can use is not kept.
    assert all(state.credit < state.span_due for state in session._quantmon_probe.states.values())


def test_without_metrics_spans_are_made(exported: Exported, instrument: Instrument) -> None:
    """Traces on, metrics off."""
    instrument(spans="all", meter_provider=NoOpMeterProvider())
    session_of(doubling()).run(None, X)
    assert [span.name for span in exported.raw_spans()] == ["inference doubling"]
    assert exported.raw_metrics() == {}


def test_a_span_covers_its_call_within_its_parents(exported: Exported, instrument: Instrument) -> None:
    """Start and end are the call's own although the span is made after it; siblings follow one another."""
    instrument()
    session = session_of(doubling())
    with exported.tracer.start_as_current_span("request") as request:
        session.run(None, X)
        session.run(None, X)
    first, second = exported.raw_spans()
    times = [
        request.start_time,
        first.start_time,
        first.end_time,
        second.start_time,
        second.end_time,
        request.end_time,
    ]
    assert times == sorted(times)
    assert len(set(times)) == 6


def test_the_runtime_runs_in_the_callers_context(exported: Exported, instrument: Instrument) -> None:
    """What the application calls within the inference, here its own feed, stays a child of the application's span."""
    instrument()
    session = session_of(doubling())
    current: list[Span] = []

    class Feed(dict[str, Any]):
        def keys(self) -> Any:
            current.append(get_current_span())
            return super().keys()

    with exported.tracer.start_as_current_span("request") as request:
        session.run(None, Feed(X))
    assert current == [request]


def test_warm_up_calls_say_so_and_stay_out_of_the_window(exported: Exported, instrument: Instrument) -> None:
    """The first calls have ``quantmon.warmup``; the window begins after them, the histogram with the first."""
    instrument(warmup=2)
    session = session_of(doubling())
    for _ in range(2):
        session.run(None, X)
    assert exported.points("quantmon.inference.window.duration") == []
    session.run(None, X)
    warm = [(span.attributes or {}).get("quantmon.warmup") for span in exported.raw_spans()]
    assert warm == [True, True, None]
    assert len(exported.points("quantmon.inference.window.duration")) == 4
    assert exported.count() == 3


def test_exemplars_lead_to_the_span(exported: Exported, instrument: Instrument) -> None:
    """Trace and span id of the duration's exemplar are those of the inference span, and its value that duration."""
    # In mode `auto` the first call, if it takes long, has earned a root span.
    instrument(spans="parent")
    session = session_of(doubling())
    session.run(None, X)
    with exported.tracer.start_as_current_span("request"):
        session.run(None, X)
    (span,) = exported.raw_spans()
    (exemplar,) = exported.point("quantmon.inference.duration").exemplars
    assert span.context is not None
    assert (exemplar.trace_id, exemplar.span_id) == (span.context.trace_id, span.context.span_id)
    assert exemplar.value == pytest.approx(((span.end_time or 0) - (span.start_time or 0)) * 1e-9, rel=1e-6)


def test_many_spans_of_one_bucket_are_all_counted(exported: Exported, instrument: Instrument) -> None:
    """Only one exemplar a bucket is kept, and every duration is recorded, with its error or without."""
    instrument(spans="all")
    session = session_of(doubling())
    for _ in range(40):
        session.run(None, X)
        with pytest.raises(InvalidArgument):
            session.run(None, WRONG)
    assert len(exported.raw_spans()) == exported.count() == 80
    assert exported.count(error_type="onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument") == 40


def test_hooks_see_the_span_the_call_and_its_result(exported: Exported, instrument: Instrument) -> None:
    """The request hook runs before the inference, the response hook after it; both may add to the span."""
    seen: list[tuple[str, InferenceCall, Any, Any]] = []

    def request(span: Span, call: InferenceCall) -> None:
        span.set_attribute("app.asked", True)
        seen.append(("request", call, None, None))

    def response(span: Span, call: InferenceCall, result: Any, error: BaseException | None) -> None:
        span.set_attribute("app.answered", result is not None)
        seen.append(("response", call, result, error))

    instrument(request_hook=request, response_hook=response)
    session = session_of(doubling())
    (result,) = session.run(["y"], input_feed=X)
    with pytest.raises(InvalidArgument) as raised:
        session.run(None, WRONG)
    assert [kind for kind, *_ in seen] == ["request", "response"] * 2
    call = seen[0][1]
    assert (call.model, call.operation, call.args) == ("doubling", "run", (["y"],))
    assert call.instance is session
    assert call.kwargs["input_feed"] is X
    assert seen[1][2][0] is result
    assert seen[3][2:] == (None, raised.value)
    added = [{k: v for k, v in (s.attributes or {}).items() if k[:3] == "app"} for s in exported.raw_spans()]
    assert added == [{"app.asked": True, "app.answered": True}, {"app.asked": True, "app.answered": False}]
    outputs = [(span.attributes or {}).get("quantmon.output.shapes") for span in exported.raw_spans()]
    assert outputs == [("y:2x3",), None]


def test_a_span_made_late_for_a_failure_is_given_to_the_hooks(
    exported: Exported, instrument: Instrument
) -> None:
    """Nobody knew before the call that it would get a span; both hooks see it afterwards, once."""
    seen: list[str] = []
    instrument(
        spans="auto",
        span_budget=0.0,
        request_hook=lambda span, call: seen.append("request"),
        response_hook=lambda span, call, result, error: seen.append(type(error).__name__),
    )
    session = session_of(doubling())
    session.run(None, X)
    assert seen == []
    with pytest.raises(InvalidArgument):
        session.run(None, WRONG)
    assert seen == ["request", "InvalidArgument"]


def test_hooks_are_not_called_for_a_span_that_is_not_recorded(
    exported: Exported, instrument: Instrument
) -> None:
    """A sampler that drops the span spares the hook's cost."""
    seen: list[str] = []
    instrument(
        tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False),
        request_hook=lambda span, call: seen.append("request"),
        response_hook=lambda span, call, result, error: seen.append("response"),
    )
    session_of(doubling()).run(None, X)
    assert seen == []
    assert exported.count() == 1


@pytest.mark.parametrize("failing", ["request_hook", "response_hook"])
def test_a_hook_that_raises_does_not_fail_the_inference(
    failing: str, exported: Exported, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets the result; the span and the count are exported as if there were no hook."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")

    def raising(*_: Any) -> None:
        raise ValueError("of the hook")

    instrument(**{failing: raising})
    (result,) = session_of(doubling()).run(None, X)
    np.testing.assert_array_equal(result, 2 * X["x"])
    assert len(exported.raw_spans()) == exported.count() == 1


def test_a_remote_parent_that_was_sampled_may_have_a_root_span(
    exported: Exported, instrument: Instrument
) -> None:
    """A parent that does not record but was sampled, as one from another process, falls under the budget."""
    instrument(spans="auto", span_budget=0.0)
    with exported.tracer.start_as_current_span("request") as request:
        pass
    session = session_of(doubling())
    with use_span(request):
        session.run(None, X)
    assert exported.raw_spans() == []
    assert suppressed(exported) == 1
