"""A golden baseline is replayed against the running model, and its values are those of `quantmon baseline check`."""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from real_models import (
    basic_pitch_tflite,
    basic_pitch_tflite_weight_only,
    digits_inputs,
    digits_tflite_float,
    digits_tflite_full_integer,
    magika_dynamic,
    magika_float,
    magika_inputs,
    magika_qdq,
    wake_word,
)

from fidelity.waiting import anomalies, judge, pipeline_of
from otel_quantmon.detection.model_streams import ModelStreams
from otel_quantmon.fidelity.assessment import Assessment
from otel_quantmon.fidelity.baseline import check_baseline, read_baseline, record, replay, write_baseline
from otel_quantmon.fidelity.engines import open_engine
from otel_quantmon.fidelity.golden import Golden
from otel_quantmon.probe.probe import Probe
from otel_quantmon.telemetry.providers import Providers

RELATIVE_ERROR = "quantmon.output.relative_error"
EVALUATIONS = "quantmon.reference.evaluations"
# Any of them may be loaded while other helpers of the machine are busy: only a hang is a failure.
PATIENCE = 120


def magika_rows(count):
    return [{"bytes": row[None]} for row in magika_inputs(count)]


def steps(count):
    """Steps of a stream that the wake word's state makes something of."""
    rng = np.random.default_rng(2)
    return [
        {"serving_default_input_audio:0": rng.integers(90, 127, (1, 3, 40)).astype(np.int8)}
        for _ in range(count)
    ]


@pytest.fixture
def written(tmp_path):
    """Writes a baseline of a model; returns its path."""

    def written(model, inputs, reference=None):
        path = tmp_path / "baseline.safetensors"
        baseline = record(str(model), inputs, reference=None if reference is None else str(reference))
        write_baseline(path, baseline)
        return path

    return written


@pytest.fixture
def rests(monkeypatch):
    """Counts the replays that are over, whichever way they ended; `wait` for one more."""
    semaphore = threading.Semaphore(0)
    rest, begin = Golden._rest, Golden.__init__
    # Models of earlier tests may still be replayed; theirs are not waited for.
    mine = []

    def beginning(self, *args, **kwargs):
        mine.append(id(self))
        begin(self, *args, **kwargs)

    def resting(self, began):
        rest(self, began)
        if id(self) in mine:
            semaphore.release()

    monkeypatch.setattr(Golden, "__init__", beginning)
    monkeypatch.setattr(Golden, "_rest", resting)

    class Rests:
        def wait(self):
            assert semaphore.acquire(timeout=PATIENCE)

    return Rests()


def points(exported, name, **attributes):
    """Values of a metric's golden points by output and statistic."""
    metric = exported.raw_metrics().get(name)
    found = {}
    for point in () if metric is None else metric.data.data_points:
        attributes = dict(point.attributes)
        if attributes.get("quantmon.reference.source") == "golden":
            key = attributes.get("quantmon.output.name") or attributes["quantmon.reference.outcome"]
            found[key, attributes.get("quantmon.statistic")] = point
    return found


def use(instance):
    """One call of the application."""
    if hasattr(instance, "run"):
        (given,) = instance.get_inputs()
        instance.run(None, {given.name: magika_inputs(1)})
    else:
        instance.invoke()


def interpreter(path):
    made = Interpreter(str(path))
    made.allocate_tensors()
    return made


def case_of_pair(pair):
    """Quantized model, float model, inputs of a pair."""
    if pair == "magika":
        return magika_qdq(), magika_float(), magika_rows(9)
    if pair == "magika dynamic":
        return magika_dynamic(), magika_float(), magika_rows(3)
    if pair == "digits":
        codes = np.clip(np.round(digits_inputs(9) * 255) - 128, -128, 127).astype(np.int8)
        return (
            digits_tflite_full_integer(),
            digits_tflite_float(),
            [{"serving_default_image:0": code[None]} for code in codes],
        )
    audio = np.random.default_rng(5).normal(0, 0.1, (1, 43844, 1)).astype(np.float32)
    (given,) = open_engine(str(basic_pitch_tflite_weight_only())).inputs
    return basic_pitch_tflite_weight_only(), basic_pitch_tflite(), [{given.name: audio}]


