"""`quantmon baseline` records and checks: what it writes, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from real_models import (
    basic_pitch_tflite,
    basic_pitch_tflite_weight_only,
    digits_tflite_float,
    digits_tflite_full_integer,
    magika_float,
    magika_inputs,
    magika_qdq,
    wake_word,
)

import otel_quantmon
from otel_quantmon.cli import main
from otel_quantmon.fidelity.baseline import read_baseline, write_baseline


def record(tmp_path, *arguments):
    """Path of a baseline that the command has recorded."""
    path = tmp_path / "baseline.safetensors"
    assert main(["baseline", "record", *map(str, arguments), "-o", str(path)]) == 0
    return path


def checked(capsys, path, model, code=0):
    """The JSON of a check that ends with ``code``."""
    capsys.readouterr()
    assert main(["baseline", "check", str(path), str(model), "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def magika_baseline(tmp_path, magika_file):
    """Twelve cases of magika in QDQ, with its float original."""
    return record(
        tmp_path, magika_qdq(), "--reference", magika_float(), "--inputs", magika_file, "--cases", 12
    )


def test_what_is_recorded(magika_baseline):
    """The file has every row as a case, with outputs, float outputs, statistics, digests and environment."""
    baseline = read_baseline(magika_baseline)
    assert baseline.model == magika_qdq().stem
    assert len(baseline.cases) == 12
    np.testing.assert_array_equal(
        np.concatenate([case.inputs["bytes"] for case in baseline.cases]), magika_inputs(12)
    )
    statistics = baseline.output_statistics["target_label"]
    for case, error, norm in zip(
        baseline.cases, statistics.relative_errors, statistics.reference_norms, strict=True
    ):
        f, q = (x["target_label"].astype(np.float64) for x in (case.references, case.outputs))
        assert error == pytest.approx(np.linalg.norm(q - f) / np.linalg.norm(f), rel=1e-9)
        assert norm == pytest.approx(np.linalg.norm(f), rel=1e-9)
    assert baseline.digest.startswith("sha256:")
    assert baseline.reference_digest != baseline.digest
    assert baseline.environment.runtime == "onnxruntime"
    assert baseline.environment.providers == ("CPUExecutionProvider",)
    assert baseline.latency is not None
    assert baseline.latency.p50 <= baseline.latency.p95 <= baseline.latency.p99


def test_the_same_model_passes(capsys, magika_baseline):
    """Nothing has changed: exit code 0, the recorded errors again, no difference from the recorded outputs."""
    found = checked(capsys, magika_baseline, magika_qdq())
    output = found["outputs"]["target_label"]
    assert found["passed"]
    assert found["digest"]["same"]
    assert found["environment"] == {}
    assert output["relative_error"]["now"] == pytest.approx(output["relative_error"]["recorded"], abs=1e-6)
    assert output["difference_from_recorded"]["max"] < 1e-4
    assert output["thresholds"]["from_baseline"]
    assert output["crossed"] == []


def test_another_file_is_told_and_compared(capsys, magika_baseline):
    """A model made anew is what a baseline is to be held against: its digest is told, its error judged.

    Here the float model: how far one that is quantized otherwise is from it goes with the processor.
    """
    found = checked(capsys, magika_baseline, magika_float())
    assert not found["digest"]["same"]
    assert found["outputs"]["target_label"]["difference_from_recorded"]["max"] > 1e-4


def test_a_worse_model_fails(capsys, magika_baseline, tmp_path):
    """A model whose weights are spoilt ends with exit code 1, and the crossed thresholds are named."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(magika_float()))
    for initializer in model.graph.initializer:
        weight = onnx.numpy_helper.to_array(initializer)
        if weight.dtype == np.float32 and weight.ndim > 1:
            spoilt = weight + np.float32(0.5) * np.sign(weight) * np.abs(weight).max()
            initializer.CopyFrom(onnx.numpy_helper.from_array(spoilt, initializer.name))
    path = tmp_path / "worse.onnx"
    onnx.save(model, str(path))
    found = checked(capsys, magika_baseline, path, code=1)
    assert not found["passed"]
    assert {"relative_error", "cosine_similarity"} <= set(found["outputs"]["target_label"]["crossed"])
    assert main(["baseline", "check", str(magika_baseline), str(path)]) == 1
    assert capsys.readouterr().out.endswith("failed: a threshold is crossed\n")


