"""Never in the way: with any part of the observation broken, the application has its results and its errors."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from exported import Exported
from opentelemetry.trace import use_span
from real_models import magika_inputs, magika_qdq

from lifecycle.faults import Fault, Faulty, fail
from lifecycle.models import X, one_op_session
from lifecycle.programs import run
from otel_quantmon import guard
from otel_quantmon.process import host as process
from otel_quantmon.process.worker import worker
from otel_quantmon.settings import Settings

_CALLS = 30


@pytest.fixture(autouse=True)
def _production(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard as it is outside pytest, with nothing reported yet."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    monkeypatch.setattr(guard, "_reported", set())


@dataclass(frozen=True)
class _Seam:
    """One place where the observation meets something that can fail.

    Attributes:
        name: of the test.
        patches: what to replace with a failure, as a dotted path.
        arguments: of `instrument`, over the test's own providers.
        faulty: name of a method that fails on everything that the test's providers hand out.
        counts: whether the inferences are counted all the same.
    """

    name: str
    patches: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    faulty: str | None = None
    counts: bool = True


_ALL_SPANS = {"settings": Settings(spans="all")}

_SEAMS = (
    _Seam("request hook", arguments={"request_hook": fail}),
    _Seam("response hook", arguments={"response_hook": fail}),
    _Seam("get_tracer", faulty="get_tracer"),
    _Seam("get_meter", faulty="get_meter", counts=False),
    _Seam("start_span", faulty="start_span", counts=False),
    _Seam(
        "start_span before", faulty="start_span", arguments={"request_hook": lambda *_: None}, counts=False
    ),
    _Seam("span.end", faulty="end", arguments=_ALL_SPANS, counts=False),
    _Seam("span.record_exception", faulty="record_exception", counts=False),
    _Seam("create_histogram", faulty="create_histogram", counts=False),
    _Seam("create_counter", faulty="create_counter"),
    _Seam("create_observable_gauge", faulty="create_observable_gauge"),
    _Seam("histogram.record", faulty="record", counts=False),
    _Seam("counter.add", faulty="add", counts=False),
    _Seam("monitor takes calls", ("otel_quantmon.recording.latency.LatencyMonitor.observe",), counts=False),
    _Seam("monitor tells", ("otel_quantmon.recording.latency.LatencyMonitor.summary",)),
    _Seam("settings", ("otel_quantmon.instrumentors.load_settings",), counts=False),
    _Seam("settings of the model", ("otel_quantmon.settings.Settings.for_model",), counts=False),
    _Seam("facts", ("otel_quantmon.models.identity.read_facts",), counts=False),
    _Seam("digest", ("otel_quantmon.models.identity.read_digest",)),
    _Seam("describe", ("otel_quantmon.runtimes.onnxruntime.attach.RUNTIME.describe",), counts=False),
    _Seam("measure", ("otel_quantmon.runtimes.onnxruntime.reading.measure_run",), counts=False),
    _Seam("shapes", ("otel_quantmon.runtimes.onnxruntime.reading.shapes_of_run",), _ALL_SPANS),
    _Seam("attach", ("otel_quantmon.runtimes.onnxruntime.attach.RUNTIME.patch",), counts=False),
    _Seam("call state", ("otel_quantmon.probe.probe.CallState",), counts=False),
    _Seam(
        "resident memory",
        (
            "otel_quantmon.runtimes.attachment.resident_memory",
            "otel_quantmon.recording.gauges.resident_memory",
        ),
    ),
    _Seam("cpu", ("otel_quantmon.recording.gauges.cpu_isa",)),
    _Seam("worker", ("otel_quantmon.process.worker.Worker.submit",)),
    _Seam(
        "watchdog",
        ("otel_quantmon.process.watchdog.Watchdog.watch",),
        {"settings": Settings(timeout=30.0)},
    ),
    _Seam(
        "disarm",
        ("otel_quantmon.runtimes.onnxruntime.timeouts.RunOptionsTimeouts.disarm",),
        {"settings": Settings(timeout=30.0)},
    ),
)


def _magika() -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])


def _application(session: Any, features: Any, tracer: Any) -> list[Any]:
    """What an application does: results and errors, in and outside of a span."""
    outcomes: list[Any] = []
    for number in range(_CALLS):
        outcomes.append(session.run(None, {"bytes": features})[0].tobytes())
        if number % 10 == 0:
            with use_span(tracer.start_span("request"), end_on_exit=True):
                outcomes.append(session.run(None, {"bytes": features})[0].tobytes())
                outcomes.append(_error(lambda: session.run(None, {"bytes": features[:, :7]})))
    return outcomes


def _error(call: Callable[[], object]) -> tuple[str, str]:
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    raise AssertionError("nothing was raised")


@pytest.fixture(scope="module")
def bare() -> tuple[Any, list[Any]]:
    """Input of the application, and what it gives when nobody looks."""
    features = np.asarray(magika_inputs(1))
    return features, _application(_magika(), features, Exported().tracer_provider.get_tracer("app"))


@pytest.mark.parametrize("seam", _SEAMS, ids=lambda seam: seam.name)
def test_a_failure_stays_inside(
    seam: _Seam,
    bare: tuple[Any, list[Any]],
    exported: Exported,
    instrumentor: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Results, errors and their texts are those of the bare application; the failure is told in the log once,
    however often it happens; collections go on; and what can still be counted is.
    """
    for path in seam.patches:
        monkeypatch.setattr(path, fail)
    providers = exported.providers
    if seam.faulty is not None:
        providers = {name: Faulty(provider, seam.faulty) for name, provider in providers.items()}
    features, expected = bare
    instrumentor.instrument(**(providers | seam.arguments))
    session = _magika()
    assert _application(session, features, exported.tracer_provider.get_tracer("app")) == expected
    if seam.name != "worker":
        assert worker.flush(20)
    points = exported.points_by_name()
    instrumentor.uninstrument()
    assert _error(lambda: session.run(None, {"bytes": features[:, :7]})) == expected[2]
    told = [(record.name, record.exc_info[0]) for record in caplog.records if record.exc_info]
    assert told == [("otel_quantmon", Fault)]
    if seam.counts:
        counted = sum(point.count for point in points["quantmon.inference.duration"])
        assert counted == len(expected)
    if seam.faulty in ("get_meter", "create_histogram", "create_counter", "create_observable_gauge", "add"):
        # Metrics that fail cost metrics: each call in a span of the application's has its own.
        assert len([span for span in exported.raw_spans() if span.parent is not None]) == 2 * 3


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, ValueError]
)
@pytest.mark.parametrize("settings", [Settings(), Settings(spans="all", timeout=30.0)], ids=["fast", "slow"])
def test_what_the_application_raises(
    kind: type[BaseException], settings: Settings, exported: Exported, instrumentor: Any
) -> None:
    """An exception of any kind that comes out of a run is the very one that the caller catches, with no cause and
    no context added, and is counted under its name.
    """
    import onnxruntime

    raised = kind("from below")

    def interrupted(*_: Any, **__: Any) -> Any:
        raise raised

    base = onnxruntime.InferenceSession.__mro__[1]
    original = base.run
    session = one_op_session()
    base.run = interrupted
    try:
        instrumentor.instrument(**exported.providers, settings=settings)
        with pytest.raises(kind) as caught:
            session.run(None, X)
        instrumentor.uninstrument()
    finally:
        base.run = original
    assert caught.value is raised
    assert raised.__cause__ is None
    assert raised.__context__ is None
    (point,) = exported.points_by_name()["quantmon.inference.duration"]
    assert point.attributes["error.type"].rpartition(".")[2] == kind.__name__
    assert exported.active() == 0


