"""When a signal changes: counted once, told once, shown on the next call's span; and what is no change."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from models.formats.onnx_models import CONV_INPUT, quantized_conv_net
from runtimes.models import doubling, until_told

from fidelity.logs import Logs
from fidelity.waiting import (
    anomalies,
    evaluate,
    fidelity_of,
    judge,
    outcomes,
    pipeline_of,
    settle,
    until,
    warnings,
)
from otel_quantmon import Anomaly, InferenceTimeoutError, ONNXRuntimeInstrumentor, Settings
from otel_quantmon.detection import durations
from otel_quantmon.detection.kept import KeptBaselines
from otel_quantmon.detection.monitor import Monitor
from otel_quantmon.process.host import cpu_isa
from otel_quantmon.process.watchdog import Ticket, Watchdog
from otel_quantmon.process.worker import worker

Instrument = Callable[..., None]

# No root span unless something is notable.
QUIET = {"spans": "auto", "span_budget": 0.0}


def shown(exported: Exported) -> list[Any]:
    """The anomaly of each span."""
    return [(span.attributes or {}).get("quantmon.anomaly.type") for span in exported.raw_spans()]


def test_an_error_that_was_there_from_the_start_is_told_once_and_hides_no_later_one(
    square: str, instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """A model that is far from float is no anomaly; that it goes farther is one, with its span, its gauge and event."""
    instrument(reference={"*": square}, reference_budget=1.0, **QUIET)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)

    def compare(low: float, high: float, count: int) -> dict[str, int]:
        def run() -> None:
            session.run(None, {"x": rng.uniform(low, high, (1, 3)).astype(np.float32)})

        evaluate(exported, run, sum(outcomes(exported).values()) + count)
        return anomalies(exported)

    assert compare(3.0, 3.2, 110) == {}
    (far,) = warnings(caplog)
    assert "far from its float reference on y: relative error 0.3" in far
    assert exported.point("quantmon.anomaly.active", anomaly="relative_error").value == 0
    compare(5.0, 5.2, 64)
    assert exported.point("quantmon.anomaly.active", anomaly="relative_error").value == 1
    assert exported.point("quantmon.anomalies", anomaly="relative_error").value == 1
    assert any("relative_error is anomalous on y" in message for message in warnings(caplog))
    session.run(None, {"x": np.full((1, 3), 5, np.float32)})
    assert shown(exported)


def test_a_suspicion_has_the_reference_look_at_each_call(
    square: str, instrument: Instrument, exported: Exported
) -> None:
    """A budget that pays for next to nothing is left for a burst of 64 evaluations, once, and kept to thereafter."""
    instrument(reference={"*": square}, reference_budget=1e-6, check_budget=1.0, **QUIET)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    calls = itertools.count()

    def run() -> None:
        # Calls in a row are unlike for certain, where random ones would be alike by chance once in a hundred runs: all
        # numbers grow with this one, and what is small is followed by what is large.
        turn = next(calls) * 0.5618 % 1.0
        session.run(None, {"x": np.array([[2.0, 3.0, 4.0 + 4.0 * turn]], np.float32)})

    evaluate(exported, run, 1)
    assessment = fidelity_of(exported)
    until(lambda: assessment.signals.autocorrelation.alike is False, run)
    worker.submit(lambda: assessment.look_closer(1000.0))
    evaluate(exported, run, 60)
    # The last of the burst asks for the next one as the budget has it: in hours.
    until(lambda: sum(outcomes(exported).values()) >= 65, run)
    worker.submit(lambda: assessment.look_closer(1001.0))
    for _ in range(50):
        run()
        settle()
    assert sum(outcomes(exported).values()) <= 66


def test_inputs_outside_the_range_are_an_anomaly(
    tmp_path: Path, instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """After a hundred checks inside the range, inputs a hundred times too large are one anomaly of clipping."""
    instrument(check_budget=1.0, anomalies=("clipping",), **QUIET)
    session = onnxruntime.InferenceSession(
        str(quantized_conv_net(tmp_path, "QDQ")), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(6)

    def run(low: float, high: float) -> None:
        images = rng.uniform(low, high, size=(64, 1, 8, 8)).astype(np.float32)
        session.run(None, {CONV_INPUT: images})
        judge(exported)

    until(lambda: bool(exported.points("quantmon.anomaly.active")), lambda: run(0.0, 1.0))
    assert anomalies(exported) == {}
    until(lambda: bool(anomalies(exported)), lambda: run(-100.0, 300.0))
    run(-100.0, 300.0)
    assert anomalies(exported) == {"clipping": 1}
    assert shown(exported) == ["clipping"]
    assert f"clipping is anomalous on {CONV_INPUT}" in warnings(caplog)[-1]


def test_a_nan_where_none_was_is_a_fact(instrument: Instrument, exported: Exported) -> None:
    """After twenty checks without, the first NaN counts at once, and the next call shows it though it has no parent."""
    instrument(check_budget=1.0, anomalies=("nonfinite",), **QUIET)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])

    def run(value: float) -> None:
        session.run(None, {"x": np.full((2, 3), value, np.float32)})
        judge(exported)

    until(lambda: bool(exported.points("quantmon.anomaly.active")), lambda: run(1.0))
    assert not exported.raw_spans()
    until(lambda: bool(anomalies(exported)), lambda: run(np.nan))
    run(1.0)
    run(1.0)
    assert anomalies(exported) == {"nonfinite": 1}
    assert shown(exported) == ["nonfinite"]


def test_a_nan_is_seen_in_what_is_only_compared(
    square: str, instrument: Instrument, exported: Exported
) -> None:
    """A sample that was taken for the reference is checked all the same."""
    instrument(reference={"*": square}, reference_budget=1.0, check_budget=0.0, **QUIET)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((1, 3), np.float32)})
    settle()
    evaluate(exported, lambda: session.run(None, {"x": np.full((1, 3), np.nan, np.float32)}), 2)
    assert exported.points("quantmon.tensor.nonfinite")


@pytest.fixture
def one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are compared with each other whatever the pauses between them, which are the machine's doing here."""
    never = 1 << 62
    for kind in ("_SHORT", "_LONG"):
        monkeypatch.setattr(durations, kind, (never, *getattr(durations, kind)[1:]))


