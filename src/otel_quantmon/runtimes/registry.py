"""The runtimes that are observed, one line for each module that defines a runtime's classes.

Patching waits until the application has imported the module. The folder is that beside this file whose ``attach``
has the `otel_quantmon.runtimes.attachment.Runtime`; it is imported only then.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["ONNXRUNTIME", "TFLITE"]

ONNXRUNTIME: Final[Mapping[str, str]] = MappingProxyType(
    {
        "onnxruntime.capi.onnxruntime_inference_collection": "onnxruntime",
    }
)
"""What `ONNXRuntimeInstrumentor` observes: names of modules to folders."""

TFLITE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tensorflow.lite.python.interpreter": "tflite",
        "ai_edge_litert.interpreter": "tflite",
        "tflite_runtime.interpreter": "tflite",
        "ai_edge_litert.compiled_model": "litert",
    }
)
"""What `TFLiteInstrumentor` observes: names of modules to folders."""
