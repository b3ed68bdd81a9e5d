"""The examples do what they say, run as their first lines say; and what they show is what the README promises."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
ZERO_CODE = ROOT / "examples" / "zero-code"
CONSOLE = ("opentelemetry-instrument", "--traces_exporter", "console", "--metrics_exporter", "console")
READABLE = ROOT / "examples" / "readable.py"


class Output(NamedTuple):
    """What a program under the console exporters printed."""

    lines: list[str]
    spans: list[dict[str, Any]]
    metrics: dict[str, list[dict[str, Any]]]

    def one(self, metric: str) -> dict[str, Any]:
        (point,) = self.metrics[metric]
        return point


def parsed(text: str) -> Output:
    spec = importlib.util.spec_from_file_location("readable", READABLE)
    assert spec is not None
    assert spec.loader is not None
    readable = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readable)
    output = Output([], [], {})
    for document in readable.documents(text):
        if isinstance(document, str):
            output.lines.append(document)
        elif "resource_metrics" in document:
            # Totals are cumulative, so the last export has all of them.
            output.metrics.clear()
            for resource in document["resource_metrics"]:
                for scope in resource["scope_metrics"]:
                    if scope["scope"]["name"] == "otel_quantmon":
                        output.metrics.update(
                            (metric["name"], metric["data"]["data_points"]) for metric in scope["metrics"]
                        )
        else:
            output.spans.append(document)
    return output


@pytest.fixture(scope="module")
def demo(run: Callable[..., str]) -> str:
    """What the README's ordinary program prints under instrumentation, before it is made readable."""
    pytest.importorskip("onnxruntime")
    # Only a file of it is needed: it may be installed without its dependencies, and then cannot be imported.
    if importlib.util.find_spec("magika") is None:
        pytest.skip("magika is not installed")
    return run(*CONSOLE, sys.executable, str(ZERO_CODE / "onnx_app.py"))