def keep_faster(folder: str, exported: Exported, names: list[str]) -> list[str]:
    """Keep baselines of `doubling` under these names, as of a machine that is far faster; the digests of the models."""
    digests: list[str] = []
    kept = KeptBaselines(folder, cpu_isa())
    for name in names:
        session = onnxruntime.InferenceSession(doubling(name), providers=["CPUExecutionProvider"])
        session.run(None, {"x": np.ones((2, 3), np.float32)})
        judge(exported)
        (series,) = [one for one in pipeline_of(exported).live_series() if one.key[0] == name]
        (of,) = [one for one in series.latency._names if one]
        digests.append(session._quantmon_probe.model.read_digest())
        monitor, rng = Monitor(1.0), random.Random(1)
        earlier = monitor.streams(name)
        at = 0
        for _ in range(40):
            at += 10**9
            ends = [at := at + 500_000 for _ in range(300)]
            earlier.durations(of, ends, [int(rng.lognormvariate(math.log(100), 0.1)) for _ in ends])
            monitor.judge(at * 1e-9)
        kept._written = None
        kept.write([(earlier, digests[-1], "CPUExecutionProvider")], 0.0)
    return digests


@pytest.mark.usefixtures("one_class")
def test_calls_slower_than_a_kept_baseline_are_an_anomaly_that_an_event_tells_of(
    tmp_path: Path, instrument: Instrument, exported: Exported, logs: Logs, caplog: Any
) -> None:
    """The first process learns; the next one starts with its baseline, and is slower from the first call on."""
    heard: list[Anomaly] = []
    folder = str(tmp_path / "kept")
    x = {"x": np.ones((2, 3), np.float32)}
    instrument(**QUIET)
    (digest,) = keep_faster(folder, exported, ["doubling"])
    ONNXRuntimeInstrumentor().uninstrument()

    after = Exported()
    ONNXRuntimeInstrumentor().instrument(
        settings=Settings(
            baseline_state=folder, anomalies=("latency_drift",), warmup=0, judgement_interval=3600.0, **QUIET
        ),
        on_anomaly=heard.append,
        logger_provider=logs.provider,
        **after.providers,
    )
    later = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    assert later._quantmon_probe.model.read_digest() == digest
    for _ in range(200):
        later.run(None, x)
    assert anomalies(after) == {"latency_drift": 1}
    (record,) = logs.records
    told = dict(record.attributes or {})
    # Before records had names for events, it is an attribute.
    name = getattr(record, "event_name", None) or told["event.name"]
    assert name == "quantmon.anomaly.entered"
    assert told["quantmon.anomaly.type"] == "latency_drift"
    assert told["quantmon.baseline.source"] == "kept"
    assert told["quantmon.anomaly.models"] == ("doubling",)
    assert told["quantmon.anomaly.evidence"] > 1e6
    assert "where its baseline (kept) has" in warnings(caplog)[-1]
    assert {(one.what, one.type, one.model) for one in heard} == {("entered", "latency_drift", "doubling")}
    # No span had shown the call that crossed, so one was made of it, with its own times.
    own = record.trace_id, record.span_id
    (span,) = [one for one in after.raw_spans() if (one.context.trace_id, one.context.span_id) == own]
    shown_as = dict(span.attributes or {})
    assert shown_as["quantmon.anomaly.type"] == "latency_drift"
    assert shown_as["quantmon.operation.name"] == "run"
    assert span.parent is None
    assert 0 < (span.end_time or 0) - (span.start_time or 0) < 60 * 10**9
    after.shut_down()


