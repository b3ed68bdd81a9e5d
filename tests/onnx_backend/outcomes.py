"""Runs ONNX's backend tests on ONNX Runtime and writes what came of each: ``outcomes.py bare|instrumented FILE``.

A process of its own for each way, so that neither sees the other's patches. The JSON object written has

- ``outcomes``: test id to ``passed``, ``skipped`` or ``failed: <type of the exception>``;
- ``runs``: calls of `InferenceSession.run`, counted by a plain function below the instrumentation;
- ``recorded``, ``spans``: inferences in the duration histogram and as spans; 0 when bare.
"""

from __future__ import annotations

import json
import sys
import unittest
from itertools import count
from pathlib import Path
from typing import Any

import onnx.backend.test
import onnxruntime
import onnxruntime.backend

# They download models of hundreds of megabytes, and their outcome would be that of the network.
_NEEDS_NETWORK = "OnnxBackendRealModelTest"


class _Outcomes(unittest.TestResult):
    def __init__(self) -> None:
        super().__init__()
        self.by_test: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802  unittest's name
        # Overwritten by whatever else comes of it; addSuccess would also be called where a subtest failed.
        self.by_test[test.id()] = "passed"

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802  unittest's name
        self.by_test[test.id()] = f"failed: {err[0].__name__}"

    addError = addFailure  # noqa: N815  unittest's name

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802  unittest's name
        self.by_test[test.id()] = "skipped"


def _suite() -> unittest.TestSuite:
    cases = onnx.backend.test.BackendTest(onnxruntime.backend, "onnx_backend").test_cases
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    return unittest.TestSuite(load(case) for name, case in cases.items() if name != _NEEDS_NETWORK)


def _count_runs() -> count[int]:
    """A counter that every `InferenceSession.run` of this process moves on."""
    runs = count()
    session: Any = next(c for c in onnxruntime.InferenceSession.__mro__ if "run" in vars(c))
    original = session.run

    def run(*args: Any, **kwargs: Any) -> Any:
        next(runs)
        return original(*args, **kwargs)

    session.run = run
    return runs


def _instrument() -> tuple[Any, Any]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from otel_quantmon import ONNXRuntimeInstrumentor, Settings

    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    ONNXRuntimeInstrumentor().instrument(
        tracer_provider=tracer_provider,
        meter_provider=MeterProvider(metric_readers=[reader]),
        settings=Settings(spans="all"),
    )
    return reader, exporter


def _recorded(reader: Any) -> int:
    """Inferences in ``quantmon.inference.duration``."""
    data = reader.get_metrics_data()
    return sum(
        point.count
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "quantmon.inference.duration"
        for point in metric.data.data_points
    )


def main(way: str, target: str) -> None:
    runs = _count_runs()
    providers = _instrument() if way == "instrumented" else None
    results = _Outcomes()
    _suite().run(results)
    report = {"outcomes": results.by_test, "runs": next(runs), "recorded": 0, "spans": 0}
    if providers is not None:
        reader, exporter = providers
        report |= {"recorded": _recorded(reader), "spans": len(exporter.get_finished_spans())}
    Path(target).write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
