"""The rules of a replay that need no model: what is compared, what is judged, how inputs become calls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from real_models import wake_word

from otel_quantmon.fidelity.baseline import BaselineError, Case, Environment, split_cases
from otel_quantmon.fidelity.baseline.recording import latency_of, summarized
from otel_quantmon.fidelity.baseline.replay import (
    OutputReport,
    check_case,
    environment_differences,
    median_norms,
    thresholds_of,
)
from otel_quantmon.fidelity.engines import open_engine
from otel_quantmon.models.formats.facts import TensorFacts

HERE = Environment("onnxruntime", "1.0", ("CPUExecutionProvider",), ("x86_64", "avx2"))
FLOATS = hnp.arrays(np.float32, (2, 5), elements=st.floats(-100, 100, width=32))


def baseline_of(cases):
    return summarized(cases, {}, model="m", digest="sha256:0", environment=HERE)


@given(recorded=FLOATS, now=FLOATS, reference=FLOATS)
@settings(max_examples=50)
def test_a_case_is_compared_with_the_reference_and_with_the_record(recorded, now, reference):
    """Both relative errors are those of numpy wherever they have a meaning."""
    case = Case(inputs={}, outputs={"y": recorded}, references={"y": reference})
    replay = check_case(case, {"y": now, "other": now}, {}, {})
    for (one,), against in ((replay.comparisons, reference), (replay.differences, recorded)):
        norm = np.linalg.norm(against.astype(np.float64))
        assert (one.reason == "degenerate") == (norm == 0)
        if norm:
            expected = np.linalg.norm(now.astype(np.float64) - against) / norm
            assert one.measures.relative_error == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_without_a_reference_the_record_is_one():
    """A baseline without reference outputs judges by the recorded outputs."""
    y = np.arange(1, 5, dtype=np.float32)
    replay = check_case(Case(inputs={}, outputs={"y": y}), {"y": y * 2}, {}, {})
    assert replay.comparisons is replay.differences
    assert replay.comparisons[0].measures.relative_error == 1.0


def test_norms_and_thresholds_are_of_the_recorded_samples():
    """The median norm tells what is degenerate; eight samples make the model's own thresholds, fewer do not."""
    f = np.ones((1, 4), np.float32)
    cases = [
        Case(inputs={}, outputs={"y": f * size * 1.2}, references={"y": f * size}) for size in range(1, 10)
    ]
    assert median_norms(baseline_of(cases)) == {"y": 10.0}
    own = thresholds_of(baseline_of(cases))["y"]
    assert own.from_baseline
    assert own.relative_error == pytest.approx(0.3)  # one and a half medians of 0.2
    assert not thresholds_of(baseline_of(cases[:7]))["y"].from_baseline


def report(recorded, *, now, references=True):
    """A report of cases that gave ``recorded``, and give ``now``, where the reference is all ones."""
    f = np.ones((1, 4), np.float32)
    cases = [
        Case(inputs={}, outputs={"y": f * value}, references={"y": f} if references else {})
        for value in recorded
    ]
    baseline = baseline_of(cases)
    found = OutputReport(baseline.output_statistics["y"], thresholds_of(baseline)["y"])
    for case, value in zip(cases, now, strict=True):
        replay = check_case(case, {"y": f * value}, {}, median_norms(baseline))
        found.add(replay.comparisons[0])
        found.add_difference(replay.differences[0])
        for how in replay.broken.values():
            found.add_broken(how)
    return found


def test_what_crosses():
    """Past the largest recorded error by more than rounding is crossed; at it, or NaN for all, is told apart."""
    recorded = [1.2] * 8
    assert report(recorded, now=recorded).crossed == []
    assert report(recorded, now=[*recorded[:7], 1.29]).crossed == []
    assert report(recorded, now=[*recorded[:7], 1.31]).crossed == ["relative_error"]
    assert "no_sample" in report(recorded, now=[np.nan] * 8).crossed
    assert report(recorded, now=[np.nan] * 8).reasons == {"non_finite": 8}


def broken(recorded, now, reference=None):
    """How an output has broken in one case."""
    references = {} if reference is None else {"y": reference}
    case = Case(inputs={}, outputs={"y": recorded}, references=references)
    return check_case(case, {"y": now}, {}, {}).broken.get("y")


def with_nan(array, count):
    return np.where(np.arange(array.size) < count, np.float32(np.nan), array)


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("count", [1, 999, 1000])
def test_a_value_that_is_no_number_any_more_is_crossed(count, references):
    """In one case of twenty, and whether or not an element is left that can be compared."""
    y = np.arange(1, 1001, dtype=np.float32)
    cases = [Case(inputs={}, outputs={"y": y}, references={"y": y} if references else {})] * 20
    baseline = baseline_of(cases)
    found = OutputReport(baseline.output_statistics["y"], thresholds_of(baseline)["y"])
    for number, case in enumerate(cases):
        replay = check_case(case, {"y": y if number else with_nan(y, count)}, {}, median_norms(baseline))
        found.add(replay.comparisons[0])
        found.add_difference(replay.differences[0])
        for how in replay.broken.values():
            found.add_broken(how)
    assert found.broken == {"nonfinite": 1}
    assert found.crossed == ["nonfinite"]


