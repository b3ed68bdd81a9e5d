"""One event says all of an anomaly: what, since when, how sure, at which layer, on what host, why, and what to do."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import real_models
from exported import Exported
from fidelity.logs import Logs
from fidelity.waiting import SECONDS, evaluate, judge, pipeline_of, settle, until

from otel_quantmon.detection.life_cycle import ObservedCall
from otel_quantmon.fidelity.baseline import record, write_baseline
from otel_quantmon.fidelity.inquiry import Inquiry
from otel_quantmon.fidelity.reference.client import ReferenceProcess
from otel_quantmon.fidelity.reference.layers import Entry, EntryTask
from otel_quantmon.models.formats import read_facts
from otel_quantmon.probe.probe import Probe
from otel_quantmon.process.host import cpu_isa
from otel_quantmon.recording.diagnosis import diagnose
from otel_quantmon.semconv import EVENT_ANOMALY_ENTERED, AnomalyType

Instrument = Callable[..., None]


@pytest.fixture(scope="module")
def inputs() -> list[dict[str, Any]]:
    """Eight real files, as the model takes them."""
    return [{"bytes": row[None]} for row in real_models.magika_inputs(8)]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A real model of which one layer was spoilt, and the tensor that the layer makes."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(real_models.magika_float()))
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    node = next(node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights)
    weight = onnx.numpy_helper.to_array(weights[node.input[1]]).copy()
    weight[:, ::2] = 0
    weights[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(weight, node.input[1]))
    path = tmp_path_factory.mktemp("models") / "spoilt.onnx"
    onnx.save(model, str(path))
    return path, str(node.output[0])


@pytest.fixture
def logs() -> Logs:
    return Logs()


def entered(logs: Logs) -> list[Any]:
    """Records of anomalies that were entered."""
    name = EVENT_ANOMALY_ENTERED.name
    return [
        one
        for one in logs.records
        if getattr(one, "event_name", None) == name or (one.attributes or {}).get("event.name") == name
    ]


def grow(streams: Any, kind: str, of: str, call: ObservedCall | None = None) -> None:
    """A stream that is well for 100 observations, and then is not."""
    rng = random.Random(1)
    for i in range(160):
        low = 0.01 if i < 100 else 0.5
        streams.read(kind, of, rng.uniform(low, 1.2 * low), float(i), call)


def test_one_event_says_all_of_an_error_that_has_grown(
    tmp_path: Path,
    spoilt: tuple[Path, str],
    inputs: list[dict[str, Any]],
    instrument: Instrument,
    exported: Exported,
    logs: Logs,
) -> None:
    """With a reference and a golden baseline it waits for both: the layer, and that the model computes as it did."""
    model, layer = spoilt
    golden = tmp_path / "golden.safetensors"
    write_baseline(golden, record(str(model), inputs, reference=str(real_models.magika_float())))
    instrument(
        reference={"*": str(real_models.magika_float())},
        reference_budget=1.0,
        reference_timeout=float(SECONDS),
        baseline=str(golden),
        baseline_interval=3600.0,
        spans="auto",
        span_budget=0.0,
        anomalies=("relative_error",),
        logger_provider=logs.provider,
    )
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def run() -> None:
        session.run(None, inputs[0])

    evaluate(exported, run, 1)
    (series,) = pipeline_of(exported).live_series()
    begun = datetime.now(timezone.utc)
    end = 10**9
    grow(series.streams, "relative_error", "target_label", ObservedCall(end, 5_000_000))

    def call_and_judge() -> None:
        run()
        judge(exported)

    until(lambda: bool(entered(logs)), call_and_judge)
    (told,) = entered(logs)
    attributes = dict(told.attributes or {})
    assert attributes["quantmon.anomaly.type"] == "relative_error"
    assert attributes["quantmon.anomaly.models"] == ("spoilt",)
    assert attributes["quantmon.output.name"] == "target_label"
    assert attributes["quantmon.anomaly.layer"] == layer
    assert attributes["quantmon.anomaly.cause"] == "data"
    assert "what the model is fed" in attributes["quantmon.anomaly.remedy"]
    assert attributes["quantmon.cpu.isa"] == cpu_isa()
    assert attributes["quantmon.anomaly.evidence"] > 1000
    assert 1 <= attributes["quantmon.anomaly.observations"] <= 60
    since = datetime.fromisoformat(attributes["quantmon.anomaly.since"].replace("Z", "+00:00"))
    assert begun <= since <= datetime.now(timezone.utc)
    assert f"the error enters at {layer} (Conv)" in told.body
    assert "the recorded inputs still give what they gave" in told.body
    # And the call that crossed has a span, made when it was known to have crossed, with its own times.
    (span,) = exported.raw_spans()
    assert (told.trace_id, told.span_id) == (span.context.trace_id, span.context.span_id)
    assert (span.parent, (span.attributes or {})["quantmon.anomaly.type"]) == (None, "relative_error")
    assert (span.end_time or 0) - (span.start_time or 0) == 5_000_000


def test_a_model_that_computes_something_else_is_told_from_other_data(
    tmp_path: Path,
    inputs: list[dict[str, Any]],
    instrument: Instrument,
    exported: Exported,
    logs: Logs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The recorded inputs are replayed at once, not when the timer says so, and no longer give what they gave."""
    golden = tmp_path / "golden.safetensors"
    write_baseline(golden, record(str(real_models.magika_qdq()), inputs))
    instrument(
        reference_budget=1.0,
        reference_timeout=float(SECONDS),
        baseline=str(golden),
        baseline_interval=3600.0,
        spans="none",
        anomalies=("output_distribution", "relative_error"),
        logger_provider=logs.provider,
    )
    session = onnxruntime.InferenceSession(str(real_models.magika_qdq()), providers=["CPUExecutionProvider"])
    session.run(None, inputs[0])
    until(lambda: bool(exported.points("quantmon.output.relative_error")), settle)
    replayer = Probe.replayer

    # No kernel can be made to compute otherwise from here on; this stands for one.
    def faulty(probe: Probe) -> Any:
        run = replayer(probe)
        return lambda given: {name: 0.7 * value + 0.01 for name, value in run(given).items()}

    monkeypatch.setattr(Probe, "replayer", faulty)
    (series,) = pipeline_of(exported).live_series()
    grow(series.streams, "relative_error", "target_label")
    until(lambda: bool(entered(logs)), lambda: judge(exported))
    attributes = dict(entered(logs)[0].attributes or {})
    assert attributes["quantmon.anomaly.cause"] == "machine"
    assert "quantmon certify" in attributes["quantmon.anomaly.remedy"]
    assert "quantmon.anomaly.layer" not in attributes