@pytest.mark.parametrize("pair", ["magika", "magika dynamic", "digits", "basic pitch"])
def test_values_are_those_of_the_command(pair, instrument, exported, written, rests):
    """Every output's mean, largest and last relative error, cosine and SQNR equal those of the check to 1e-6."""
    model, reference, inputs = case_of_pair(pair)
    path = written(model, inputs, reference)
    instrument(baseline=str(path), baseline_interval=3600.0, reference_budget=1.0)
    instance = (
        onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        if model.suffix == ".onnx"
        else interpreter(model)
    )
    use(instance)
    rests.wait()
    expected = check_baseline(read_baseline(path), open_engine(str(model)))
    errors = points(exported, RELATIVE_ERROR)
    assert {name for name, _ in errors} == set(expected.outputs)
    for name, output in expected.outputs.items():
        assert errors[name, "mean"].value == pytest.approx(np.mean(output.relative_errors), abs=1e-6)
        assert errors[name, "max"].value == pytest.approx(max(output.relative_errors), abs=1e-6)
        assert errors[name, "last"].value == pytest.approx(output.relative_errors[-1], abs=1e-6)
        cosine = points(exported, "quantmon.output.cosine_similarity")[name, None].value
        assert cosine == pytest.approx(np.mean(output.cosine_similarities), abs=1e-6)
        histogram = points(exported, "quantmon.output.error")[name, None]
        assert histogram.count == len(inputs)
        assert histogram.sum == pytest.approx(sum(output.relative_errors), abs=1e-6)
    assert points(exported, EVALUATIONS)["evaluated", None].value == len(inputs)


def test_a_replay_is_not_a_call_of_the_application(instrument, exported, written, rests):
    """The live session runs the cases on the worker, and neither calls nor spans count them."""
    path = written(magika_qdq(), magika_rows(3), magika_float())
    instrument(baseline=str(path), baseline_interval=3600.0, reference_budget=1.0)
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    use(session)
    rests.wait()
    assert exported.count() == 1
    assert len(exported.raw_spans()) == 1


def test_a_stateful_model_begins_at_its_initial_state(instrument, exported, written, rests, caplog):
    """A second instance replays the stream from its start, whatever the application's interpreter has heard."""
    inputs = steps(40)
    path = written(wake_word(), inputs)
    outputs = [case.outputs for case in read_baseline(path).cases]
    assert len({int(next(iter(output.values()))[0, 0]) for output in outputs}) > 1, "the state shows"
    instrument(baseline=str(path), baseline_interval=0.001, reference_budget=1.0)
    instance = interpreter(wake_word())
    detail = instance.get_input_details()[0]
    for heard in steps(35):
        instance.set_tensor(detail["index"], heard[detail["name"]])
        instance.invoke()
    rests.wait()
    rests.wait()
    (name,) = outputs[0]
    assert points(exported, RELATIVE_ERROR)[name, "max"].value == 0.0
    assert not [record for record in caplog.records if "computes differently" in record.message]


def test_an_interpreter_loaded_from_a_buffer(instrument, exported, written, rests):
    """The buffer that the interpreter keeps is what its second instance is made from."""
    path = written(wake_word(), steps(4))
    instrument(baseline=str(path), baseline_interval=3600.0, reference_budget=1.0)
    instance = Interpreter(model_content=wake_word().read_bytes())
    instance.allocate_tensors()
    instance.invoke()
    rests.wait()
    assert "failed" not in {name for name, _ in points(exported, EVALUATIONS)}


def test_latency_and_thresholds_come_from_the_baseline(instrument, exported, written, rests):
    """Drift is measured from the recorded mean, and an error is judged by the model's own recorded ones."""
    path = written(magika_qdq(), magika_rows(9), magika_float())
    baseline = read_baseline(path)
    instrument(baseline=str(path), baseline_interval=3600.0, reference_budget=1.0, baseline_calls=1000)
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    use(session)
    rests.wait()
    drift = exported.point("quantmon.inference.duration.drift").value
    mean = exported.point("quantmon.inference.window.duration", statistic="mean").value
    assert drift == pytest.approx(mean / baseline.latency.mean - 1.0)
    # The largest recorded error is past the fixed threshold, and no anomaly all the same.
    assert max(baseline.output_statistics["target_label"].relative_errors) > 0.05
    kinds = {point.attributes["quantmon.anomaly.type"] for point in exported.points("quantmon.anomalies")}
    assert "relative_error" not in kinds


