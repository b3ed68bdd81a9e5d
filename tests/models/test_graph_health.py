"""The health of a loaded graph: providers, delegates, Q/DQ pairs, and what the CPU makes of int8."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import real_models
from exported import Exported

from otel_quantmon.models.formats import read_facts
from otel_quantmon.models.formats.facts import ModelFacts
from otel_quantmon.models.graph_health import is_worse, lost_provider, may_saturate
from otel_quantmon.pipeline import pipelines
from otel_quantmon.process.worker import worker


@pytest.fixture
def reported(exported: Exported, instrument: Callable[..., None]) -> Exported:
    """What both runtimes report, metrics only."""
    instrument(spans="none")
    return exported


def nodes(reported: Exported) -> dict[str, int]:
    points = reported.points("quantmon.execution_provider.nodes")
    return {point.attributes["quantmon.execution_provider"]: point.value for point in points}


def test_session_of_one_provider_has_all_its_nodes_there(reported):
    """With the CPU alone every node of the file is the CPU's, whether the session recorded it or not."""
    path = real_models.magika_qdq()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert nodes(reported) == {"CPUExecutionProvider": sum(read_facts(path).operators.values())}
    del session


@pytest.mark.parametrize(
    ("entries", "disabled"),
    [
        ({}, None),
        ({"session.disable_quant_qdq": "1"}, None),
        ({"session.enable_quant_qdq_cleanup": "1", "session.qdqisint8allowed": "1"}, None),
        ({}, ["QDQSelectorActionTransformer"]),
    ],
    ids=["as it comes", "no fusion", "cleaned up", "an optimizer off"],
)
def test_pairs_that_optimization_left_are_counted(reported, tmp_path, entries, disabled):
    """The count equals what ONNX Runtime writes when it is told to save the graph that it optimized, with the session's
    own configuration: an application that switches the fusion off has all of its pairs left.
    """
    path = real_models.magika_qdq()
    options = onnxruntime.SessionOptions()
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    operators = read_facts(tmp_path / "optimized.onnx").operators
    [point] = reported.points("quantmon.quantization.unfused_nodes")
    assert point.value == min(operators["QuantizeLinear"], operators["DequantizeLinear"]) > 0
    assert point.attributes["quantmon.quantization.scheme"] == "qdq"
    del session


def test_float_model_has_no_pairs_to_count(reported):
    """A model without Q/DQ gives no point, and no second instance of it is made."""
    session = onnxruntime.InferenceSession(
        str(real_models.magika_float()), providers=["CPUExecutionProvider"]
    )
    assert reported.points("quantmon.quantization.unfused_nodes") == []
    del session


def test_delegate_and_what_it_left_add_up_to_the_graph(reported):
    """TFLite: XNNPACK takes some nodes of the wake word, not those with variables; together they are all."""
    from ai_edge_litert.interpreter import Interpreter

    path = real_models.wake_word()
    interpreter = Interpreter(model_path=str(path))
    total = interpreter._interpreter.NumNodes()
    interpreter.allocate_tensors()
    found = nodes(reported)
    assert sum(found.values()) == total
    assert found["XNNPACK"] > 0
    interpreter.invoke()


def test_provider_that_is_not_there_is_a_fallback(reported, caplog):
    """Asking for a provider that this build lacks is counted and logged once, with both names."""
    with caplog.at_level(logging.WARNING, "otel_quantmon"), pytest.warns(UserWarning, match="provider"):
        session = onnxruntime.InferenceSession(
            str(real_models.one_op_onnx()), providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
        )
    assert worker.flush(60)
    assert reported.points("quantmon.anomalies") == []
    (pipeline,) = (one for one in pipelines() if one.providers.meter_provider is reported.meter_provider)
    worker.submit(lambda: pipeline.judging.run(at_once=True))
    assert worker.flush(60)
    [point] = reported.points("quantmon.anomalies")
    assert (point.attributes["quantmon.anomaly.type"], point.value) == ("fallback", 1)
    assert [r.getMessage().partition("' ")[2] for r in caplog.records] == [
        "runs on CPUExecutionProvider instead of CUDAExecutionProvider"
    ]
    del session


def test_same_providers_again_are_no_fallback(reported):
    """`set_providers` with what the session has re-creates it and reports nothing."""
    session = onnxruntime.InferenceSession(str(real_models.one_op_onnx()), providers=["CPUExecutionProvider"])
    session.set_providers(["CPUExecutionProvider"])
    assert reported.points("quantmon.anomalies") == []


@pytest.mark.parametrize(
    ("provider", "before", "requested", "worse"),
    [
        ("CPUExecutionProvider", "CUDAExecutionProvider", (), True),
        ("CUDAExecutionProvider", "CPUExecutionProvider", (), False),
        ("CUDAExecutionProvider", "CPUExecutionProvider", ("CPUExecutionProvider",), False),
        ("CUDAExecutionProvider", "TensorrtExecutionProvider", (), False),
        ("CUDAExecutionProvider", "TensorrtExecutionProvider", ("TensorrtExecutionProvider",), True),
        ("TensorrtExecutionProvider", "CUDAExecutionProvider", ("TensorrtExecutionProvider",), False),
        ("a", "b", ("a", "b"), False),
        ("b", "a", ("a", "b"), True),
    ],
)
def test_a_worse_provider_is_the_plain_one_or_one_that_was_wanted_less(provider, before, requested, worse):
    """A move to an accelerator is none; between two of them it is what the application asked for that counts."""
    assert is_worse(provider, before, requested) is worse


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


def test_saturation_is_warned_of_once_a_model(reported, caplog, monkeypatch):
    """However many sessions of it are made, and only on a CPU where it can happen."""
    monkeypatch.setattr("otel_quantmon.pipeline.cpu_isa", lambda: "x86_64+avx2")
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


def test_warnings_of_models_without_end_are_not_remembered_without_end(
    reported, caplog, monkeypatch, tmp_path
):
    """After so many names nothing more is said, and nothing more is kept."""
    monkeypatch.setattr("otel_quantmon.pipeline.cpu_isa", lambda: "x86_64+avx2")
    monkeypatch.setattr("otel_quantmon.pipeline._MOST_WARNED", 2)
    sessions: list[Any] = []
    with caplog.at_level(logging.WARNING, "otel_quantmon"):
        for number in range(4):
            path = tmp_path / f"magika{number}.onnx"
            path.write_bytes(real_models.magika_qdq().read_bytes())
            sessions.append(onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]))
        assert worker.flush(60)
    assert sum("can saturate" in record.getMessage() for record in caplog.records) == 2
