"""`quantmon certify`: the gate of a pipeline and of a pod's start."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper
from real_models import magika_dynamic, magika_float, magika_qdq
from runtimes.models import doubling, floats, model

from otel_quantmon.cli import main
from otel_quantmon.fidelity.baseline import read_baseline, write_baseline


@pytest.fixture
def baseline(tmp_path, magika_file):
    """Eight cases of magika in QDQ, with its float original."""
    path = tmp_path / "baseline.safetensors"
    inputs = ("--inputs", str(magika_file), "--cases", "8")
    command = ["baseline", "record", str(magika_qdq()), "--reference", str(magika_float()), *inputs]
    assert main([*command, "-o", str(path)]) == 0
    return path


def certified(capsys, model, path, status):
    """The JSON of a command that ends with ``status``."""
    capsys.readouterr()
    assert main(["certify", str(model), "--baseline", str(path), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def elsewhere(path, *features, spoilt=False):
    """The baseline as a host with ``features`` would have recorded it, with other outputs if it is ``spoilt``."""
    found = read_baseline(path)
    machine = found.environment.cpu_features[:1]
    cases = found.cases
    if spoilt:
        cases = tuple(
            replace(
                case,
                references={name: np.roll(array, 1, axis=-1) for name, array in case.references.items()},
            )
            for case in cases
        )
    environment = replace(found.environment, cpu_features=(*machine, *features))
    write_baseline(path, replace(found, environment=environment, cases=cases))
    return path


def test_the_recorded_model_is_certified_where_it_was_recorded(capsys, baseline):
    """Exit status 0, nothing failed, nothing computes differently, and there is no advice."""
    found = certified(capsys, magika_qdq(), baseline, 0)
    assert found["certified"]
    assert found["same_file"]
    assert (found["failed"], found["computes_differently"], found["lacking_instructions"]) == ({}, [], [])
    assert found["advice"] == []
    assert main(["certify", str(magika_qdq()), "--baseline", str(baseline)]) == 0
    assert capsys.readouterr().out.endswith("certified\n")


def test_a_host_that_gives_worse_results_is_refused_and_what_it_lacks_is_named(capsys, baseline):
    """Exit status 1; the outputs, the instruction set of the recording's host, and what to do."""
    path = elsewhere(baseline, "an_instruction_of_tomorrow", spoilt=True)
    found = certified(capsys, magika_qdq(), path, 1)
    assert not found["certified"]
    assert "relative_error" in found["failed"]["target_label"]
    assert found["lacking_instructions"] == ["an_instruction_of_tomorrow"]
    assert any("an_instruction_of_tomorrow" in line for line in found["advice"])
    assert main(["certify", str(magika_qdq()), "--baseline", str(path)]) == 1
    assert "lacking: an_instruction_of_tomorrow\n" in capsys.readouterr().out


def test_a_model_that_can_saturate_here_has_its_remedy_named(capsys, baseline, monkeypatch):
    """On a CPU without VNNI, uint8 activations times int8 weights: the session's setting, and reduce_range."""
    monkeypatch.setattr("otel_quantmon.cli.certify.cpu_isa", lambda: "x86_64+avx2")
    monkeypatch.setattr("otel_quantmon.cli.certify.may_saturate", lambda facts, cpu: cpu == "x86_64+avx2")
    found = certified(capsys, magika_qdq(), elsewhere(baseline, "avx512_vnni", spoilt=True), 1)
    assert found["may_saturate"]
    assert any("session.x64quantprecision" in line and "reduce_range" in line for line in found["advice"])


def test_another_file_is_named_and_held_to_the_same_thresholds(capsys, baseline):
    """A model quantized anew may pass; that it is another file is told."""
    capsys.readouterr()
    main(["certify", str(magika_dynamic()), "--baseline", str(baseline), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert not found["same_file"]
    assert any("another model file" in line for line in found["advice"])


def test_a_baseline_that_is_not_there_is_a_mistake_and_no_refusal(capsys, tmp_path):
    """Exit status 2 and one line: the command could not be carried out."""
    assert main(["certify", str(magika_qdq()), "--baseline", str(tmp_path / "missing.safetensors")]) == 2
    assert "missing.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["certify", "baseline check"])
def test_a_model_that_answers_nan_is_refused(capsys, tmp_path, command):
    """Without a reference, and in some elements alone: the root of a negative number. The text names it."""
    good, bad, inputs, path = (tmp_path / name for name in ("m.onnx", "bad.onnx", "x.npy", "b.safetensors"))
    good.write_bytes(doubling())
    nodes = [helper.make_node("Sqrt", ["x"], ["r"]), helper.make_node("Sub", ["r", "r"], ["z"])]
    nodes += [helper.make_node("Add", ["x", "x"], ["t"]), helper.make_node("Add", ["t", "z"], ["y"])]
    bad.write_bytes(model(nodes, inputs=[floats("x", "n", 3)], outputs=[floats("y", "n", 3)], name="bad"))
    np.save(inputs, np.array([[1, 2, -3], [4, 5, 6]], np.float32)[:, None])
    assert main(["baseline", "record", str(good), "--inputs", str(inputs), "-o", str(path)]) == 0
    capsys.readouterr()
    arguments = ["--baseline", str(path), str(bad)] if command == "certify" else [str(path), str(bad)]
    assert main([*command.split(), *arguments]) == 1
    said = capsys.readouterr().out
    assert "nonfinite\n" in said
    assert "y: 1 cases are NaN or infinite where that was not recorded\n" in said
    assert main([*command.split(), *arguments, "--json"]) == 1
    assert "nonfinite" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["certify", "baseline check"])
def test_a_model_that_gives_numbers_where_zeros_were_recorded_is_refused(capsys, tmp_path, command):
    """There is no relative error from zeros, so no threshold is crossed, and the output is another one all the same."""
    good, bad, inputs, path = (tmp_path / name for name in ("m.onnx", "bad.onnx", "x.npy", "b.safetensors"))
    ends = {"inputs": [floats("x", "n", 3)], "outputs": [floats("y", "n", 3)], "name": "zeros"}
    good.write_bytes(model([helper.make_node("Sub", ["x", "x"], ["y"])], **ends))
    bad.write_bytes(model([helper.make_node("Add", ["x", "x"], ["y"])], **ends))
    np.save(inputs, np.array([[1, 2, 3]], np.float32)[:, None])
    assert main(["baseline", "record", str(good), "--inputs", str(inputs), "-o", str(path)]) == 0
    capsys.readouterr()
    for candidate, status in ((good, 0), (bad, 1)):
        arguments = (
            ["--baseline", str(path), str(candidate)] if command == "certify" else [str(path), str(candidate)]
        )
        assert main([*command.split(), *arguments]) == status
    assert "y: 1 cases are other numbers where zeros were recorded\n" in capsys.readouterr().out
