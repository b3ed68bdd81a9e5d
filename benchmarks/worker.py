"""One process of `overhead.py`: a variant on a workload, beside the same workload bare.

Reads a line of JSON with ``calls`` for each round from its standard input and answers with a line
of nanoseconds per call. ``python benchmarks/worker.py --describe WORKLOAD MODEL`` prints instead how this
project describes a call, so that the variant written by hand can say the same.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import repeat
from time import perf_counter_ns, process_time_ns, thread_time_ns
from typing import Any

from workloads import WORKLOADS, Calling

# Calls of one request: sentry-sdk keeps 1000 spans of a transaction and drops the rest, which would flatter it.
CALLS_PER_PARENT = 500
WARM_UPS = 3


def measured(
    call: Calling,
    calls: int,
    parent: Callable[[], AbstractContextManager[Any]] = nullcontext,
    flush: Callable[[], object] = lambda: None,
) -> tuple[float, float, float]:
    """Nanoseconds that a call takes its caller, of CPU in its thread, and in the process with all exports done."""
    gc.collect()
    wall = caller = 0
    cpu = process_time_ns()
    for done in range(0, calls, CALLS_PER_PARENT):
        with parent():
            in_thread = thread_time_ns()
            start = perf_counter_ns()
            for _ in repeat(None, min(CALLS_PER_PARENT, calls - done)):
                call()
            wall += perf_counter_ns() - start
            caller += thread_time_ns() - in_thread
    flush()
    return wall / calls, caller / calls, (process_time_ns() - cpu) / calls


def serve(workload_name: str, model: str, variant_name: str, described: dict[str, Any]) -> None:
    """Answer rounds until the standard input ends."""
    from variants import VARIANTS, Subject

    # What a peer prints goes to standard error: this is the way of the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    workload, variant = WORKLOADS[workload_name], VARIANTS[variant_name]
    cls = workload.runtime()
    # It keeps the method that variants patch as it is now, so that both can be called in one process.
    bare = workload.calling(type("Bare", (cls,), {workload.method: getattr(cls, workload.method)}), model)
    observation = variant.set_up(
        Subject(
            cls,
            workload.method,
            described["span_name"],
            {k: tuple(v) if isinstance(v, list) else v for k, v in described["span_attributes"].items()},
            described["metric_attributes"],
            tuple(described["boundaries"]),
        )
    )
    observed = observation.wrap(workload.calling(cls, model))
    parent = observation.parent if variant.parent else nullcontext
    for _ in range(WARM_UPS):
        measured(bare, CALLS_PER_PARENT)
        measured(observed, CALLS_PER_PARENT, parent, observation.flush)
    # What is loaded by now is not to be walked by each collection of garbage, in any variant.
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        # The process has slept while others measured: these wake it up.
        measured(bare, order["calls"] // 2)
        measured(observed, 10, parent, observation.flush)
        exported = observation.exported()
        # Half of the bare calls on either side: what the machine does meanwhile is then in both alike.
        before = measured(bare, order["calls"] // 2)
        with_it = measured(observed, order["calls"], parent, observation.flush)
        behind = measured(bare, order["calls"] // 2)
        without = [(one + other) / 2 for one, other in zip(before, behind, strict=True)]
        after = observation.exported()
        answer = {
            "bare_wall": without[0],
            "bare_caller": without[1],
            "bare_cpu": without[2],
            "wall": with_it[0],
            "caller": with_it[1],
            "cpu": with_it[2],
            "exported": None if exported is None or after is None else after - exported,
        }
        print(json.dumps(answer), file=answers, flush=True)
    answers.close()
    # Peers wait at their exit for agents that are not there.
    os._exit(0)


def describe(workload_name: str, model: str) -> None:
    """Print the name and attributes of this project's span and duration of a call."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from otel_quantmon import ONNXRuntimeInstrumentor, Settings, TFLiteInstrumentor, semconv
    from otel_quantmon.process.worker import worker

    workload = WORKLOADS[workload_name]
    exporter = InMemorySpanExporter()
    spans = TracerProvider()
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
        instrumentor.instrument(
            tracer_provider=spans,
            meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()]),
            settings=Settings(spans="all", warmup=0),
        )
    call = workload.calling(workload.runtime(), model)
    # The digest is read in the background.
    worker.flush(60)
    call()
    span = exporter.get_finished_spans()[-1]
    attributes = dict(span.attributes or {})
    keys = semconv.METRIC_INFERENCE_DURATION.attributes
    described = {
        "span_name": span.name,
        "span_attributes": attributes,
        "metric_attributes": {key: attributes[key] for key in keys if key in attributes},
        "boundaries": semconv.DURATION_BOUNDARIES,
    }
    print(json.dumps(described))


if __name__ == "__main__":
    if sys.argv[1] == "--describe":
        describe(*sys.argv[2:])
    else:
        serve(*sys.argv[1:4], json.loads(sys.argv[4]))
