"""Nowhere to report to, not yet, or for one signal only."""

from __future__ import annotations

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from lifecycle.programs import run
from lifecycle.telemetry import Telemetry, X, one_op_session
from otel_quantmon.settings import Settings

_LATER = """
from opentelemetry import metrics, trace
from lifecycle.telemetry import Telemetry, runner
from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor
from otel_quantmon.probe.observer import observers

for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
    instrumentor.instrument()
runs = runner("onnxruntime"), runner("litert")

def work(times):
    for _ in range(times):
        for run in runs:
            run()

work(600)  # more than a lane's queue holds
(observer,) = observers()
assert not [lane for lane in observer.recorder._lanes if lane.durations or lane.noted]
telemetry = Telemetry()
metrics.set_meter_provider(telemetry.meter_provider)
work(7)
counted = telemetry.calls()
trace.set_tracer_provider(telemetry.tracer_provider)
with trace.get_tracer("application").start_as_current_span("request"):
    work(1)
print(counted, telemetry.calls(), len(telemetry.exporter.get_finished_spans()))
"""


def test_providers_set_after_the_first_calls() -> None:
    """Before there is a provider nothing is kept; from the first call after it is set each one is counted, and
    spans come as soon as there is a tracer.
    """
    assert run(_LATER).stdout == "14 16 3\n"


_TRACES_FIRST = """
from opentelemetry import metrics, trace
from lifecycle.telemetry import Telemetry, runner
from otel_quantmon import ONNXRuntimeInstrumentor

ONNXRuntimeInstrumentor().instrument()
run = runner("onnxruntime")
run()
telemetry = Telemetry()
trace.set_tracer_provider(telemetry.tracer_provider)
with trace.get_tracer("application").start_as_current_span("request"):
    run()
metrics.set_meter_provider(telemetry.meter_provider)
run()
print(len(telemetry.exporter.get_finished_spans()), telemetry.calls())
"""


def test_a_tracer_provider_alone_ends_the_waiting() -> None:
    """Either of the two is enough to be observed; a call that waits when the other comes is in its first collection."""
    assert run(_TRACES_FIRST).stdout == "2 2\n"


@pytest.mark.parametrize("missing", ["tracer_provider", "meter_provider"])
def test_one_signal_alone(missing: str, telemetry: Telemetry, instrumentor) -> None:
    """With a provider that does nothing for one signal the other one is whole, and no record waits for ever."""
    nothing = {"tracer_provider": NoOpTracerProvider(), "meter_provider": NoOpMeterProvider()}[missing]
    settings = Settings(spans="all", queue_size=16)
    instrumentor.instrument(**(telemetry.providers | {missing: nothing}), settings=settings)
    session = one_op_session()
    for _ in range(100):
        assert session.run(None, X)[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert len(session._quantmon_probe.lanes) == 1
    (lane,) = session._quantmon_probe.lanes.values()
    waiting = len(lane.durations) + len(lane.noted)
    assert waiting <= 100 if missing == "tracer_provider" else waiting < 16
    spans = len(telemetry.exporter.get_finished_spans())
    assert (telemetry.calls(), spans) == ((100, 0) if missing == "tracer_provider" else (0, 100))


def test_no_provider_at_all(instrumentor) -> None:
    """With no-op providers for both, results are right and nothing is kept."""
    instrumentor.instrument(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    session = one_op_session()
    for _ in range(100):
        assert session.run(None, X)[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    (lane,) = session._quantmon_probe.lanes.values()
    assert (lane.durations, lane.noted, lane.in_flight) == ([], [], [])