def test_nothing_is_waited_for_that_does_not_come(
    instrument: Instrument, exported: Exported, logs: Logs, tmp_path: Path
) -> None:
    """A golden baseline that cannot be read, and a reference's time that is over: the event goes out without."""
    instrument(
        reference={"*": str(real_models.magika_float())},
        reference_budget=1.0,
        reference_timeout=0.001,
        baseline=str(tmp_path / "missing"),
        baseline_interval=3600.0,
        spans="none",
        anomalies=("relative_error",),
        logger_provider=logs.provider,
    )
    session = onnxruntime.InferenceSession(str(real_models.magika_qdq()), providers=["CPUExecutionProvider"])
    session.run(None, {"bytes": real_models.magika_inputs(1)})
    settle()
    (series,) = pipeline_of(exported).live_series()
    grow(series.streams, "relative_error", "target_label")
    until(lambda: bool(entered(logs)), lambda: judge(exported))
    attributes = dict(entered(logs)[0].attributes or {})
    assert attributes["quantmon.anomaly.cause"] == "unknown"
    assert "record a golden baseline" in attributes["quantmon.anomaly.remedy"]


def entry_of(model: Path, inputs: dict[str, Any], *, factor: float = 1.0, seconds: float = SECONDS) -> Entry:
    """What the breakdown finds of a call whose outputs are so many times those that the file gives."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (name,) = [one.name for one in session.get_outputs()]
    (output,) = session.run(None, inputs)
    facts = read_facts(model)
    task = EntryTask(
        reference=str(real_models.magika_float()),
        quantized=str(model),
        mapping={},
        inputs=inputs,
        outputs={name: output * np.float32(factor)},
        facts=(*facts.inputs, *facts.outputs),
    )
    return ReferenceProcess(1.0, seconds).locate(task)


def test_the_layer_is_found_in_a_process_of_its_own(
    spoilt: tuple[Path, str], inputs: list[dict[str, Any]]
) -> None:
    """And whether the file, run afresh on the same inputs, gives what the application's model gave."""
    model, layer = spoilt
    found = entry_of(model, inputs[0])
    assert (found.layer, found.operator, found.reproduced, found.error) == (layer, "Conv", True, None)
    assert found.jump is not None
    assert found.jump > 0.01
    assert entry_of(model, inputs[0], factor=1.1).reproduced is False


def test_the_breakdown_is_bounded_in_time_and_memory(
    spoilt: tuple[Path, str], inputs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past either limit the layer is not known, and says so; the process is gone, the application goes on."""
    late = entry_of(spoilt[0], inputs[0], seconds=0.01)
    assert late.layer is None
    assert "has ended" in (late.error or "")
    monkeypatch.setattr("otel_quantmon.fidelity.reference.client._LAYERS_MEMORY", 64 << 20)
    large = entry_of(spoilt[0], inputs[0])
    assert large.layer is None
    assert large.error


@pytest.mark.parametrize(
    ("kind", "models", "as_recorded", "reproduced", "inputs_changed", "cause"),
    [
        ("relative_error", 1, False, True, True, "machine"),
        ("relative_error", 1, True, False, False, "machine"),
        ("relative_error", 1, True, None, False, "data"),
        ("cosine", 1, None, None, True, "data"),
        ("disagreement", 1, None, True, False, "data"),
        ("output_distribution", 1, None, None, False, "unknown"),
        ("input_distribution", 1, None, None, False, "data"),
        ("latency_drift", 3, None, None, False, "host"),
        ("latency_drift", 1, None, None, False, "unknown"),
        ("fallback", 1, None, None, False, "provider"),
        ("model_changed", 1, None, None, False, "file"),
        ("memory_growth", 0, None, None, False, "application"),
        ("error_rate", 2, None, None, False, "application"),
    ],
)
def test_a_cause_follows_from_what_was_found(
    kind: AnomalyType,
    models: int,
    as_recorded: bool | None,
    reproduced: bool | None,
    inputs_changed: bool,
    cause: str,
) -> None:
    """The surest finding decides: recorded inputs, then the file run afresh, then what the inputs are like."""
    inquiry = Inquiry(0.0, 1.0, as_recorded=as_recorded, entry=Entry(reproduced=reproduced))
    found = diagnose(kind, models, inquiry, inputs_changed=inputs_changed)
    assert found.cause == cause
    assert found.remedy