def test_a_given_duration_goes_before_that_of_the_file(instrument, exported, written, rests):
    """The duration that the user has set stays what drift is measured from."""
    path = written(magika_qdq(), magika_rows(1))
    instrument(baseline=str(path), reference_budget=1.0, baseline_duration=1000.0)
    use(session := onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"]))
    rests.wait()
    assert exported.point("quantmon.inference.duration.drift").value == pytest.approx(-1.0, abs=1e-2)
    del session


def replaced(path, content):
    """The file's content in one step, as deployments do it."""
    other = path.with_suffix(".new")
    other.write_bytes(content)
    other.replace(path)


FAULTS = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: replaced(path, path.read_bytes()[:-7]),
    "damaged": lambda path: replaced(path, path.read_bytes()[:-7] + b"\x01234567"),
    "foreign": lambda path: replaced(path, b"MZ not a baseline"),
    "newer": lambda path: replaced(path, path.read_bytes().replace(b'"version":"1"', b'"version":"9"')),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_goes_bad(fault, instrument, exported, written, rests, caplog):
    """One warning that says what to do, results as before, and replays again when the file is good again."""
    path = written(magika_qdq(), magika_rows(2), magika_float())
    good = path.read_bytes()
    instrument(baseline=str(path), baseline_interval=0.001, reference_budget=1.0)
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"bytes": magika_inputs(1)})[0]
    rests.wait()
    FAULTS[fault](path)
    while not points(exported, EVALUATIONS).get(("failed", None)):
        rests.wait()
    rests.wait()
    np.testing.assert_array_equal(session.run(None, {"bytes": magika_inputs(1)})[0], expected)
    warnings = [r.message for r in caplog.records if "monitoring goes on without it" in r.message]
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    replaced(path, good)
    before = points(exported, EVALUATIONS)["evaluated", None].value
    while points(exported, EVALUATIONS)["evaluated", None].value == before:
        rests.wait()


