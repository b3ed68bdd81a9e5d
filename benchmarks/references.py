"""What references cost the application, and whether they keep to their budget.

``python benchmarks/references.py [--json FILE] [--rounds N] [--seconds S] [--longest S] [--part NAME]...``

``loop``: a closed loop on two real int8 models and on a convolutional one, default settings. Segments of
``--seconds`` alternate in one process between a session that has a float reference and one of the same file that
has none; both are observed. The throughput ratio is the median over rounds, the p99 ratio that of all calls.

``remote``: the same loop with samples that leave into a directory, for a float model elsewhere. Beside the throughput
stands the same ratio of calls for each second of the process's own processor time, background threads included: the
load of the machine counts in the one and hardly in the other.

``budget``: the processor time of the references' process over the time that went by, between the ends of two
evaluations, its loading left out. Budgets and references whose interval is longer than ``--longest`` are skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import conditions, verdict

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import numpy as np  # noqa: E402  the source tree comes first
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import real_models  # noqa: E402
from ai_edge_litert.interpreter import Interpreter  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402

from otel_quantmon import ONNXRuntimeInstrumentor, Settings, TFLiteInstrumentor  # noqa: E402
from otel_quantmon.pipeline import Pipeline, pipelines  # noqa: E402
from otel_quantmon.process.worker import reference_worker, worker  # noqa: E402
from otel_quantmon.settings import REMOTE  # noqa: E402

LEAST_THROUGHPUT = 0.97
MOST_P99 = 1.10
LEAST_THROUGHPUT_REMOTE = 0.98
MOST_P99_REMOTE = 1.05
MOST_OF_BUDGET = 1.5

BUDGETS = (0.002, 0.01, 0.05, 0.2)
REFERENCE_SECONDS = (0.001, 0.02, 0.1, 0.5)
_PATIENCE = 900

Run = Callable[[], object]


class Observed:
    """Both instrumentors on for providers of their own, which nothing exports from.

    Attributes:
        pipeline: what they report to.
    """

    def __init__(self, settings: Settings) -> None:
        self._reader = InMemoryMetricReader()
        providers: dict[str, Any] = {
            "tracer_provider": TracerProvider(),
            "meter_provider": MeterProvider([self._reader]),
        }
        self._instrumentors = ONNXRuntimeInstrumentor(), TFLiteInstrumentor()
        for instrumentor in self._instrumentors:
            instrumentor.instrument(settings=settings, **providers)
        self.pipeline: Pipeline = pipelines()[-1]

    def evaluations(self) -> int:
        """Comparisons that gave a result so far, and samples that have been sent."""
        data = self._reader.get_metrics_data()
        return sum(
            point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "quantmon.reference.evaluations"
            for point in metric.data.data_points
            if point.attributes["quantmon.reference.outcome"] in {"evaluated", "sent"}
        )

    def wait_for(self, evaluations: int, run: Run) -> None:
        """Call ``run`` until there are so many."""
        deadline = time.monotonic() + _PATIENCE
        while self.evaluations() < evaluations:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{evaluations} evaluations did not come; is the reference all right?")
            run()
            worker.flush(_PATIENCE)
            reference_worker.flush(_PATIENCE)

    def processor_seconds(self) -> float:
        """Of the references' process so far."""
        process = self.pipeline.references.process._process
        if process is None:
            raise RuntimeError("there is no process of references")
        # What clock_getcpuclockid(3) gives: nanoseconds, where /proc/PID/stat and with it psutil counts 10 ms.
        return time.clock_gettime((~process.pid << 3) | 2)

    def end(self) -> None:
        """Switch off, and end the process."""
        for instrumentor in self._instrumentors:
            instrumentor.uninstrument()
        reference_worker.submit(self.pipeline.references.process.close)
        reference_worker.flush(_PATIENCE)


@contextmanager
def observed(settings: Settings) -> Iterator[Observed]:
    """As `Observed`, to its end."""
    each = Observed(settings)
    try:
        yield each
    finally:
        each.end()


