"""OpenTelemetry instrumentation for quantized models on ONNX Runtime, TensorFlow Lite and LiteRT.

Names are loaded when they are first asked for: `opentelemetry-instrument` imports this package in every process,
with a model in it or without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_quantmon._version import __version__

if TYPE_CHECKING:
    from otel_quantmon.errors import InferenceTimeoutError
    from otel_quantmon.hooks import Anomaly, AnomalyHook, InferenceCall, RequestHook, ResponseHook, SampleHook
    from otel_quantmon.instrumentors import ONNXRuntimeInstrumentor, TFLiteInstrumentor
    from otel_quantmon.settings import ModelSettings, Settings

__all__ = [
    "Anomaly",
    "AnomalyHook",
    "InferenceCall",
    "InferenceTimeoutError",
    "ModelSettings",
    "ONNXRuntimeInstrumentor",
    "RequestHook",
    "ResponseHook",
    "SampleHook",
    "Settings",
    "TFLiteInstrumentor",
    "__version__",
]

_HOMES = {
    "Anomaly": "hooks",
    "AnomalyHook": "hooks",
    "InferenceCall": "hooks",
    "InferenceTimeoutError": "errors",
    "ModelSettings": "settings",
    "ONNXRuntimeInstrumentor": "instrumentors",
    "RequestHook": "hooks",
    "ResponseHook": "hooks",
    "SampleHook": "hooks",
    "Settings": "settings",
    "TFLiteInstrumentor": "instrumentors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
