"""What the metrics say of real models, held against numpy's own arithmetic on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import real_models
from ai_edge_litert.interpreter import Interpreter
from exported import Exported
from opentelemetry.instrumentation.utils import suppress_instrumentation

from .waiting import by_output, evaluate, outcomes, settle, until

Instrument = Callable[..., None]
Tensors = dict[str, np.ndarray]

RUNS = 3


def audio() -> np.ndarray:
    """Two seconds of three notes and noise, as basic-pitch wants it."""
    t = np.arange(43844) / 22050
    notes = sum(np.sin(2 * np.pi * hertz * t) for hertz in (220.0, 277.2, 329.6))
    noise = np.random.default_rng(2).normal(scale=0.1, size=t.size)
    return (0.2 * notes + noise).astype(np.float32)[None, :, None]


def onnx_outputs(path: Path, feeds: Tensors) -> Tensors:
    """Of one run on one thread, as references are run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return {o.name: v for o, v in zip(session.get_outputs(), session.run(None, feeds), strict=True)}


def tflite_outputs(interpreter: Any, value: np.ndarray) -> Tensors:
    (detail,) = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()}


def new_interpreter(path: Path) -> Any:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def assert_agrees(exported: Exported, quantized: Tensors, reference: Tensors) -> None:
    """The gauges of every output are what float64 arithmetic gives."""
    shown = {
        name: by_output(exported, f"quantmon.output.{name}", statistic)
        for name, statistic in (
            ("relative_error", "last"),
            ("sqnr", None),
            ("cosine_similarity", None),
            ("disagreement", None),
        )
    }
    assert quantized.keys() == reference.keys() == shown["relative_error"].keys()
    for name in quantized:
        q, f = quantized[name].astype(np.float64), reference[name].astype(np.float64)
        relative = np.linalg.norm(q - f) / np.linalg.norm(f)
        cosine = np.vdot(q, f) / np.linalg.norm(q) / np.linalg.norm(f)
        assert shown["relative_error"][name] == pytest.approx(relative, rel=1e-6)
        assert shown["sqnr"][name] == pytest.approx(-20 * np.log10(relative), rel=1e-6)
        assert shown["cosine_similarity"][name] == pytest.approx(cosine, rel=1e-6)
        rows_q, rows_f = q.reshape(-1, q.shape[-1]), f.reshape(-1, f.shape[-1])
        if rows_f.shape[1] > 1:
            # A margin of less than 1024 float32 roundings decides nothing: see `measures.top1_noise`.
            noise = 2.0**-13 * np.abs(rows_f).max(axis=1)
            lead = rows_f.max(axis=1) - np.take_along_axis(rows_f, rows_q.argmax(axis=1)[:, None], 1)[:, 0]
            # A mean of equal numbers, which rounds.
            assert shown["disagreement"][name] == pytest.approx(np.mean(lead > noise), rel=1e-12)


@pytest.mark.parametrize("form", ["qdq", "qoperator", "dynamic"])
def test_a_quantized_onnx_model_is_as_far_from_float_as_numpy_says(
    form: str, instrument: Instrument, exported: Exported
) -> None:
    """Error, SQNR, cosine and disagreement are those of the sampled call, though its input is overwritten after."""
    model = getattr(real_models, f"magika_{form}")()
    features = real_models.magika_inputs(8)
    expected = onnx_outputs(real_models.magika_float(), {"bytes": features})
    instrument(reference={"magika_*": str(real_models.magika_float())}, reference_budget=1.0)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    given = features.copy()
    results: list[Any] = []

    def run() -> None:
        given[:] = features
        results.append(session.run(None, {"bytes": given})[0].copy())
        given[:] = 0

    evaluate(exported, run, RUNS)
    assert_agrees(exported, {"target_label": results[0]}, expected)
    assert outcomes(exported) == {"evaluated": RUNS}
    assert exported.point("quantmon.output.error").count == RUNS
    # The reference's own runs are nobody's inferences.
    assert exported.count() == len(results)
    # An evaluation on a busy machine may have no time for its timed rounds: another one has.
    until(lambda: bool(exported.points("quantmon.speedup")), run)
    assert exported.point("quantmon.speedup").value > 0


