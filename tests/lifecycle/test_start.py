"""What it costs a process to have the package there and no model."""

from __future__ import annotations

import json

from lifecycle.programs import run

_HEAVY = (
    "numpy",
    "psutil",
    "onnxruntime",
    "tensorflow",
    "ai_edge_litert",
    "tflite_runtime",
    "onnx",
    "flatbuffers",
)

_PROGRAM = """
import json, sys
{statements}
print(json.dumps(sorted(sys.modules)))
"""


def _loaded(statements: str) -> set[str]:
    return set(json.loads(run(_PROGRAM.format(statements=statements)).stdout))


def test_the_package_imports_nothing() -> None:
    """`import otel_quantmon` loads its version and nothing else of ours or of others."""
    modules = _loaded("import otel_quantmon")
    assert {name for name in modules if name.startswith("otel_quantmon")} == {
        "otel_quantmon",
        "otel_quantmon._version",
    }
    assert not [name for name in modules if name.partition(".")[0] in (*_HEAVY, "opentelemetry", "wrapt")]


def test_the_entry_points_import_nothing_heavy() -> None:
    """Switched on by both instrumentors, a process has loaded no runtime, no numpy, no psutil, no SDK and neither
    probe, pipeline nor telemetry before the application imports a runtime.
    """
    modules = _loaded(
        "from otel_quantmon import ONNXRuntimeInstrumentor as O, TFLiteInstrumentor as T\n"
        "O().instrument(); T().instrument()\n"
        "import otel_quantmon.environment_variables"
    )
    assert not [name for name in modules if name.partition(".")[0] in _HEAVY]
    assert not [name for name in modules if name.startswith("opentelemetry.sdk")]
    ours = {name.partition(".")[2] for name in modules if name.startswith("otel_quantmon.")}
    rooms = {name.partition(".")[0] for name in ours}
    assert rooms.isdisjoint(
        {
            "pipeline",
            "probe",
            "recording",
            "fidelity",
            "detection",
            "process",
            "models",
            "semconv",
        }
    )
    # The list of modules to wait for.
    assert {name for name in ours if name.startswith("runtimes.")} == {"runtimes.registry"}
    # What the public names are made of: types, and the base of an instrumentor.
    assert {name for name in ours if name.startswith("telemetry.")} <= {
        "telemetry.api",
        "telemetry.instrumentor",
    }