@pytest.mark.parametrize(
    ("quantized", "original"),
    [(digits_tflite_full_integer, digits_tflite_float), (basic_pitch_tflite_weight_only, basic_pitch_tflite)],
)
def test_tflite(capsys, tmp_path, digits_file, quantized, original):
    """A TFLite pair, with integer codes or floats, gives the recorded errors again."""
    inputs = digits_file
    if quantized is basic_pitch_tflite_weight_only:
        inputs = tmp_path / "audio.npy"
        # One dimension more than the input: an index a call.
        np.save(inputs, np.random.default_rng(5).normal(0, 0.1, (2, 1, 43844, 1)).astype(np.float32))
    path = record(tmp_path, quantized(), "--reference", original(), "--inputs", inputs)
    # Fixed thresholds hold for the two cases of audio, and its int8 model is past them.
    code = 0 if quantized is digits_tflite_full_integer else 1
    for output in checked(capsys, path, quantized(), code)["outputs"].values():
        assert output["relative_error"]["now"]["max"] > 0
        assert output["relative_error"]["now"] == pytest.approx(
            output["relative_error"]["recorded"], abs=1e-6
        )


def test_a_stateful_model_is_replayed_from_its_initial_state(capsys, tmp_path):
    """Forty steps of a streaming model, whose outputs hang on the steps before: the replay gives each again."""
    rng = np.random.default_rng(2)
    steps = np.stack([rng.integers(90, 127, (1, 3, 40)).astype(np.int8) for _ in range(40)])
    inputs = tmp_path / "steps.npy"
    np.save(inputs, steps)
    path = record(tmp_path, wake_word(), "--inputs", inputs)
    (output,) = checked(capsys, path, wake_word())["outputs"].values()
    # Without a reference the recorded outputs are what a replay is held against.
    assert output["relative_error"]["now"] == {"mean": 0.0, "max": 0.0}
    assert output["difference_from_recorded"] == {"mean": 0.0, "max": 0.0}
    assert output["changed"] == 0

    turned = tmp_path / "turned.safetensors"
    baseline = read_baseline(path)
    write_baseline(turned, replace(baseline, cases=baseline.cases[::-1]))
    (output,) = checked(capsys, turned, wake_word(), code=1)["outputs"].values()
    assert output["relative_error"]["now"]["max"] > 0, "in another order the state is another"
    assert output["changed"] > 0


def test_bad_input_is_told_in_a_line(capsys, tmp_path, magika_baseline, digits_file):
    """Whatever is wrong with what was given ends in one line on the standard error and exit code 2."""
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(magika_baseline.read_bytes()[:-100])
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    model = str(magika_qdq())
    out = ["-o", str(tmp_path / "out.safetensors")]
    commands = {
        "cannot be read": ["baseline", "check", str(tmp_path / "missing.safetensors"), model],
        "is damaged": ["baseline", "check", str(damaged), model],
        "cannot read '": ["baseline", "check", str(magika_baseline), str(text)],
        "record one for this model": ["baseline", "check", str(magika_baseline), str(wake_word())],
        "the model's inputs are": ["baseline", "record", model, "--inputs", str(digits_file), *out],
        "ask for fewer": [
            *("baseline", "record", model, "--inputs", str(tmp_path / "magika.npy"), "--cases", "99"),
            *out,
        ],
    }
    capsys.readouterr()
    for message, command in commands.items():
        assert main(command) == 2, message
        written = capsys.readouterr()
        assert message in written.err
        assert written.err.startswith("quantmon: error: ")
        assert "Traceback" not in written.err
        assert written.out == ""
    assert not (tmp_path / "out.safetensors").exists()


def test_the_real_entry(magika_baseline):
    """As a process: JSON alone on the standard output, and the exit code of a failed reading."""
    source = os.path.dirname(os.path.dirname(otel_quantmon.__file__))
    environment = {**os.environ, "PYTHONPATH": source}

    def quantmon(*arguments):
        command = [sys.executable, "-m", "otel_quantmon.cli", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = quantmon("baseline", "check", magika_baseline, magika_qdq(), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["passed"]
    assert quantmon("baseline", "check", "nowhere", magika_qdq()).returncode == 2
    assert quantmon("--help").returncode == 0
    assert quantmon("baseline", "recrod").returncode == 2