@pytest.mark.usefixtures("one_class")
@pytest.mark.parametrize("spans", ["auto", "parent", "none"])
def test_the_event_leads_to_the_trace_of_the_call_that_crossed(
    spans: str, tmp_path: Path, instrument: Instrument, exported: Exported, logs: Logs
) -> None:
    """A call in a sampled trace has its span already; where calls have no root spans, none is made."""
    folder = str(tmp_path / "kept")
    instrument(**QUIET)
    keep_faster(folder, exported, ["doubling"])
    ONNXRuntimeInstrumentor().uninstrument()
    after = Exported()
    ONNXRuntimeInstrumentor().instrument(
        settings=Settings(
            baseline_state=folder,
            anomalies=("latency_drift",),
            warmup=0,
            judgement_interval=3600.0,
            spans=spans,
        ),
        logger_provider=logs.provider,
        **after.providers,
    )
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    session._quantmon_probe.model.read_digest()
    with after.tracer.start_as_current_span("request"):
        for _ in range(200):
            session.run(None, {"x": np.ones((2, 3), np.float32)})
    assert anomalies(after) == {"latency_drift": 1}
    (record,) = logs.records
    known = {(span.context.trace_id, span.context.span_id) for span in after.raw_spans()}
    assert ((record.trace_id, record.span_id) in known) == (spans != "none")
    assert "latency_drift" not in shown(after)
    after.shut_down()


@pytest.mark.usefixtures("one_class")
def test_a_fault_of_the_host_is_one_event_that_names_the_models(
    tmp_path: Path, instrument: Instrument, exported: Exported, logs: Logs, caplog: Any
) -> None:
    """Three models become slower at once: each is counted, and one event and one line tell of them."""
    folder, names = str(tmp_path / "kept"), ["one", "two", "three"]
    instrument(**QUIET)
    keep_faster(folder, exported, names)
    ONNXRuntimeInstrumentor().uninstrument()
    after = Exported()
    ONNXRuntimeInstrumentor().instrument(
        settings=Settings(
            baseline_state=folder, anomalies=("latency_drift",), warmup=0, judgement_interval=3600.0, **QUIET
        ),
        logger_provider=logs.provider,
        **after.providers,
    )
    sessions = [
        onnxruntime.InferenceSession(doubling(name), providers=["CPUExecutionProvider"]) for name in names
    ]
    for session in sessions:
        session._quantmon_probe.model.read_digest()
        for _ in range(200):
            session.run(None, {"x": np.ones((2, 3), np.float32)})
    assert anomalies(after) == {"latency_drift": 3}
    (record,) = logs.records
    told = dict(record.attributes or {})
    assert sorted(told["quantmon.anomaly.models"]) == sorted(names)
    assert told["quantmon.anomaly.cause"] == "host"
    assert "quantmon.model.name" not in told
    (line,) = [message for message in warnings(caplog) if "is anomalous" in message]
    assert all(repr(name) in line for name in names)
    assert {
        point.attributes["quantmon.model.name"]: point.value
        for point in after.points("quantmon.anomaly.active", anomaly="latency_drift")
    } == dict.fromkeys(names, 1)
    after.shut_down()


