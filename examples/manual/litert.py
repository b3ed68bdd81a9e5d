"""LiteRT, switched on in code: a span for every call of one model, and what the metrics have then.

pip install otel-quantmon[otlp] ai-edge-litert pymicro-wakeword
python litert.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pymicro_wakeword
from ai_edge_litert.interpreter import Interpreter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_quantmon import Settings, TFLiteInstrumentor

WAKE_WORD = Path(pymicro_wakeword.__file__).parent / "models" / "hey_jarvis.tflite"


def main() -> None:
    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    TFLiteInstrumentor().instrument(
        tracer_provider=tracer_provider,
        meter_provider=MeterProvider([reader]),
        settings=Settings(models={"hey_jarvis": {"spans": "all", "version": "2"}}),
    )

    interpreter = Interpreter(str(WAKE_WORD))
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    for codes in np.random.default_rng(0).integers(-128, 127, (333, *source["shape"]), np.int8):
        interpreter.set_tensor(source["index"], codes)
        interpreter.invoke()

    print(f"{len(spans.get_finished_spans())} spans")
    data = reader.get_metrics_data()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
        for point in metric.data.data_points:
            shown = point.count if isinstance(point, HistogramDataPoint) else point.value
            print(f"{metric.name} {shown} {metric.unit}")


if __name__ == "__main__":
    main()
