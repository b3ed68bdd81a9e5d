"""What ``quantmon inspect`` and ``quantmon doctor`` show on a terminal, of findings that are fixed: their pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal_pictures import Terminal, check_picture

from otel_quantmon.cli import inspection, main
from otel_quantmon.cli.doctor import report, surroundings
from otel_quantmon.cli.doctor.watching import Process, Watched
from otel_quantmon.cli.trial import Cost, Trial
from otel_quantmon.models.description import LoadedModel
from otel_quantmon.models.formats.facts import ModelFacts, TensorFacts
from otel_quantmon.models.graph_health import GraphHealth

PICTURES = Path(__file__).parent / "pictures"

FACTS = ModelFacts(
    format="onnx",
    scheme="qdq",
    weight_type="int8",
    activation_type="uint8",
    size=3_145_728,
    inputs=(TensorFacts("image[0]", "float32", (None, 3, 224, 224)),),
    outputs=(TensorFacts("probabilities", "float32", (None, 1000)),),
    operators={"Conv": 52, "Gemm": 1},
)
TRIAL = Trial(
    LoadedModel(
        runtime="onnxruntime",
        runtime_version="1.23.0",
        provider="CPUExecutionProvider",
        providers=("CPUExecutionProvider",),
    ),
    "classifier",
    GraphHealth({"CPUExecutionProvider": 53}, unfused=2),
    Cost(0.00482, 0.93e-6, 12.4e-6),
)


@pytest.mark.parametrize("width", [100, 60])
def test_inspect(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model, its tensors, whose names are no markup, and advice; narrow, too."""
    monkeypatch.setattr(inspection, "read_facts", lambda _: FACTS)
    monkeypatch.setattr(inspection, "try_model", lambda *_: TRIAL)
    monkeypatch.setattr(inspection, "cpu_isa", lambda: "x86_64+avx2+sse4_1")
    terminal = Terminal.put(monkeypatch, width)
    assert main(["inspect", "classifier_int8.onnx"]) == 0
    check_picture(PICTURES / f"inspect-{width}.svg", terminal.drawn, width)


@pytest.mark.parametrize("width", [110, 60])
def test_doctor(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four tables, that of a command, and each problem with its remedy."""
    versions: dict[str, str | None] = {"otel-quantmon": "0.1.0", "opentelemetry-sdk": None}
    monkeypatch.setattr(surroundings, "packages", lambda: {**versions, "opentelemetry-distro": None})
    runtimes = [
        surroundings.Runtime("onnxruntime", "1.23.0", ""),
        surroundings.Runtime("tensorflow", "2.14.0", "it is older than 2.15"),
    ]
    monkeypatch.setattr(surroundings, "runtimes", lambda _: runtimes)
    settings = [surroundings.Setting("timeout", 0.2, "QUANTMON_TIMEOUT")]
    monkeypatch.setattr(surroundings, "settings", lambda _: (settings, []))
    monkeypatch.setattr(surroundings, "disabled", lambda _: "")
    address = "http://127.0.0.1:4317"
    endpoints = [
        surroundings.Endpoint("traces", "otlp", address, f"nobody answers at {address}"),
        surroundings.Endpoint("metrics", "none", "", ""),
    ]
    monkeypatch.setattr(surroundings, "endpoints", lambda _: endpoints)
    process = Process(("python", "app.py"), ended=True, python="/usr/bin/python3", runtimes=("onnxruntime",))
    monkeypatch.setattr(report, "watch", lambda *_: Watched(0, (process,)))
    monkeypatch.setattr("sys.executable", "/opt/app/bin/python")
    terminal = Terminal.put(monkeypatch, width)
    assert main(["doctor", "--", "python", "app.py"]) == 1
    check_picture(PICTURES / f"doctor-{width}.svg", terminal.drawn, width)
