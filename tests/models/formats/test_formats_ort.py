"""Facts of ONNX Runtime (ORT) format models, against those of the ONNX models they are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import real_models

from otel_quantmon.models.formats import read_facts

from .onnx_models import quantized_conv_net


def saved_as_ort(source: Path, folder: Path, level: onnxruntime.GraphOptimizationLevel) -> Path:
    """The model as a session writes it in ORT format after its optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "net.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return folder / "net.ort"


@pytest.mark.parametrize(
    "source",
    [
        real_models.one_op_onnx,
        real_models.magika_float,
        real_models.magika_qdq,
        real_models.magika_dynamic,
        real_models.silero_float,
    ],
    ids=lambda f: f.__name__,
)
def test_unoptimized_model_has_the_facts_of_its_source(source: Callable[[], Path], tmp_path: Path) -> None:
    """Both file formats of one graph give one result, but for what ORT's does not hold (the graph's name)."""
    path = saved_as_ort(source(), tmp_path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    ours, theirs = read_facts(path), read_facts(source())
    assert ours.format == "ort"
    assert ours.size == path.stat().st_size
    same = {"inputs": ours.inputs, "outputs": ours.outputs, "metadata": ours.metadata, "scheme": ours.scheme}
    assert same == {name: getattr(theirs, name) for name in same}
    assert (ours.weight_type, ours.activation_type) == (theirs.weight_type, theirs.activation_type)


def test_edges_of_a_quantized_model_are_read(tmp_path: Path) -> None:
    """Scales and zero points survive the change of format; ORT's number for "no version" is none."""
    source = quantized_conv_net(tmp_path, "QDQ")
    path = saved_as_ort(source, tmp_path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    ours, theirs = read_facts(path), read_facts(source)
    assert ours.inputs[0].quantization is not None
    assert replace(ours, format="onnx", size=theirs.size, name=theirs.name) == theirs


def test_a_fused_model_is_what_it_has_become(tmp_path: Path) -> None:
    """After ORT's optimizations a QDQ model runs, and is reported, as integer operators."""
    source = quantized_conv_net(tmp_path, "QDQ")
    path = saved_as_ort(source, tmp_path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    facts = read_facts(path)
    assert facts.scheme == "qoperator"
    assert facts.operators["QLinearConv"] == 1


def test_half_weights_that_the_provider_casts_compute_in_float32(tmp_path: Path) -> None:
    """The CPU provider has no float16 convolution: ORT casts each weight, and the facts say so."""
    source = real_models.basic_pitch_onnx_float16()
    path = saved_as_ort(source, tmp_path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    facts = read_facts(path)
    assert facts.operators["Cast"] > read_facts(source).operators["Cast"]
    assert (facts.scheme, facts.weight_type, facts.activation_type) == ("float16", "float16", "float32")
