"""The health of a loaded graph: providers, delegates, Q/DQ pairs, and what the CPU makes of int8."""

from __future__ import annotations

import logging
from typing import Any

import onnxruntime
import pytest
import real_models
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor
from otel_quantmon.formats import read_facts
from otel_quantmon.formats.facts import ModelFacts
from otel_quantmon.monitors.graph import lost_provider, may_saturate
from otel_quantmon.probe.worker import worker


@pytest.fixture
def reader():
    """Both runtimes instrumented, metrics only."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
        instrumentor.instrument(meter_provider=provider)
    yield reader
    for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
        instrumentor.uninstrument()
    provider.shutdown()


def points(reader: InMemoryMetricReader, name: str) -> list[tuple[dict[str, Any], Any]]:
    assert worker.flush(60)
    data: Any = reader.get_metrics_data()
    return [
        (dict(point.attributes), point.value)
        for scope in (data.resource_metrics[0].scope_metrics if data else ())
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def nodes(reader: InMemoryMetricReader) -> dict[str, int]:
    return {
        a["quantmon.execution_provider"]: n for a, n in points(reader, "quantmon.execution_provider.nodes")
    }


def test_session_of_one_provider_has_all_its_nodes_there(reader):
    """With the CPU alone every node of the file is the CPU's, whether the session recorded it or not."""
    path = real_models.magika_qdq()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert nodes(reader) == {"CPUExecutionProvider": sum(read_facts(path).operators.values())}
    del session


def test_pairs_that_optimization_left_are_counted(reader, tmp_path):
    """The count equals what ONNX Runtime writes when it is told to save the graph that it optimized."""
    path = real_models.magika_qdq()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    operators = read_facts(tmp_path / "optimized.onnx").operators
    [(attributes, left)] = points(reader, "quantmon.quantization.unfused_nodes")
    assert left == min(operators["QuantizeLinear"], operators["DequantizeLinear"]) > 0
    assert attributes["quantmon.quantization.scheme"] == "qdq"
    del session


def test_float_model_has_no_pairs_to_count(reader):
    """A model without Q/DQ gives no point, and no twin of it is made."""
    session = onnxruntime.InferenceSession(
        str(real_models.magika_float()), providers=["CPUExecutionProvider"]
    )
    assert points(reader, "quantmon.quantization.unfused_nodes") == []
    del session


def test_delegate_and_what_it_left_add_up_to_the_graph(reader):
    """TFLite: XNNPACK takes some nodes of the wake word, not those with variables; together they are all."""
    from ai_edge_litert.interpreter import Interpreter

    path = real_models.wake_word()
    interpreter = Interpreter(model_path=str(path))
    total = interpreter._interpreter.NumNodes()
    interpreter.allocate_tensors()
    found = nodes(reader)
    assert sum(found.values()) == total
    assert found["XNNPACK"] > 0
    interpreter.invoke()


def test_provider_that_is_not_there_is_a_fallback(reader, caplog):
    """Asking for a provider that this build lacks is counted and logged once, with both names."""
    with caplog.at_level(logging.WARNING, "otel_quantmon"), pytest.warns(UserWarning, match="provider"):
        session = onnxruntime.InferenceSession(
            str(real_models.one_op_onnx()), providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
        )
    [(attributes, count)] = points(reader, "quantmon.anomalies")
    assert (attributes["quantmon.anomaly.type"], count) == ("fallback", 1)
    assert [r.getMessage().partition("' ")[2] for r in caplog.records] == [
        "runs on CPUExecutionProvider instead of CUDAExecutionProvider"
    ]
    del session


def test_same_providers_again_are_no_fallback(reader):
    """`set_providers` with what the session has re-creates it and reports nothing."""
    session = onnxruntime.InferenceSession(str(real_models.one_op_onnx()), providers=["CPUExecutionProvider"])
    session.set_providers(["CPUExecutionProvider"])
    assert points(reader, "quantmon.anomalies") == []


@pytest.mark.parametrize(
    ("cpu", "codes", "risk"),
    [
        ("x86_64+avx2", ("uint8", "int8"), True),
        ("x86_64+avx512_vnni+avx512bw", ("uint8", "int8"), False),
        ("x86_64+avx2+avx_vnni", ("uint8", "int8"), False),
        ("x86_64+avx2", ("int8", "int8"), False),
        ("x86_64+avx2", ("uint8", "uint8"), False),
        ("aarch64+asimd", ("uint8", "int8"), False),
    ],
)
def test_saturation_is_a_risk_of_u8s8_on_x86_without_vnni(cpu, codes, risk):
    """The rule of ONNX Runtime's documentation, by processor and types."""
    facts = ModelFacts(format="onnx", scheme="qdq", activation_type=codes[0], weight_type=codes[1])
    assert may_saturate(facts, cpu) is risk


def test_saturation_is_warned_of_once_a_model(reader, caplog, monkeypatch):
    """However many sessions of it are made, and only on a CPU where it can happen."""
    monkeypatch.setattr("otel_quantmon.probe.observer.cpu_isa", lambda: "x86_64+avx2")
    with caplog.at_level(logging.WARNING, "otel_quantmon"):
        path = str(real_models.magika_qdq())
        sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for _ in range(3)]
        assert worker.flush(60)
    assert len([r for r in caplog.records if "saturate" in r.getMessage()]) == 1
    del sessions


def test_first_lost_provider_is_named():
    """In the order of the request."""
    assert lost_provider(["TensorrtExecutionProvider", "A"], ["A"]) == "TensorrtExecutionProvider"
    assert lost_provider(["A"], ["A", "B"]) is None
    assert lost_provider([], ["A"]) is None