def convolutions(folder: Path) -> tuple[Path, Path]:
    """Six 3x3 convolutions of 48 channels on 56x56 pixels: float, and int8 by ``quantize_static``."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    random = np.random.default_rng(0)
    names = ["x", *(f"t{i}" for i in range(11)), "y"]
    nodes, weights, channels = [], [], 3
    for layer in range(6):
        kernel = random.normal(scale=(9 * channels) ** -0.5, size=(48, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{layer}"))
        before, between, after = names[2 * layer : 2 * layer + 3]
        nodes += [
            helper.make_node("Conv", [before, f"kernel{layer}"], [between], pads=[1] * 4),
            helper.make_node("Relu", [between], [after]),
        ]
        channels = 48
    graph = helper.make_graph(
        nodes, "convolutions", [_floats("x", 1, 3, 56, 56)], [_floats("y", 1, 48, 56, 56)], weights
    )
    reference, quantized = folder / "convolutions.onnx", folder / "convolutions_int8.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(reference)
    )

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = [{"x": random.normal(size=(1, 3, 56, 56)).astype(np.float32)} for _ in range(4)]

        def get_next(self) -> dict[str, Any] | None:
            return self._left.pop() if self._left else None

    quantize_static(
        str(reference),
        str(quantized),
        Images(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=True,
    )
    return reference, quantized


def _floats(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))


def onnx_run(path: Path) -> Run:
    """One call of a session with default options, on noise."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (read,) = session.get_inputs()
    x = np.random.default_rng(1).normal(size=read.shape).astype(np.float32)
    return lambda: session.run(None, {read.name: x})


def magika_run(path: Path) -> Run:
    """One call of magika on a real file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    features = real_models.magika_inputs(1)
    return lambda: session.run(None, {"bytes": features})


def tflite_run(path: Path) -> Run:
    """One call of an interpreter with default options, on noise."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (read,) = interpreter.get_input_details()
    x = np.random.default_rng(1).normal(scale=0.2, size=read["shape"]).astype(np.float32)

    def run() -> None:
        interpreter.set_tensor(read["index"], x)
        interpreter.invoke()

    return run


def timed(run: Run, seconds: float) -> list[float]:
    """Seconds of each call in a closed loop of so long."""
    durations: list[float] = []
    until = time.perf_counter() + seconds
    now = time.perf_counter()
    while now < until:
        run()
        after = time.perf_counter()
        durations.append(after - now)
        now = after
    return durations


def p99(durations: list[float]) -> float:
    return float(np.quantile(durations, 0.99))


def measure_loop(
    name: str, reference: Path | None, quantized: Path, make: Callable[[Path], Run], arguments: Any
) -> dict[str, Any]:
    """Throughput and p99 of a model with its reference, which is remote if None is given, over those without."""
    least, most = (LEAST_THROUGHPUT, MOST_P99) if reference else (LEAST_THROUGHPUT_REMOTE, MOST_P99_REMOTE)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            reference={"with": str(reference) if reference else REMOTE}, remote_directory=f"{folder}/samples"
        )
        paths = {side: Path(folder) / f"{side}{quantized.suffix}" for side in ("with", "without")}
        for path in paths.values():
            shutil.copy(quantized, path)
        with observed(settings) as each:
            runs = {side: make(path) for side, path in paths.items()}
            each.wait_for(1, runs["with"])
            for run in runs.values():
                timed(run, 1.0)
            calls: dict[str, list[float]] = {side: [] for side in runs}
            ratios: list[float] = []
            processor_ratios: list[float] = []
            began = each.evaluations()
            for number in range(arguments.rounds):
                rates, of_processor = {}, {}
                for side in ("with", "without") if number % 2 else ("without", "with"):
                    used = time.process_time()
                    durations = timed(runs[side], arguments.seconds)
                    of_processor[side] = len(durations) / (time.process_time() - used)
                    rates[side] = len(durations) / sum(durations)
                    calls[side] += durations
                ratios.append(rates["with"] / rates["without"])
                processor_ratios.append(of_processor["with"] / of_processor["without"])
            evaluations = each.evaluations() - began
    throughput = statistics.median(ratios)
    tail = p99(calls["with"]) / p99(calls["without"])
    return {
        "model": name,
        "milliseconds": statistics.median(calls["without"]) * 1e3,
        "calls": {side: len(durations) for side, durations in calls.items()},
        "evaluations": evaluations,
        "throughput_ratio": throughput,
        "throughput_ratios": ratios,
        "processor_ratio": statistics.median(processor_ratios),
        "p99_ratio": tail,
        "reached": throughput >= least and tail <= most,
    }


