"""Timeouts: ONNX Runtime is ended at its own, between two nodes; an overrun of LiteRT is recorded as one.

pip install otel-quantmon[otlp] onnxruntime magika ai-edge-litert pymicro-wakeword
python timeouts.py
"""

from __future__ import annotations

from pathlib import Path

import magika
import numpy as np
import onnxruntime
import pymicro_wakeword
from ai_edge_litert.interpreter import Interpreter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_quantmon import InferenceTimeoutError, ONNXRuntimeInstrumentor, Settings, TFLiteInstrumentor

FLOAT_MODEL = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
WAKE_WORD = Path(pymicro_wakeword.__file__).parent / "models" / "hey_jarvis.tflite"

# 100 ms for whatever the application loads; no wake word takes so little as a nanosecond.
SETTINGS = Settings(timeout=0.1, models={"hey_jarvis": {"timeout": 1e-9}})


def end_a_run() -> None:
    session = onnxruntime.InferenceSession(FLOAT_MODEL)
    try:
        # 200 files at once, which takes a second.
        session.run(None, {"bytes": np.zeros((200, 2048), np.int32)})
    except InferenceTimeoutError as error:
        print(f"ONNX Runtime: {error}; ended by {type(error.__cause__).__name__}")
    session.run(None, {"bytes": np.zeros((1, 2048), np.int32)})
    print("ONNX Runtime: the session works on")


def overrun() -> None:
    interpreter = Interpreter(str(WAKE_WORD))
    interpreter.allocate_tensors()
    interpreter.invoke()
    print("LiteRT: the call returned, however long it took")


def main() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
        instrumentor.instrument(tracer_provider=provider, settings=SETTINGS)
    end_a_run()
    overrun()
    for span in spans.get_finished_spans():
        print(f"{span.name}: error.type={(span.attributes or {}).get('error.type')}")


if __name__ == "__main__":
    main()