def test_what_breaks_an_output():
    """NaN or infinity that were not recorded, another shape or kind; not what is as in record or float model."""
    y = np.arange(1, 9, dtype=np.float32)
    assert broken(y, y) is None
    assert broken(with_nan(y, 3), with_nan(y, 3)) is None
    assert broken(with_nan(y, 8), with_nan(y, 8)) is None
    assert broken(with_nan(y, 3), with_nan(y, 4)) == "nonfinite"
    assert broken(np.zeros(8, np.float32), with_nan(np.zeros(8, np.float32), 1)) == "nonfinite"
    assert broken(y, np.append(y[1:], np.float32(np.inf))) == "nonfinite"
    assert broken(y, y[:4]) == "no_sample"
    assert broken(y, np.arange(8)) == "no_sample"
    assert broken(y, None) == "no_sample"
    # Recorded with a fault that the float model never had: a better one is no worse.
    assert broken(with_nan(y, 3), y, y) is None
    assert broken(y.astype(np.int64), y, y) is None
    assert broken(y.astype(np.int64), with_nan(y, 2), y) == "nonfinite"


def test_zeros_that_are_zeros_no_more():
    """A recorded output of zeros has no relative error: that it has changed is counted instead."""
    found = report([0.0] * 3, now=[0.0, 0.5, 0.5], references=False)
    assert found.differences == []
    assert found.changed == 2
    assert found.broken == {"nonzero": 2}
    assert found.crossed == ["nonzero"]
    assert report([0.0] * 3, now=[0.0] * 3, references=False).crossed == []


def test_zeros_that_become_as_the_reference_are_no_worse():
    """The float model's numbers where the recorded model gave zeros: the error from it has a threshold of its own."""
    zeros, ones = np.zeros(8, np.float32), np.ones(8, np.float32)
    assert broken(zeros, ones, ones) is None
    assert broken(zeros, ones, zeros) == "nonzero"


def test_what_rounding_makes_of_zeros_is_not_crossed():
    """Another order of sums leaves some millionths of what the output usually is."""
    case = Case(inputs={}, outputs={"y": np.zeros(8, np.float32)}, references={})
    rest = np.full(8, 1e-5, np.float32)
    assert check_case(case, {"y": rest}, {}, {"y": 1.0}).broken == {}
    assert check_case(case, {"y": 1000 * rest}, {}, {"y": 1.0}).broken == {"y": "nonzero"}


def test_another_place_is_told():
    """Only what differs between two environments is given, with both values."""
    there = Environment("onnxruntime", "1.1", HERE.providers, ("x86_64", "avx512_vnni"))
    assert environment_differences(HERE, HERE) == {}
    assert environment_differences(HERE, there) == {
        "runtime_version": ("1.0", "1.1"),
        "cpu_features": (["x86_64", "avx2"], ["x86_64", "avx512_vnni"]),
    }


@given(durations=st.lists(st.integers(1, 10**9), min_size=1, max_size=200))
def test_latency_has_the_rules_of_the_window(durations):
    """Mean and quantiles are those that the running application reports of the same durations."""
    found = latency_of([duration * 1e-9 for duration in durations])
    assert found.count == len(durations)
    assert found.mean == pytest.approx(np.mean(durations) * 1e-9)
    ordered = np.quantile(durations, [0.5, 0.95, 0.99], method="inverted_cdf") * 1e-9
    assert (found.p50, found.p95, found.p99) == pytest.approx(tuple(ordered))


X = (TensorFacts("x", "float32", (1, 3)),)


def test_how_a_file_becomes_calls():
    """A dimension more is one of calls; a batch is divided only when asked; of several calls the first are taken."""
    stacked = split_cases([{"x": np.arange(12).reshape(4, 1, 3)}], X)
    assert [call["x"].tolist() for call in stacked] == [[[0, 1, 2]], [[3, 4, 5]], [[6, 7, 8]], [[9, 10, 11]]]
    batch = {"x": np.arange(12).reshape(4, 3)}
    assert split_cases([batch], X) == [batch]
    assert [call["x"].shape for call in split_cases([batch], X, 2)] == [(2, 3), (2, 3)]
    assert [call["x"].shape for call in split_cases([batch], X, 3)] == [(2, 3), (1, 3), (1, 3)]
    assert split_cases([batch, batch, batch], X, 2) == [batch, batch]
    with pytest.raises(BaselineError, match="holds 1 calls, not 5"):
        split_cases([batch], X, 5)


def test_nothing_to_record():
    """No call, or no output that is an array, is refused with a reason."""
    with pytest.raises(BaselineError, match="at least one call"):
        baseline_of([])
    with pytest.raises(BaselineError, match="no output"):
        baseline_of([Case(inputs={}, outputs={})])


def test_a_reset_engine_has_heard_nothing():
    """State that lives outside the interpreter's arena goes too: a stream gives what a fresh engine gives."""
    rng = np.random.default_rng(2)
    inputs = [rng.integers(90, 127, (1, 3, 40)).astype(np.int8) for _ in range(40)]
    engine = open_engine(str(wake_word()))
    (name,) = (tensor.name for tensor in engine.inputs)

    def hear():
        return [int(next(iter(engine.run({name: one}).values()))[0, 0]) for one in inputs]

    fresh = hear()
    assert hear() != fresh
    engine.reset()
    assert hear() == fresh
