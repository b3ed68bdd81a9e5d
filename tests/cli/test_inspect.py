"""``quantmon inspect``: what it says of real models is what their files and runtimes say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from lifecycle.programs import environment
from real_models import digits_tflite_full_integer, magika_qdq, wake_word

from otel_quantmon.cli.trial import Stopwatch
from otel_quantmon.models.formats import read_facts
from otel_quantmon.process.host import cpu_isa


def quantmon(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "otel_quantmon.cli", "inspect", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def inspected(*arguments: object) -> dict[str, Any]:
    done = quantmon(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_an_onnx_model() -> None:
    """Scheme, types, nodes on the CPU, unfused pairs, what a call costs, and a reference as advice."""
    told = inspected(magika_qdq())
    assert (told["format"], told["scheme"], told["weight_type"], told["activation_type"]) == (
        "onnx",
        "qdq",
        "int8",
        "uint8",
    )
    assert [(one["name"], one["type"], one["shape"]) for one in told["inputs"]] == [
        ("bytes", "int32", [None, 2048])
    ]
    runtime = told["runtime"]
    assert (runtime["name"], runtime["version"]) == ("onnxruntime", onnxruntime.__version__)
    assert runtime["nodes"] == {"CPUExecutionProvider": sum(told["operators"].values())}
    assert 0 < runtime["unfused_pairs"] < told["operators"]["QuantizeLinear"]
    pytest.importorskip("opentelemetry.sdk")
    cost = runtime["cost"]
    assert cost["duration"] > cost["counted"] > 0
    assert cost["with_span"] > 0
    assert told["host"]["int8_instructions"] == cpu_isa().split("+")[1:]
    assert any("QUANTMON_REFERENCE" in line for line in told["advice"])
    assert any("which moves a tensor to float and back" in line for line in told["advice"])


def test_the_ort_format(tmp_path: Path) -> None:
    """The same model as ONNX Runtime saves it: fused, so that it is another scheme."""
    path = tmp_path / "magika.ort"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(str(magika_qdq()), options, providers=["CPUExecutionProvider"])
    told = inspected(path)
    assert told["format"] == "ort"
    assert told["runtime"]["name"] == "onnxruntime"
    assert told["inputs"][0]["name"] == "bytes"


def test_a_tflite_model() -> None:
    """The range of an input's codes, by its scale and zero point."""
    told = inspected(digits_tflite_full_integer())
    assert (told["format"], told["scheme"]) == ("tflite", "full_integer")
    (given,) = read_facts(digits_tflite_full_integer()).inputs
    assert given.quantization is not None
    (scale,), (zero,) = given.quantization.scales, given.quantization.zero_points
    assert told["inputs"][0]["range"] == pytest.approx([scale * (-128 - zero), scale * (127 - zero)])
    assert sum(told["runtime"]["nodes"].values()) == sum(told["operators"].values())


def test_a_model_with_state() -> None:
    """It cannot be compared call by call, and the advice says what to do instead."""
    told = inspected(wake_word(), "--no-load")
    assert told["stateful"] is True
    assert told["runtime"] is None
    assert any("quantmon baseline record" in line for line in told["advice"])


def test_the_table_has_every_input_and_output() -> None:
    """For people: a row for each, and what is found of the whole."""
    done = quantmon(magika_qdq(), "--no-load")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["bytes", "input", "int32", "?x2048", "-", "-"] in lines
    assert ["target_label", "output", "float32", "?x214", "-", "-"] in lines
    assert ["scheme", "qdq"] in lines


def test_the_cost_of_observing_is_right_on_a_busy_host() -> None:
    """A model whose own time differs a thousandfold from call to call, 3 µs around it, and 7 µs once in a tenth of all
    calls: it is exactly that, and disturbances of other calls are not in it.
    """
    now = [0]
    calls = [0]

    def take(microseconds: int) -> None:
        now[0] += microseconds

    class Session:
        def run(self) -> None:
            calls[0] += 1
            take(10 + 7919 * calls[0] % 10_007)

    session = Session()

    def observed() -> None:
        take(1)
        session.run()
        take(2)
        # Counted into buckets every fifth call; and the host is busy for most of the time.
        take(7 if calls[0] % 5 == 0 else 0)
        take(500 if calls[0] > 60 and calls[0] % 3 == 0 else 0)

    method = vars(Session)["run"]
    with Stopwatch(Session, "run", lambda: now[0] / 1e6) as watch:
        own, beyond = watch.times(observed)
    assert calls[0] > 60
    assert beyond == pytest.approx(4.4e-6)
    assert 10e-6 < own < 10_017e-6
    assert vars(Session)["run"] is method


def test_what_is_no_model() -> None:
    """Status 2 and one line, for a text and for a file that is not there."""
    for path in (__file__, "no-such-model.onnx"):
        done = quantmon(path)
        assert done.returncode == 2
        assert done.stderr.startswith("quantmon: error: ")
        assert done.stderr.count("\n") == 1
