"""The instrumentation switched on in code: own providers, hooks, and settings of one model.

pip install otel-quantmon[otlp] onnxruntime onnx magika
python providers_and_hooks.py [FILE ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import magika
import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span

from otel_quantmon import InferenceCall, ONNXRuntimeInstrumentor, Settings

FLOAT_MODEL = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"


def name_the_outputs(span: Span, call: InferenceCall) -> None:
    """Runs before the inference: what the application asks for."""
    span.set_attribute("app.requested_outputs", call.args[0] or "all")


def keep_the_score(span: Span, _: InferenceCall, result: Any, error: BaseException | None) -> None:
    """Runs after it: one number of the result. Tensors themselves do not belong into a span."""
    if error is None:
        span.set_attribute("app.top_score", float(result[0].max()))


def main(files: list[Path]) -> None:
    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    meter_provider, tracer_provider = MeterProvider([reader]), TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))

    # Before or after the import of onnxruntime: sessions that exist already are seen too.
    instrumentor = ONNXRuntimeInstrumentor()
    instrumentor.instrument(
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        request_hook=name_the_outputs,
        response_hook=keep_the_score,
        settings=Settings(models={"magika*": {"name": "file-types", "version": "1", "spans": "all"}}),
    )

    with tempfile.TemporaryDirectory() as folder:
        int8 = Path(folder) / "magika_dynamic.onnx"
        quantize_dynamic(FLOAT_MODEL, int8, weight_type=QuantType.QInt8)
        session = onnxruntime.InferenceSession(int8)
        for file in files:
            row = np.full((1, 2048), 256, np.int32)
            content = np.frombuffer(file.read_bytes()[:2048], np.uint8)
            row[0, : len(content)] = content
            session.run(None, {"bytes": row})

    for span in spans.get_finished_spans():
        print(span.name)
        for key, value in (span.attributes or {}).items():
            print(f"  {key}: {value!r}")
    for metric in metrics_of(reader):
        print(metric)
    instrumentor.uninstrument()


def metrics_of(reader: InMemoryMetricReader) -> list[str]:
    data = reader.get_metrics_data()
    lines = []
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
        points = metric.data.data_points
        shown = [point.value if isinstance(point, NumberDataPoint) else point.count for point in points]
        lines.append(f"{metric.name} {shown} {metric.unit}")
    return lines


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]] or [Path(__file__)])