def test_an_interrupt_during_our_own_work(exported: Exported, instrumentor: Any) -> None:
    """A KeyboardInterrupt that happens to meet a hook belongs to the application and reaches it."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    instrumentor.instrument(**exported.providers, settings=Settings(spans="all"), response_hook=interrupted)
    with pytest.raises(KeyboardInterrupt):
        one_op_session().run(None, X)


def test_no_psutil(exported: Exported, instrumentor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where psutil cannot be imported the inferences are counted, and memory is what is missing."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    process._process.cache_clear()
    instrumentor.instrument(**exported.providers)
    session = one_op_session()
    session.run(None, X)
    assert exported.calls() == 1
    process._process.cache_clear()


def test_nowhere_to_write_to(
    exported: Exported, instrumentor: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a read-only root there is no folder for the optimized graph: the nodes are counted without, and that is no
    failure of ours.
    """

    def none(*_: Any) -> Any:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    instrumentor.instrument(**exported.providers)
    session = _magika()
    session.run(None, {"bytes": np.asarray(magika_inputs(1))})
    assert worker.flush(60)
    assert exported.points("quantmon.execution_provider.nodes") != []
    assert exported.points("quantmon.quantization.unfused_nodes") == []
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_failing_job_does_not_end_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """Jobs after one that raised are done."""
    done: list[int] = []
    worker.submit(fail)
    worker.submit(lambda: done.append(1))
    assert worker.flush(20)
    assert done == [1]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [Fault]


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started a job is refused and not kept, and the next one starts the thread."""
    import threading

    from otel_quantmon.process.worker import Worker

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    own, done = Worker("test"), []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            own.submit(lambda: done.append("refused"))
    own.submit(lambda: done.append("done"))
    assert own.flush(20)
    assert done == ["done"]


def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture) -> None:
    """A failure is told once for each place and kind, and no more than a hundred places are told of; a handler
    that raises stops nothing.
    """

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise Fault

    def failing(number: int) -> Exception:
        try:
            exec(compile("\n" * number + "raise ValueError", "<place>", "exec"))
        except ValueError as error:
            return error
        raise AssertionError

    for _ in range(3):
        for number in range(150):
            guard.internal_error(failing(number))
    assert len(caplog.records) == 100
    guard._reported.clear()
    handler = Broken()
    logging.getLogger("otel_quantmon").addHandler(handler)
    try:
        guard.internal_error(failing(0))
    finally:
        logging.getLogger("otel_quantmon").removeHandler(handler)


def test_the_guard_shows_our_bugs_under_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the switch that this module sets, a failure of ours fails the test that meets it."""
    monkeypatch.delenv("QUANTMON_TEST_GUARD")
    with pytest.raises(Fault), guard.guarded:
        fail()


_IMPORT = """
import sys
from lifecycle.faults import fail
from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor
seam = sys.argv[1]
if seam == "probe":
    sys.modules["otel_quantmon.pipeline"] = None  # our own import fails
elif seam == "runtime":
    import otel_quantmon.runtimes.onnxruntime.attach as ours, otel_quantmon.runtimes.tflite.attach as theirs
    ours.RUNTIME.patch = theirs.RUNTIME.patch = fail
for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
    instrumentor.instrument()
from onnxruntime import InferenceSession
from ai_edge_litert.interpreter import Interpreter
from lifecycle.models import X, one_op_session, wake_word_interpreter
wake_word_interpreter().invoke()
print(one_op_session().run(None, X)[0].tolist())
for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
    instrumentor.uninstrument()
"""


@pytest.mark.parametrize("seam", ["probe", "runtime"])
def test_an_import_is_never_broken(seam: str) -> None:
    """With our own modules broken, the application's imports of both runtimes and its runs go on."""
    done = run(_IMPORT, seam, variables={"QUANTMON_TEST_GUARD": "swallow"})
    assert done.stdout == "[1.0, 2.0, 3.0, 4.0]\n"
    assert "steps aside" in done.stderr