def test_a_hook_that_fails_costs_nothing_else(
    instrument: Instrument, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An anomaly hook that raises is logged; the count, the gauge and the next model's judgement go on."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")

    def fail(_: Anomaly) -> None:
        raise RuntimeError("of the application")

    instrument(on_anomaly=fail, **QUIET)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((2, 3), np.float32)})
    (series,) = pipeline_of(exported).live_series()
    series.streams.fact("fallback", "Other", 1.0, 1.0)
    assert anomalies(exported) == {"fallback": 1}


def test_larger_batches_are_no_slower_calls(instrument: Instrument, exported: Exported) -> None:
    """Batches of 10,000 after a baseline of single rows: with no such batch in the baseline there is no drift."""
    instrument(baseline_calls=10, window_size=5, **QUIET)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    for _ in range(10):
        session.run(None, {"x": np.ones((1, 3), np.float32)})
    assert len(exported.points("quantmon.inference.duration.drift")) == 1
    for _ in range(5):
        session.run(None, {"x": np.ones((10_000, 3), np.float32)})
    assert exported.points("quantmon.inference.duration.drift") == []


def test_the_second_timeout_of_a_model_that_had_none_is_an_anomaly(
    instrument: Instrument, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a hundred calls in time one overrun is an accident, and two are a fact."""
    told = np.array(1, np.int64)
    watch = Watchdog.watch

    def watching(self: Watchdog, ticket: Ticket, seconds: float) -> None:
        # A call that is to end in time has all of it, one that is not has next to none.
        watch(self, ticket, seconds if told else 0.001)

    monkeypatch.setattr(Watchdog, "watch", watching)
    instrument(timeout=60.0, **QUIET)
    session = onnxruntime.InferenceSession(until_told(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((1, 3), np.float32), "told": told}
    for _ in range(100):
        session.run(None, feeds)
    assert anomalies(exported) == {}
    told[...] = False
    for count in (0, 1, 1):
        with pytest.raises(InferenceTimeoutError):
            session.run(None, feeds)
        assert anomalies(exported).get("timeout", 0) == count
    assert shown(exported).count("timeout") == 1


def test_errors_are_an_anomaly_with_their_type(
    instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """Calls that are refused after a thousand that were not are told of, with the exception's name."""
    instrument(**QUIET)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    for _ in range(1000):
        session.run(None, {"x": np.ones((2, 3), np.float32)})
    assert anomalies(exported) == {}
    for _ in range(2):
        with pytest.raises(Exception, match="INVALID_ARGUMENT"):
            session.run(None, {"x": np.ones((2, 7), np.float32)})
    assert anomalies(exported) == {"error_rate": 1}
    assert "InvalidArgument" in warnings(caplog)[-1]


def test_readers_have_no_part_in_what_is_found(instrument: Instrument, exported: Exported) -> None:
    """However many collections there are, nothing is judged by them."""
    instrument(**QUIET)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((2, 3), np.float32)})
    (series,) = pipeline_of(exported).live_series()
    series.streams.fact("fallback", "Other", 1.0, 1.0)
    for _ in range(5):
        assert exported.points("quantmon.anomalies") == []
        assert exported.points("quantmon.anomaly.active") == []
    assert anomalies(exported) == {"fallback": 1}