def products(folder: Path, seconds: float) -> tuple[Path, Path]:
    """A float model that takes about so long on one thread, and one of its signature that takes next to nothing."""
    size = 256
    x = np.ones((size, size), np.float32)
    identity = numpy_helper.from_array(np.eye(size, dtype=np.float32), "identity")

    def save(nodes: int, name: str) -> Path:
        names = ["x", *(f"t{i}" for i in range(1, nodes)), "y"]
        chain = [helper.make_node("MatMul", [names[i], "identity"], [names[i + 1]]) for i in range(nodes)]
        graph = helper.make_graph(
            chain, name, [_floats("x", size, size)], [_floats("y", size, size)], [identity]
        )
        path = folder / f"{name}.onnx"
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path)
        )
        return path

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(save(50, "trial")), options)
    session.run(None, {"x": x})
    began = time.thread_time()
    session.run(None, {"x": x})
    each = (time.thread_time() - began) / 50
    return save(max(1, round(seconds / each)), "reference"), save(1, "quick")


def measure_budget(budget: float, seconds: float) -> dict[str, Any]:
    """The share of a core that a reference of so many seconds has used."""
    with tempfile.TemporaryDirectory() as folder:
        reference, quick = products(Path(folder), seconds)
        with observed(Settings(reference={"quick": str(reference)}, reference_budget=budget)) as each:
            session = onnxruntime.InferenceSession(str(quick), providers=["CPUExecutionProvider"])
            x = np.ones((256, 256), np.float32)

            def step() -> None:
                session.run(None, {"x": x})
                time.sleep(0.005)  # about what a service of 200 calls a second does

            # The first two load the models, and have not got their pause from a run alone.
            each.wait_for(2, step)
            began, used, first = time.monotonic(), each.processor_seconds(), each.evaluations()
            elapsed, count = 0.0, 0
            while elapsed < 5 or count < 1:
                each.wait_for(first + count + 1, step)
                elapsed, count = time.monotonic() - began, each.evaluations() - first
            share = (each.processor_seconds() - used) / elapsed
    return {
        "budget": budget,
        "reference_seconds": seconds,
        "seconds": elapsed,
        "evaluations": count,
        "share": share,
        "of_budget": share / budget,
        "reached": share <= MOST_OF_BUDGET * budget,
    }


def main() -> int:
    """Measure, print tables, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="of two segments each")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a segment")
    parser.add_argument("--longest", type=float, default=300.0, help="interval between two evaluations")
    parser.add_argument("--part", choices=("loop", "remote", "budget"), action="append")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    parts = arguments.part or ["loop", "remote", "budget"]
    report: dict[str, Any] = {
        "conditions": conditions(("onnxruntime", "ai-edge-litert", "numpy", "opentelemetry-sdk")),
        "targets": {"throughput": LEAST_THROUGHPUT, "p99": MOST_P99, "of_budget": MOST_OF_BUDGET},
        "loop": [],
        "remote": [],
        "budget": [],
    }
    print(f"load average {os.getloadavg()}")
    for part in ("loop", "remote"):
        if part not in parts:
            continue
        print(f"{part:<20}{'ms':>8}{'evaluations':>13}{'throughput':>12}{'processor':>11}{'p99':>8}")
        with tempfile.TemporaryDirectory() as folder:
            pairs = (
                (
                    "basic-pitch TFLite",
                    real_models.basic_pitch_tflite(),
                    real_models.basic_pitch_tflite_int8(),
                    tflite_run,
                ),
                ("magika ONNX", real_models.magika_float(), real_models.magika_qdq(), magika_run),
                ("convolutions ONNX", *convolutions(Path(folder)), onnx_run),
            )
            for name, reference, quantized, make in pairs:
                row = measure_loop(name, reference if part == "loop" else None, quantized, make, arguments)
                report[part].append(row)
                print(
                    f"{name:<20}{row['milliseconds']:8.2f}{row['evaluations']:13}{row['throughput_ratio']:12.3f}"
                    f"{row['processor_ratio']:11.3f}{row['p99_ratio']:8.3f}  {verdict(reached=row['reached'])}",
                    flush=True,
                )
    if "budget" in parts:
        print(f"{'reference':>12}{'budget':>8}{'evaluations':>13}{'share':>9}{'of budget':>11}")
        for seconds in REFERENCE_SECONDS:
            for budget in BUDGETS:
                if seconds / budget > arguments.longest:
                    continue
                row = measure_budget(budget, seconds)
                report["budget"].append(row)
                print(
                    f"{seconds * 1e3:9.0f} ms{budget:8}{row['evaluations']:13}{row['share']:9.4f}"
                    f"{row['of_budget']:11.2f}  {verdict(reached=row['reached'])}",
                    flush=True,
                )
    report["load_average_after"] = os.getloadavg()
    print(f"load average {os.getloadavg()}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["reached"] for row in (*report["loop"], *report["remote"], *report["budget"])) else 1


if __name__ == "__main__":
    sys.exit(main())