@pytest.mark.parametrize("reference", ["basic_pitch_tflite", "basic_pitch_onnx"])
@pytest.mark.parametrize("way", ["invoke", "signature"])
def test_a_quantized_tflite_model_is_compared_with_a_float_one_of_either_runtime(
    way: str, reference: str, instrument: Instrument, exported: Exported
) -> None:
    """All three outputs agree with numpy, for an interpreter and a signature runner, TFLite and ONNX references."""
    path = getattr(real_models, reference)()
    sound = audio()
    if path.suffix == ".onnx":
        expected = onnx_outputs(path, {"serving_default_input_2:0": sound})
    else:
        expected = tflite_outputs(new_interpreter(path), sound)
    instrument(reference={"basic_pitch_*": str(path)}, reference_budget=1.0)
    interpreter = new_interpreter(real_models.basic_pitch_tflite_weight_only())
    results: list[Tensors] = []

    def run() -> None:
        if way == "invoke":
            results.append(tflite_outputs(interpreter, sound))
        else:
            runner = interpreter.get_signature_runner()
            names = {key: detail["name"] for key, detail in runner.get_output_details().items()}
            results.append({names[key]: value for key, value in runner(input_2=sound).items()})

    evaluate(exported, run, RUNS)
    assert_agrees(exported, results[0], expected)
    assert outcomes(exported) == {"evaluated": RUNS}
    assert exported.count() == len(results)


def test_integer_inputs_and_outputs_are_compared_as_the_numbers_they_stand_for(
    instrument: Instrument, exported: Exported
) -> None:
    """An int8 model is given to its float original dequantized, and compared with it dequantized, by its own scales."""
    instrument(reference={"digits_*": str(real_models.digits_tflite_float())}, reference_budget=1.0)
    interpreter = new_interpreter(real_models.digits_tflite_full_integer())
    (read,), (written,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = read["quantization"]
    # A digit that the two do not see quite alike.
    image = real_models.digits_inputs(9)[8:]
    codes = np.clip(np.round(image / scale) + zero_point, -128, 127).astype(np.int8)
    results: list[Tensors] = []
    evaluate(exported, lambda: results.append(tflite_outputs(interpreter, codes)), RUNS)
    seen = (codes.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    scale, zero_point = written["quantization"]
    quantized = {name: (value.astype(np.float64) - zero_point) * scale for name, value in results[0].items()}
    with suppress_instrumentation():
        expected = tflite_outputs(new_interpreter(real_models.digits_tflite_float()), seen)
    assert_agrees(exported, quantized, expected)
    assert exported.count() == len(results)


def test_state_that_is_passed_as_an_input_is_sampled_with_the_call(
    instrument: Instrument, exported: Exported
) -> None:
    """A recurrent model, whose state changes from call to call, is no further from itself than rounding."""
    path = real_models.silero_float()
    instrument(reference={"silero_vad": str(path)}, reference_budget=1.0)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(4)
    state = np.zeros((2, 1, 128), np.float32)

    def run() -> None:
        nonlocal state
        speech = random.normal(scale=0.1, size=(1, 576)).astype(np.float32)
        feeds = {"input": speech, "state": state, "sr": np.array(16000, np.int64)}
        _, state = session.run(None, feeds)

    evaluate(exported, run, RUNS)
    assert outcomes(exported) == {"evaluated": RUNS}
    errors = by_output(exported, "quantmon.output.relative_error", "max")
    assert errors.keys() == {"output", "stateN"}
    assert max(errors.values()) < 1e-5
    # Neither one number nor the 128 of the state are scores of classes.
    assert by_output(exported, "quantmon.output.disagreement") == {}


def test_an_error_is_linked_to_the_trace_of_the_call_that_showed_it(
    instrument: Instrument, exported: Exported
) -> None:
    """The exemplar of the error's histogram is the span of a sampled call, which ended long before."""
    instrument(reference={"*": str(real_models.magika_float())}, reference_budget=1.0)
    session = onnxruntime.InferenceSession(str(real_models.magika_qdq()), providers=["CPUExecutionProvider"])
    # The first call is sampled; a collection takes the exemplars with it.
    session.run(None, {"bytes": real_models.magika_inputs(1)})
    settle()
    (exemplar,) = exported.point("quantmon.output.error").exemplars
    spans = {(span.context.trace_id, span.context.span_id) for span in exported.raw_spans() if span.context}
    assert (exemplar.trace_id, exemplar.span_id) in spans
