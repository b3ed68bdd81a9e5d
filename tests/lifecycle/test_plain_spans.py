"""The short way to a span, of a call of which there is nothing to tell but what is the same for all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from exported import Exported

from lifecycle.models import X, one_op_session
from otel_quantmon.process.worker import worker
from otel_quantmon.settings import Settings
from otel_quantmon.telemetry.span_proof import proof


def warm_session(exported: Exported, instrumentor: Any) -> Any:
    """A session of the one-op model, of which all is known; it has run twice, one of them to warm up."""
    instrumentor.instrument(**exported.providers, settings=Settings(warmup=1, spans="parent"))
    session = one_op_session()
    # The digest is read in the background.
    worker.flush(60)
    run_in_request(exported, session)
    run_in_request(exported, session)
    # So is it proven that spans can be made directly.
    worker.flush(60)
    (state,) = session._quantmon_probe.states.values()
    assert state.fixed_shapes
    assert state.span_template is not None
    return session


def run_in_request(exported: Exported, session: Any) -> None:
    with exported.tracer_provider.get_tracer("application").start_as_current_span("request"):
        session.run(None, X)


def test_the_short_way_tells_what_the_long_one_tells(exported: Exported, instrumentor) -> None:
    """The same call by either way: the same name, kind, status and attributes; times in order; a parent; a count."""
    session = warm_session(exported, instrumentor)
    run_in_request(exported, session)
    (state,) = session._quantmon_probe.states.values()
    state.fixed_shapes = False
    run_in_request(exported, session)
    spans = exported.exporter.get_finished_spans()
    (short, _), (long, _) = spans[-4:-2], spans[-2:]
    assert dict(short.attributes or {}) == dict(long.attributes or {})
    assert {"quantmon.model.digest", "quantmon.output.shapes"} <= set(short.attributes or {})
    assert (short.name, short.kind, short.status.status_code) == (
        long.name,
        long.kind,
        long.status.status_code,
    )
    request = spans[-3]
    assert short.parent == request.context
    times = [request.start_time, short.start_time, short.end_time, request.end_time]
    assert times == sorted(times)
    assert exported.calls() == 4


def test_a_warm_session_makes_its_spans_directly(
    exported: Exported, instrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `start_span`, which is the dearest part of a span; what is exported is what `start_span` would make."""
    session = warm_session(exported, instrumentor)
    assert proof.given
    # One is made by the SDK, the others after it.
    run_in_request(exported, session)
    started: list[str] = []
    (state,) = session._quantmon_probe.states.values()
    tracer = state.providers.spans._tracer
    start = type(tracer).start_span

    def noting(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        started.append(name)
        return start(self, name, *args, **kwargs)

    monkeypatch.setattr(type(tracer), "start_span", noting)
    run_in_request(exported, session)
    assert started == ["request"]
    # Not to be used before it is proven.
    monkeypatch.setattr(proof, "given", False)
    run_in_request(exported, session)
    assert started == ["request", "request", state.span_name]
    ours = [span for span in exported.exporter.get_finished_spans() if span.name != "request"]
    direct, public = (json.loads(span.to_json()) for span in ours[-2:])
    for span in (direct, public):
        for differs in ("context", "parent_id", "start_time", "end_time"):
            assert span.pop(differs)
    assert direct == public


def test_a_tracer_that_raises_costs_the_span_alone(
    exported: Exported, instrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller has the result, and the call is counted."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    session = warm_session(exported, instrumentor)

    def raising(*_: Any) -> None:
        raise OSError("the tracer's own trouble")

    (state,) = session._quantmon_probe.states.values()
    # The SDK's tracer does not raise: the fault of a third party's has to be put in its place.
    monkeypatch.setattr(state.providers.spans._tracer, "start_span", raising)
    with exported.tracer_provider.get_tracer("other").start_as_current_span("request"):
        assert session.run(None, X)[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert exported.calls() == 3
