"""Providers of a test's own, and the models that its runs need; for tests and for the programs that they start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from real_models import one_op_onnx, wake_word

X = {"x": np.ones(4, np.float32), "y": np.arange(4, dtype=np.float32)}
"""Feeds of the one-op model."""


class Telemetry:
    """A pair of providers that report to memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider(metric_readers=[self.reader], shutdown_on_exit=False)
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def providers(self) -> dict[str, Any]:
        """What ``instrument()`` takes."""
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    def points(self) -> dict[str, list[Any]]:
        """The points of each metric, from a collection made now."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found

    def calls(self) -> int:
        """Inferences counted so far."""
        return sum(point.count for point in self.points().get("quantmon.inference.duration", ()))

    def active(self) -> int:
        """Inferences in flight."""
        return sum(point.value for point in self.points().get("quantmon.inference.active", ()))


def one_op_session(threads: int = 1) -> Any:
    """A session of the one-op model on so many threads; `run_async` wants two."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(one_op_onnx()), options, providers=["CPUExecutionProvider"])


def wake_word_interpreter() -> Any:
    """An interpreter of the wake word with tensors allocated and its input set."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(wake_word()))
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    return interpreter


def runner(kind: str) -> Callable[[], object]:
    """A new model of ``kind`` (``onnxruntime`` or ``litert``), as a call that runs it once."""
    if kind == "onnxruntime":
        session = one_op_session()
        return lambda: session.run(None, X)
    interpreter = wake_word_interpreter()
    # A bound method taken before the patch would not come our way.
    return lambda: interpreter.invoke()  # noqa: PLW0108


def is_ours(member: Any) -> bool:
    """True if ``member`` of a class is a function or classmethod that this project has put there."""
    code = getattr(getattr(member, "__func__", member), "__code__", None)
    return code is not None and "otel_quantmon" in code.co_filename
