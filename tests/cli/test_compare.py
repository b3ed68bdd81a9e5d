"""`quantmon compare` gives the measures of the running application, and says where the error enters."""

from __future__ import annotations

import builtins
import json
import os
import pty
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from real_models import (
    basic_pitch_onnx,
    basic_pitch_tflite,
    basic_pitch_tflite_weight_only,
    digits_tflite_float,
    digits_tflite_full_integer,
    magika_dynamic,
    magika_float,
    magika_inputs,
    magika_qdq,
)

from otel_quantmon.cli import main
from otel_quantmon.fidelity.engines import open_engine


def compared(capsys, *arguments):
    """The JSON of a comparison that succeeds."""
    assert main(["compare", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("quantized", [magika_qdq, magika_dynamic])
def test_values_are_those_of_numpy(capsys, magika_file, quantized):
    """Relative error, largest error and cosine of an ONNX pair equal what numpy says of the same outputs."""
    found = compared(capsys, magika_float(), quantized(), "--inputs", magika_file)["outputs"]["target_label"]
    feeds = {"bytes": magika_inputs(12)}
    f, q = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        .run(None, feeds)[0]
        .astype(np.float64)
        for path in (magika_float(), quantized())
    )
    assert found["relative_error"]["mean"] == pytest.approx(
        np.linalg.norm(q - f) / np.linalg.norm(f), rel=1e-4
    )
    assert found["max_abs_error"] == pytest.approx(np.abs(q - f).max(), rel=1e-4)
    assert found["cosine_similarity"] == pytest.approx(
        (q * f).sum() / np.linalg.norm(q) / np.linalg.norm(f), rel=1e-6
    )


def test_a_full_integer_model_takes_its_codes(capsys, digits_file):
    """The float net is given what the codes stand for, the integer outputs are dequantized: eight real samples."""
    found = compared(
        capsys, digits_tflite_float(), digits_tflite_full_integer(), "--inputs", digits_file, "--cases", 5
    )
    (output,) = found["outputs"].values()
    assert found["calls"] == output["samples"] == 5
    assert 0 < output["relative_error"]["mean"] < 0.1
    assert set(found["inputs"]) == {"serving_default_image:0"}


def test_every_output_of_a_pair_across_runtimes(capsys, tmp_path):
    """An int8 TFLite model has a float ONNX reference: three outputs, matched by a mapping."""
    quantized = open_engine(str(basic_pitch_tflite_weight_only()))
    shape = (1, 43844, 1)
    path = tmp_path / "audio.npy"
    np.save(path, np.random.default_rng(5).normal(0, 0.1, shape).astype(np.float32))
    same = compared(capsys, basic_pitch_tflite(), basic_pitch_tflite_weight_only(), "--inputs", path)[
        "outputs"
    ]
    names = dict(zip([t.name for t in quantized.outputs], (None,) * 3, strict=True))
    results = open_engine(str(basic_pitch_onnx())).run({"serving_default_input_2:0": np.load(path)})
    floats = open_engine(str(basic_pitch_tflite())).run({quantized.inputs[0].name: np.load(path)})
    for name in names:
        names[name] = min(
            (other for other in results if results[other].shape == floats[name].shape),
            key=lambda other: np.abs(results[other] - floats[name]).max(),
        )
    arguments = [f"--map={name}={other}" for name, other in names.items()]
    across = compared(
        capsys, basic_pitch_onnx(), basic_pitch_tflite_weight_only(), "--inputs", path, *arguments
    )["outputs"]
    assert len(across) == 3
    for name, output in across.items():
        assert output["reference"] == names[name]
        assert output["relative_error"]["mean"] == pytest.approx(
            same[name]["relative_error"]["mean"], rel=1e-3
        )


def test_layers_of_onnx_name_where_the_error_enters(capsys, magika_file):
    """A weight of one layer is spoilt: that layer has the largest jump, and the layers before it none."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(magika_float()))
    producers = {name: node for node in model.graph.node for name in node.output}
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    node = next(node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights)
    weight = weights[node.input[1]]
    spoilt = onnx.numpy_helper.to_array(weight).copy()
    spoilt[:, ::2] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(spoilt, weight.name))
    path = magika_file.with_name("spoilt.onnx")
    onnx.save(model, str(path))
    layers = compared(capsys, magika_float(), path, "--inputs", magika_file, "--layers")["layers"]
    worst = max(layers, key=lambda layer: layer["jump"])
    assert producers[worst["name"]] is node
    before = layers[: layers.index(worst)]
    assert before
    assert all(layer["relative_error"] < 1e-4 for layer in before)
    assert worst["relative_error"] == pytest.approx(worst["jump"], abs=1e-4)


def test_layers_of_a_qdq_model_are_dequantized(capsys, magika_file):
    """The layers of a QDQ model are what its codes stand for, and end with the output's own error."""
    found = compared(capsys, magika_float(), magika_qdq(), "--inputs", magika_file, "--layers")
    assert len(found["layers"]) > 50
    last = found["layers"][-1]
    assert last["name"] == "target_label"
    # Tensors that are outputs are computed apart, by other kernels than the fused ones.
    assert last["relative_error"] == pytest.approx(
        found["outputs"]["target_label"]["relative_error"]["mean"], rel=0.2
    )


def test_layers_of_tflite(capsys, digits_file):
    """The layers of a full-integer net come in the graph's order, each with the error it has, shapes left out."""
    found = compared(
        capsys, digits_tflite_float(), digits_tflite_full_integer(), "--inputs", digits_file, "--layers"
    )
    operators = [layer["operator"] for layer in found["layers"]]
    assert operators[:3] == ["CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D"]
    assert operators[-1] == "SOFTMAX"
    assert "SHAPE" not in operators
    (output,) = found["outputs"].values()
    assert found["layers"][-1]["relative_error"] == pytest.approx(output["relative_error"]["mean"], rel=0.05)


def test_layers_of_onnx_without_the_package(capsys, magika_file, monkeypatch):
    """Where the onnx package is missing the error says to install it, instead of a traceback."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    arguments = ["compare", str(magika_float()), str(magika_qdq()), "--inputs", str(magika_file), "--layers"]
    assert main(arguments) == 2
    assert "pip install onnx" in capsys.readouterr().err


def test_layers_of_two_formats(capsys, digits_file, magika_file):
    """Layers of an ONNX and a TFLite model cannot be matched, and the error says so."""
    path = digits_file.with_name("audio.npy")
    np.save(path, np.zeros((1, 43844, 1), np.float32))
    models = [str(basic_pitch_onnx()), str(basic_pitch_tflite_weight_only())]
    assert main(["compare", *models, "--inputs", str(path), "--layers"]) == 2
    assert "two ONNX or two TFLite files, not onnx and tflite" in capsys.readouterr().err


def test_the_table_without_a_terminal(capsys, magika_file):
    """Into a pipe goes plain text in aligned columns, whole names included, and no bar."""
    assert main(["compare", str(magika_float()), str(magika_qdq()), "--inputs", str(magika_file)]) == 0
    out, err = capsys.readouterr()
    title, header, row = out.splitlines()[:3]
    assert title == "1 calls"
    assert header.split("  ")[0] == "output"
    assert row.startswith("target_label ")
    assert len(header) == len(row)
    assert "\x1b" not in out + err


def run_on_a_terminal(arguments, environment=None):
    """What the command writes to a real terminal, of 100 columns, on which its standard error is as well."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "otel_quantmon.cli", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm", **(environment or {})}
    process = subprocess.Popen(command, stdout=follower, stderr=follower, stdin=follower, env=environment)
    os.close(follower)
    written = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(leader)
    assert process.wait() == 0, written
    return written.decode()


def test_the_table_and_the_bar_on_a_terminal(magika_file, monkeypatch):
    """On a terminal rich draws the table's frame and the bar of the calls."""
    pytest.importorskip("rich")
    import otel_quantmon

    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(otel_quantmon.__file__)))
    written = run_on_a_terminal(["compare", magika_float(), magika_qdq(), "--inputs", magika_file])
    assert "┏" in written
    assert "target_label" in written
    assert "Comparing" in written


def test_without_rich(capsys, magika_file, monkeypatch):
    """A terminal without rich installed gets the plain table."""
    real = builtins.__import__

    def without_rich(name, *arguments):
        if name.partition(".")[0] == "rich":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["compare", str(magika_float()), str(magika_qdq()), "--inputs", str(magika_file)]) == 0
    assert capsys.readouterr().out.startswith("1 calls\noutput ")