@pytest.mark.parametrize(
    "example",
    [*sorted(ZERO_CODE.glob("*.py")), ROOT / "examples" / "batch-job" / "classify.py"],
    ids=lambda path: path.name,
)
def test_zero_code_examples_know_nothing_of_telemetry(example: Path) -> None:
    """They import neither OpenTelemetry nor this package: what they show needs no change to an application."""
    imported = {
        name
        for node in ast.walk(ast.parse(example.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert not [name for name in imported if re.match(r"opentelemetry|otel_quantmon", name)]


def test_demo_counts_every_inference_and_describes_the_model(demo: str) -> None:
    """150 files are 150 calls; those without a span are counted as withheld; each span tells the model's scheme."""
    output = parsed(demo)
    duration = output.one("quantmon.inference.duration")
    assert duration["count"] == 150
    assert duration["attributes"] == {
        "quantmon.model.name": "magika_int8",
        "quantmon.runtime.name": "onnxruntime",
        "quantmon.quantization.scheme": "qdq",
        "quantmon.execution_provider": "CPUExecutionProvider",
        "quantmon.operation.name": "run",
    }
    withheld = (
        output.one("quantmon.spans.suppressed")["value"]
        if "quantmon.spans.suppressed" in output.metrics
        else 0
    )
    assert output.spans
    assert len(output.spans) + withheld == 150
    for span in output.spans:
        assert span["name"] == "inference magika_int8"
        assert span["kind"] == "SpanKind.INTERNAL"
        assert span["status"]["status_code"] == "UNSET"
        assert span["attributes"].items() >= duration["attributes"].items()
        assert span["attributes"]["quantmon.input.shapes"] == ["bytes:1x2048"]
        assert span["attributes"]["quantmon.output.shapes"] == ["target_label:1x214"]
        assert span["attributes"]["quantmon.batch.size"] == 1
    info = output.one("quantmon.model.info")
    assert info["value"] == 1
    assert re.fullmatch("sha256:[0-9a-f]{64}", info["attributes"]["quantmon.model.digest"])
    assert info["attributes"]["quantmon.quantization.weight_type"] == "int8"


def test_demo_reports_every_metric_that_the_readme_lists(demo: str) -> None:
    """The README's table of metrics holds nothing that the package does not produce."""
    table = (ROOT / "README.md").read_text().partition("## What you get")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(quantmon\.[\w.]+)`", table, re.MULTILINE))
    # A fast or idle machine may have given every call a span, so that none was withheld.
    assert listed - {"quantmon.spans.suppressed"} <= set(parsed(demo).metrics)
    assert {"quantmon.memory.allocated", "quantmon.memory.usage"} <= set(parsed(demo).metrics)


def test_application_prints_the_same_with_and_without(demo: str, run: Callable[..., str]) -> None:
    """The instrumentation leaves the application's results as they are."""
    assert run(sys.executable, str(ZERO_CODE / "onnx_app.py")).splitlines() == parsed(demo).lines


def test_readable_shows_what_the_exporters_printed(demo: str, run: Callable[..., str]) -> None:
    """The filter passes the application's lines on and shows spans and metrics without JSON."""
    shown = run(sys.executable, str(READABLE), stdin=demo)
    output = parsed(demo)
    assert shown.startswith("\n".join(output.lines))
    assert f"{len(output.spans)} spans" in shown
    assert "150 x " in shown
    assert "{" not in shown
    assert set(output.metrics) <= set(re.findall(r"quantmon\.[\w.]+", shown))


def test_readable_passes_on_what_is_no_telemetry(run: Callable[..., str]) -> None:
    """Lines with a brace, and a document that was cut off, come through as they are."""
    text = 'one\n{not json}\n{"a":\ntwo\n'
    assert run(sys.executable, str(READABLE), stdin=text).splitlines()[:4] == [
        "one",
        "{not json}",
        '{"a":',
        "two",
    ]


def test_tflite_example_with_a_span_for_every_call(run: Callable[..., str]) -> None:
    """A flag of opentelemetry-instrument reaches the settings, and the wake word's steps are all there."""
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("pymicro_features")
    text = run(*CONSOLE, "--quantmon_spans", "all", sys.executable, str(ZERO_CODE / "tflite_app.py"))
    output = parsed(text)
    (line,) = output.lines
    steps = int(line.split()[0])
    assert steps > 300
    duration = output.one("quantmon.inference.duration")
    assert duration["count"] == len(output.spans) == steps
    assert duration["attributes"]["quantmon.model.name"] == "hey_jarvis"
    assert duration["attributes"]["quantmon.runtime.name"] == "litert"
    assert duration["attributes"]["quantmon.quantization.scheme"] == "full_integer"
    assert "quantmon.spans.suppressed" not in output.metrics
    types = {p["attributes"]["quantmon.memory.type"] for p in output.metrics["quantmon.memory.usage"]}
    assert types == {"model_file", "tensor_arena", "io", "load_rss", "process_rss"}


def test_tensorflow_example_reads_every_digit_under_observation(run: Callable[..., str]) -> None:
    """The model that it has quantized from a Keras network is a full-integer one, and each of 200 calls is counted."""
    pytest.importorskip("tensorflow")
    pytest.importorskip("sklearn")
    output = parsed(run(*CONSOLE, sys.executable, str(ZERO_CODE / "tensorflow_app.py")))
    (line,) = [line for line in output.lines if line.endswith(" of 200 digits read")]
    assert int(line.split()[0]) > 150
    duration = output.one("quantmon.inference.duration")
    assert duration["count"] == 200
    assert duration["attributes"]["quantmon.runtime.name"] == "tflite"
    assert duration["attributes"]["quantmon.quantization.scheme"] == "full_integer"


def test_batch_job_counts_each_batch_of_each_worker(run: Callable[..., str], tmp_path: Path) -> None:
    """Workers of a pool that are ended by a signal deliver: as many calls arrive as there are batches."""
    for module in ("onnxruntime", "magika", "starlette", "uvicorn", "rich"):
        pytest.importorskip(module)
    table, kept = tmp_path / "labels.csv", tmp_path / "run.jsonl"
    job = ROOT / "examples" / "batch-job" / "classify.py"
    run(
        *("quantmon", "run", "--no-view", "--json", str(kept), "--"),
        *(sys.executable, str(job), str(ROOT / "tests" / "docs"), "--output", str(table)),
    )
    files = len(list((ROOT / "tests" / "docs").glob("*.py")))
    assert len(table.read_text().splitlines()) == 1 + files
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert sum(line["calls"] for line in lines if line["type"] == "model") == -(-files // 16)


@pytest.fixture
def service(environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """The FastAPI example under the command: its address, and a function that stops it and returns its output."""
    for module in ("fastapi", "uvicorn", "opentelemetry.instrumentation.fastapi", "onnxruntime", "magika"):
        pytest.importorskip(module)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = ("uvicorn", "--app-dir", str(ZERO_CODE), "fastapi_app:app", "--port", str(port))
    printed = tmp_path / "printed"
    with (
        printed.open("w") as output,
        subprocess.Popen(
            (*CONSOLE, *served), cwd=ROOT, env=environment, stdout=output, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "Uvicorn running" in line:
                break
        else:
            pytest.fail("".join(said))

        def stop() -> str:
            # Not SIGTERM: uvicorn dies of it once it has shut down, and no exit handler exports anything.
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
            return printed.read_text()

        try:
            yield f"http://127.0.0.1:{port}", stop
        finally:
            process.kill()


def test_inference_is_part_of_the_request_that_asked_for_it(service: tuple[str, Callable[[], str]]) -> None:
    """Under FastAPI's own instrumentation each inference, on a thread of the pool, is a child of the server's span."""
    address, stop = service
    for file in (ROOT / "pyproject.toml", ROOT / "README.md"):
        with urllib.request.urlopen(f"{address}/classify", data=file.read_bytes()) as answer:
            assert set(json.load(answer)) == {"label", "score"}
    output = parsed(stop())
    servers = {s["context"]["span_id"]: s for s in output.spans if s["kind"] == "SpanKind.SERVER"}
    inferences = [s for s in output.spans if s["name"] == "inference magika_int8"]
    assert len(inferences) == len(servers) == 2
    for span in inferences:
        assert span["context"]["trace_id"] == servers[span["parent_id"]]["context"]["trace_id"]
    assert output.one("quantmon.inference.duration")["count"] == 2


def test_manual_example_with_providers_and_hooks(run: Callable[..., str]) -> None:
    """Hooks, the settings of one model and own providers take effect as the example shows them."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("magika")
    text = run(sys.executable, str(ROOT / "examples" / "manual" / "providers_and_hooks.py"))
    for line in (
        "inference file-types",
        "  quantmon.model.version: '1'",
        "  quantmon.quantization.scheme: 'dynamic'",
        "  app.requested_outputs: 'all'",
        "quantmon.inference.duration [1] s",
    ):
        assert line in text.splitlines()
    assert re.search(r"^  app\.top_score: [01]\.\d+$", text, re.MULTILINE)


def test_manual_example_of_timeouts(run: Callable[..., str]) -> None:
    """ONNX Runtime's run is ended and the session goes on; LiteRT's call returns; both are told as timeouts."""
    for module in ("onnxruntime", "magika", "ai_edge_litert", "pymicro_wakeword"):
        pytest.importorskip(module)
    text = run(sys.executable, str(ROOT / "examples" / "manual" / "timeouts.py"))
    assert "exceeded its timeout of 0.1 s; ended by " in text
    assert "the session works on" in text
    assert len(re.findall(r"error\.type=timeout$", text, re.MULTILINE)) == 2


def test_manual_example_of_litert(run: Callable[..., str]) -> None:
    """The section of one model gives each of its calls a span; metrics go to the provider that was passed."""
    for module in ("ai_edge_litert", "pymicro_wakeword"):
        pytest.importorskip(module)
    lines = run(sys.executable, str(ROOT / "examples" / "manual" / "litert.py")).splitlines()
    assert "333 spans" in lines
    assert "quantmon.inference.duration 333 s" in lines


def test_manual_example_of_tensorflow_lite(run: Callable[..., str]) -> None:
    """A signature runner that is given a tensor of TensorFlow is observed, and nothing fails in itself."""
    pytest.importorskip("tensorflow")
    lines = run(sys.executable, str(ROOT / "examples" / "manual" / "tensorflow_lite.py")).splitlines()
    assert "[[2. 4. 6.]]" in lines
    assert re.search(r"^inference unnamed-\w{8} tflite __call__$", "\n".join(lines), re.MULTILINE)


def test_streaming_example_counts_each_step(run: Callable[..., str]) -> None:
    """Five seconds of sound are 166 steps of 30 ms, and as many inferences, those past their deadline among them."""
    for module in ("ai_edge_litert", "pymicro_wakeword", "pymicro_features"):
        pytest.importorskip(module)
    text = run(sys.executable, str(ROOT / "examples" / "streaming-audio" / "listen.py"))
    assert re.search(r"^166 steps, highest probability of the wake word 0\.\d\d$", text, re.MULTILINE)
    assert re.search(r"^166 inferences counted, \d+ of them later than 30 ms$", text, re.MULTILINE)


def test_demo_beside_its_float_model(environment: dict[str, str], demo: str) -> None:
    """With the reference named as the README says, its distance from float comes out, for one output, as evaluated."""
    spec = importlib.util.find_spec("magika")
    assert spec is not None
    assert spec.origin is not None
    original = Path(spec.origin).parent / "models" / "standard_v3_3" / "model.onnx"
    sources = [str(path) for path in sorted((ROOT / "src").rglob("*.py"))]
    done = subprocess.run(
        (*CONSOLE, sys.executable, str(ZERO_CODE / "onnx_app.py"), *(sources * 8)[:500]),
        env={
            **environment,
            "QUANTMON_REFERENCE": f"magika_int8={original}",
            "QUANTMON_REFERENCE_BUDGET": "0.5",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    output = parsed(done.stdout)
    # On a busy machine samples may have been dropped too, or taken too long.
    evaluated = {
        point["attributes"]["quantmon.reference.outcome"]: point["value"]
        for point in output.metrics["quantmon.reference.evaluations"]
    }
    assert evaluated["evaluated"] == output.one("quantmon.output.error")["count"] >= 1
    assert output.one("quantmon.output.sqnr")["attributes"]["quantmon.output.name"] == "target_label"
    mean, largest = (
        next(
            p["value"]
            for p in output.metrics["quantmon.output.relative_error"]
            if p["attributes"]["quantmon.statistic"] == it
        )
        for it in ("mean", "max")
    )
    assert 0 < mean <= largest
    assert {"quantmon.output.cosine_similarity", "quantmon.output.disagreement", "quantmon.speedup"} <= set(
        output.metrics
    )