@pytest.mark.parametrize("job", ["thresholds_of", "check_case"], ids=["at its beginning", "at a case"])
def test_a_replay_that_our_code_fails_over_is_followed_by_the_next(
    job, instrument, exported, written, rests, monkeypatch
):
    """Whatever raises in it: without that nothing would be replayed any more, and nobody told."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")
    working, failed = getattr(replay, job), []

    def once(*arguments):
        if not failed:
            failed.append(True)
            raise ZeroDivisionError
        return working(*arguments)

    monkeypatch.setattr(replay, job, once)
    path = written(magika_qdq(), magika_rows(2), magika_float())
    instrument(baseline=str(path), baseline_interval=0.001, reference_budget=1.0)
    use(session := onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"]))
    rests.wait()
    assert failed
    while ("evaluated", None) not in points(exported, EVALUATIONS):
        rests.wait()
    del session


def test_a_baseline_of_another_file_is_compared_all_the_same(instrument, exported, written, rests, caplog):
    """Of a model quantized anew the error is known, one warning names both digests, another the difference."""
    path = written(magika_qdq(), magika_rows(3), magika_float())
    instrument(baseline=str(path), baseline_interval=0.001, reference_budget=1.0)
    session = onnxruntime.InferenceSession(str(magika_dynamic()), providers=["CPUExecutionProvider"])
    use(session)
    rests.wait()
    rests.wait()
    assert points(exported, RELATIVE_ERROR)["target_label", "max"].value > 0
    messages = [record.message for record in caplog.records if record.name == "otel_quantmon"]
    assert len([m for m in messages if "was recorded of another file (sha256:" in m]) == 1
    assert len([m for m in messages if "computes differently here" in m]) == 1


def test_a_baseline_of_another_model_is_refused(instrument, exported, written, rests, caplog):
    """A model with other inputs is not run on them, and the warning says what to do."""
    path = written(wake_word(), steps(2))
    instrument(baseline=str(path), baseline_interval=3600.0, reference_budget=1.0)
    use(session := onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"]))
    rests.wait()
    assert "record one for this model" in caplog.text
    assert set(points(exported, EVALUATIONS)) == {("failed", None)}
    del session


def test_a_model_file_that_was_replaced_has_no_twin(instrument, exported, written, rests, caplog, tmp_path):
    """A second instance made of a file that is not the loaded one would speak for another model: it is not made."""
    model = tmp_path / "word.tflite"
    model.write_bytes(wake_word().read_bytes())
    path = written(model, steps(2))
    instrument(baseline=str(path), baseline_interval=0.001, reference_budget=1.0)
    instance = interpreter(model)
    instance.invoke()
    rests.wait()
    replaced(model, digits_tflite_full_integer().read_bytes())
    while not points(exported, EVALUATIONS).get(("failed", None)):
        rests.wait()
    assert "has changed since the model was loaded" in caplog.text
    del instance


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_recorded_case_that_gives_nan_is_an_anomaly(
    share, instrument, exported, written, rests, monkeypatch
):
    """Whether all elements are NaN or some: counted, no longer as recorded, and over when it is."""
    path = written(magika_qdq(), magika_rows(2))
    instrument(baseline=str(path), baseline_interval=3600.0, reference_budget=1.0)
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    use(session)
    rests.wait()
    replayer = Probe.replayer

    # No kernel can be made to overflow from here on; this stands for one.
    def faulty(probe):
        run = replayer(probe)
        return lambda given: {name: spoilt(value) for name, value in run(given).items()}

    def spoilt(value):
        return np.where(np.arange(value.size).reshape(value.shape) < share * value.size, np.nan, value)

    (series,) = pipeline_of(exported).live_series()
    answers, facts, fact = [], [], ModelStreams.fact

    def told(streams, kind, of, value, at):
        facts.append((kind, of, value))
        fact(streams, kind, of, value, at)

    monkeypatch.setattr(ModelStreams, "fact", told)

    def replay():
        # Not by `rests`: the anomaly has the recorded cases replayed as well, to find its cause.
        done = threading.Event()
        series.golden.replay_now(lambda as_recorded: (answers.append(as_recorded), done.set()))
        assert done.wait(PATIENCE)
        judge(exported)

    with monkeypatch.context() as patched:
        patched.setattr(Probe, "replayer", faulty)
        replay()
    assert answers == [False]
    assert anomalies(exported) == {"nonfinite": 1}
    replay()
    assert answers == [False, True]
    # Its gauge stays up for a minute at least.
    assert {(kind, of) for kind, of, _ in facts} == {("nonfinite", "golden target_label")}
    assert (facts[0][2], facts[-1][2]) == (2, 0)
    del session


def test_no_budget_no_replay(instrument, exported, written):
    """With a budget of 0 for references nothing is replayed, nor is the file read."""
    path = written(magika_qdq(), magika_rows(1))
    instrument(baseline=str(path), reference_budget=0.0)
    use(session := onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"]))
    assert points(exported, EVALUATIONS) == {}
    del session


def test_nothing_keeps_a_dropped_session_alive(instrument, exported, written, rests):
    """The timer goes with the model: after it there is neither a replay nor a series."""
    import gc
    import weakref

    path = written(magika_qdq(), magika_rows(1))
    instrument(baseline=str(path), baseline_interval=3600.0, reference_budget=1.0)
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    use(session)
    rests.wait()
    exported.raw_metrics()
    goldens = [weakref.ref(one) for one in gc.get_objects() if isinstance(one, (Golden, Assessment))]
    live = [one for one in goldens if _providers_of(one()).meter_provider is exported.meter_provider]
    gone = weakref.ref(session)
    del session
    exported.raw_metrics()
    gc.collect()
    assert gone() is None
    assert live
    assert [one() for one in live if one() is not None] == []
    assert points(exported, RELATIVE_ERROR) == {}


def test_a_session_that_goes_in_the_middle_of_a_replay_is_no_failure(instrument, exported, written, rests):
    """The replay ends, and nothing is told of it."""
    path = written(magika_qdq(), magika_rows(2))
    instrument(baseline=str(path), baseline_interval=3600.0, reference_budget=1.0)
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    probe = session._quantmon_probe
    # The object is what goes; its record stays, as it does for a moment.
    probe.instance = lambda: None
    use(session)
    rests.wait()
    assert points(exported, EVALUATIONS) == {}


def test_after_the_providers_end_nothing_is_replayed(instrument, exported, written, monkeypatch):
    """What nobody hears of is not worth the processor's time."""
    path = written(magika_qdq(), magika_rows(1))
    exported.meter_provider.shutdown()
    read, begun, again = [], threading.Event(), Golden._again
    monkeypatch.setattr(
        Golden, "_again", lambda *args: (again(*args), begun.set() if len(args) > 2 else None)
    )
    monkeypatch.setattr("otel_quantmon.fidelity.baseline.read_baseline", read.append)
    instrument(baseline=str(path), baseline_interval=3600.0)
    session = onnxruntime.InferenceSession(str(magika_qdq()), providers=["CPUExecutionProvider"])
    use(session)
    assert begun.wait(PATIENCE)
    assert read == []


def _providers_of(one: Golden | Assessment) -> Providers:
    assessment = one._assessment() if isinstance(one, Golden) else one
    return assessment._providers
