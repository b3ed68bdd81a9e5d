"""The short way to a span, of a call of which there is nothing to tell but what is the same for all."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.telemetry import Telemetry, X, one_op_session
from otel_quantmon.probe.worker import worker
from otel_quantmon.settings import Settings


def warm_session(telemetry: Telemetry, instrumentor: Any) -> Any:
    """A session of the one-op model, of which all is known; it has run twice, one of them to warm up."""
    instrumentor.instrument(**telemetry.providers, settings=Settings(warmup=1, spans="parent"))
    session = one_op_session()
    # The digest is read in the background.
    worker.flush(60)
    run_in_request(telemetry, session)
    run_in_request(telemetry, session)
    (lane,) = session._quantmon_probe.lanes.values()
    assert lane.plain_spans
    assert lane.span_attributes is not None
    return session


def run_in_request(telemetry: Telemetry, session: Any) -> None:
    with telemetry.tracer_provider.get_tracer("application").start_as_current_span("request"):
        session.run(None, X)


def test_the_short_way_tells_what_the_long_one_tells(telemetry: Telemetry, instrumentor) -> None:
    """The same call by either way: the same name, kind, status and attributes; times in order; a parent; a count."""
    session = warm_session(telemetry, instrumentor)
    run_in_request(telemetry, session)
    (lane,) = session._quantmon_probe.lanes.values()
    lane.plain_spans = False
    run_in_request(telemetry, session)
    spans = telemetry.exporter.get_finished_spans()
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
    assert telemetry.calls() == 4


def test_a_tracer_that_raises_costs_the_span_alone(
    telemetry: Telemetry, instrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller has the result, and the call is counted."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    session = warm_session(telemetry, instrumentor)

    def raising(*_: Any) -> None:
        raise OSError("the tracer's own trouble")

    (lane,) = session._quantmon_probe.lanes.values()
    # The SDK's tracer does not raise: the fault of a third party's has to be put in its place.
    monkeypatch.setattr(lane.observer.spans._tracer, "start_span", raising)
    with telemetry.tracer_provider.get_tracer("other").start_as_current_span("request"):
        assert session.run(None, X)[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert telemetry.calls() == 3
