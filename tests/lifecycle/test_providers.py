"""Nowhere to report to, not yet, or for one signal only."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from exported import Exported
from fidelity.logs import Logs
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider
from real_models import one_op_onnx

from lifecycle.models import X, one_op_session, wake_word_interpreter
from lifecycle.programs import run
from otel_quantmon import semconv
from otel_quantmon.pipeline import pipelines
from otel_quantmon.settings import Settings

_LATER = """
from opentelemetry import metrics, trace
from exported import Exported
from lifecycle.models import runner
from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor
from otel_quantmon.pipeline import pipelines

for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
    instrumentor.instrument()
runs = runner("onnxruntime"), runner("litert")

def work(times):
    for _ in range(times):
        for run in runs:
            run()

work(600)  # more than a state's queue holds
(pipeline,) = pipelines()
assert not [state for state in pipeline.recorder._pending if state.durations or state.records]
exported = Exported()
metrics.set_meter_provider(exported.meter_provider)
work(7)
counted = exported.calls()
trace.set_tracer_provider(exported.tracer_provider)
with trace.get_tracer("application").start_as_current_span("request"):
    work(1)
print(counted, exported.calls(), len(exported.exporter.get_finished_spans()))
"""


def test_providers_set_after_the_first_calls() -> None:
    """Before there is a provider nothing is kept; from the first call after it is set each one is counted, and
    spans come as soon as there is a tracer.
    """
    assert run(_LATER).stdout == "14 16 3\n"


_TRACES_FIRST = """
from opentelemetry import metrics, trace
from exported import Exported
from lifecycle.models import runner
from otel_quantmon import ONNXRuntimeInstrumentor

ONNXRuntimeInstrumentor().instrument()
run = runner("onnxruntime")
run()
exported = Exported()
trace.set_tracer_provider(exported.tracer_provider)
with trace.get_tracer("application").start_as_current_span("request"):
    run()
metrics.set_meter_provider(exported.meter_provider)
run()
print(len(exported.exporter.get_finished_spans()), exported.calls())
"""


def test_a_tracer_provider_alone_ends_the_waiting() -> None:
    """Either of the two is enough to be observed; a call that waits when the other comes is in its first collection."""
    assert run(_TRACES_FIRST).stdout == "2 2\n"


@pytest.mark.parametrize("missing", ["tracer_provider", "meter_provider"])
def test_one_signal_alone(missing: str, exported: Exported, instrumentor) -> None:
    """With a provider that does nothing for one signal the other one is whole, and no record waits for ever."""
    nothing = {"tracer_provider": NoOpTracerProvider(), "meter_provider": NoOpMeterProvider()}[missing]
    settings = Settings(spans="all", queue_size=16)
    instrumentor.instrument(**(exported.providers | {missing: nothing}), settings=settings)
    session = one_op_session()
    for _ in range(100):
        assert session.run(None, X)[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert len(session._quantmon_probe.states) == 1
    (state,) = session._quantmon_probe.states.values()
    waiting = len(state.durations) + len(state.records)
    assert waiting <= 100 if missing == "tracer_provider" else waiting < 16
    spans = len(exported.exporter.get_finished_spans())
    assert (exported.calls(), spans) == ((100, 0) if missing == "tracer_provider" else (0, 100))


def test_no_provider_at_all(instrumentor) -> None:
    """With no-op providers for both, results are right and nothing is kept."""
    instrumentor.instrument(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    session = one_op_session()
    for _ in range(100):
        assert session.run(None, X)[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert session._quantmon_probe.states == {}


def test_a_call_without_a_provider_costs_two_calls_in_python(instrumentor) -> None:
    """The wrapper, one question whether there is a provider by now, and the session's own method: nothing else runs."""
    instrumentor.instrument()
    session = one_op_session()
    session.run(None, X)
    entered: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            entered.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        session.run(None, X)
    finally:
        sys.setprofile(None)
    assert entered[:3] == ["call", "idle", "run"]


