"""TensorFlow Lite, switched on in code: a model's own signature, and a hook that is called when it becomes anomalous.

pip install otel-quantmon[otlp] tensorflow
python tensorflow_lite.py
"""

from __future__ import annotations

import tensorflow as tf
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_quantmon import Anomaly, Settings, TFLiteInstrumentor


class Scaler(tf.Module):
    """A model with a signature of its own: three numbers, doubled."""

    @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32)])
    def double(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"doubled": 2 * x}


def report(anomaly: Anomaly) -> None:
    print(f"{anomaly.model}: {anomaly.type} {anomaly.what}")


def main() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    TFLiteInstrumentor().instrument(
        tracer_provider=provider, settings=Settings(spans="all"), on_anomaly=report
    )

    module = Scaler()
    function = module.double.get_concrete_function()
    model = tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert()
    run = tf.lite.Interpreter(model_content=model).get_signature_runner()
    print(run(x=tf.constant([[1.0, 2.0, 3.0]]))["doubled"])

    for span in spans.get_finished_spans():
        shown = span.attributes or {}
        print(span.name, shown["quantmon.runtime.name"], shown["quantmon.operation.name"])


if __name__ == "__main__":
    main()