class _Older:
    """A provider of spans or metrics with the signatures of the API's first releases."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def get_tracer(self, name: str, version: str | None = None) -> Any:
        return self._real.get_tracer(name, version)

    def get_meter(self, name: str, version: str | None = None) -> Any:
        return self._real.get_meter(name, version)


def test_providers_with_older_signatures(exported: Exported, instrumentor: Any) -> None:
    """A provider that knows no ``schema_url`` is asked without it, and has all spans and metrics."""
    older = {name: _Older(provider) for name, provider in exported.providers.items()}
    instrumentor.instrument(**older, settings=Settings(spans="all"))
    session = one_op_session()
    for _ in range(10):
        session.run(None, X)
    assert (exported.calls(), len(exported.raw_spans())) == (10, 10)


_LATE_AND_FAILING = """
import sys
from opentelemetry import metrics, trace
from exported import Exported
from lifecycle.models import runner
from otel_quantmon import ONNXRuntimeInstrumentor

class Failing(trace.TracerProvider):
    def get_tracer(self, *args, **kwargs):
        if sys.argv[1] == "raises" or "schema_url" in kwargs or len(args) > 2:
            raise TypeError("no such argument")
        return exported.tracer_provider.get_tracer(*args)

exported = Exported()
ONNXRuntimeInstrumentor().instrument()
run = runner("onnxruntime")
run()
trace.set_tracer_provider(Failing())
for _ in range(5):
    assert run()[0].tolist() == [1.0, 2.0, 3.0, 4.0]
metrics.set_meter_provider(exported.meter_provider)
with exported.tracer.start_as_current_span("request"):
    for _ in range(5):
        run()
print(exported.calls(), len(exported.raw_spans()))
"""


@pytest.mark.parametrize(("kind", "told"), [("raises", "5 0"), ("is older", "10 5")])
def test_a_provider_of_spans_that_is_set_late_and_fails(kind: str, told: str) -> None:
    """It costs spans at most: no call raises, and calls are counted as soon as there are metrics."""
    done = run(_LATE_AND_FAILING, kind, variables={"QUANTMON_TEST_GUARD": "swallow"})
    assert done.stdout.strip() == told
    assert done.stderr.count("steps aside") == (kind == "raises")


def test_a_session_of_a_class_whose_getattr_raises(exported: Exported, instrumentor: Any) -> None:
    """A session made before instrumenting whose ``__getattr__`` raises something of its own runs, and is observed."""
    import onnxruntime

    class Strict(onnxruntime.InferenceSession):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    session = Strict(str(one_op_onnx()), providers=["CPUExecutionProvider"])
    instrumentor.instrument(**exported.providers)
    for _ in range(10):
        assert session.run(None, X)[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert exported.calls() == 10


def test_events_go_to_the_provider_that_was_given_last(
    exported: Exported, instrumentor: Any, tflite_instrumentor: Any
) -> None:
    """One instrumentor is given none, the other one; a third that is given later takes its place, and none does not."""
    # Both runtimes are imported from here on.
    one_op_session(), wake_word_interpreter()
    given: tuple[Any, ...] = (None, Logs(), None, Logs(), None)
    for number, logs in enumerate(given):
        one = instrumentor if number % 2 == 0 else tflite_instrumentor
        if one.is_instrumented_by_opentelemetry:
            one.uninstrument()
        one.instrument(**exported.providers, logger_provider=logs and logs.provider)
        (pipeline,) = [one for one in pipelines() if one.providers.meter_provider is exported.meter_provider]
        if number:
            assert pipeline.providers.events.emit(
                semconv.EVENT_ANOMALY_ENTERED, {"number": number}, "body", warning=True
            )
    emitted = [[record.attributes["number"] for record in logs.records] for logs in given if logs]
    assert emitted == [[1, 2], [3, 4]]
