"""Run a baseline's inputs again, and say how far the outputs are from what was recorded."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from otel_quantmon.fidelity.baseline.file import (
    Baseline,
    BaselineError,
    Case,
    Environment,
    LatencyStatistics,
    OutputStatistics,
)
from otel_quantmon.fidelity.baseline.recording import environment_of, latency_of, timed
from otel_quantmon.fidelity.engines import Engine
from otel_quantmon.fidelity.numerics.comparison import Comparison, compare
from otel_quantmon.fidelity.numerics.dequantization import Reason
from otel_quantmon.fidelity.windows import DISAGREEMENT_THRESHOLD, SAME_RELATIVE_ERROR, Thresholds
from otel_quantmon.models.formats.facts import TensorFacts
from otel_quantmon.telemetry.context import suppress_instrumentation

__all__ = [
    "Broken",
    "CaseReplay",
    "OutputReport",
    "ReplayReport",
    "check_baseline",
    "check_case",
    "check_inputs",
    "environment_differences",
    "median_norms",
    "thresholds_of",
]

# 1-cos is about half the square of a small relative error.
_SAME_COSINE = SAME_RELATIVE_ERROR**2 / 2

Broken = Literal["nonfinite", "nonzero", "no_sample"]
"""What no error shows: NaN or infinite where numbers were recorded, other numbers where all were zeros, from which
there is no relative error, or no longer comparable at all."""

# What is stored can be compared with itself, so these say that it is something else now.
_LOST: frozenset[Reason] = frozenset({"unmatched", "kind", "shape", "dtype", "quantization", "sparse"})


@dataclass(frozen=True, slots=True)
class CaseReplay:
    """One case, run again.

    Attributes:
        comparisons: Comparisons with the reference outputs, or, of a baseline without, with the recorded outputs.
        differences: Comparisons with the recorded outputs.
        norms: See `median_norms`: what rounding makes of zeros is a share of it.
    """

    comparisons: list[Comparison]
    differences: list[Comparison]
    norms: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def broken(self) -> dict[str, Broken]:
        """How outputs have broken that gave numbers when they were recorded, by name."""
        judged = {one.output: one for one in self.comparisons}
        found: dict[str, Broken] = {}
        for one in self.differences:
            rounding = SAME_RELATIVE_ERROR * self.norms.get(one.output, 0.0)
            if _how_broken(one, rounding) is None:
                continue
            # What is as in the reference has become no worse, whatever was recorded.
            how = _how_broken(judged.get(one.output, one), rounding)
            if how is not None:
                found[one.output] = how
        return found


def _how_broken(one: Comparison, rounding: float) -> Broken | None:
    if one.measures is not None and one.measures.nonfinite_mismatches:
        return "nonfinite"
    if one.reason == "degenerate" and one.measures is not None and one.measures.max_abs_error > rounding:
        return "nonzero"
    return "no_sample" if one.reason in _LOST else None


def check_case(
    case: Case, outputs: Mapping[str, Any], facts: Mapping[str, TensorFacts], norms: Mapping[str, float]
) -> CaseReplay:
    """Compare what a case gave now with what it gave then.

    Args:
        case: The recorded case.
        outputs: Outputs of the model on ``case.inputs``, by name.
        facts: Facts of the model's outputs, by name.
        norms: See `median_norms`.
    """
    recorded = {name: outputs[name] for name in case.outputs if name in outputs}
    differences = compare(recorded, case.outputs, inputs=case.inputs, facts=facts, reference_facts=facts)
    if not case.references:
        return CaseReplay(differences, differences, norms)
    # In the order of the references: an output that the recording could not match is not asked for.
    now = {name: outputs[name] for name in case.references if name in outputs}
    return CaseReplay(
        compare(now, case.references, inputs=case.inputs, facts=facts, median_norms=norms),
        differences,
        norms,
    )


def median_norms(baseline: Baseline) -> dict[str, float]:
    """Median ‖f‖₂ of each output, in its own unit."""
    return {
        name: statistics.median(found.reference_norms)
        for name, found in baseline.output_statistics.items()
        if found.reference_norms
    }


def thresholds_of(baseline: Baseline) -> dict[str, Thresholds]:
    """Of each output, by `Thresholds.of_baseline`."""
    return {
        name: Thresholds.of_baseline(found.relative_errors, found.cosine_similarities)
        for name, found in baseline.output_statistics.items()
    }


def check_inputs(baseline: Baseline, names: list[str], outputs: list[str]) -> None:
    """Refuse a baseline that is of another model.

    Raises:
        BaselineError: The inputs' or outputs' names are not those of the model.
    """
    for case in baseline.cases[:1]:
        for kind, recorded, now in (("inputs", case.inputs, names), ("outputs", case.outputs, outputs)):
            if not set(recorded) <= set(now) or (kind == "inputs" and set(recorded) != set(now)):
                raise BaselineError(
                    f"the baseline is of {baseline.model!r} with {kind} {sorted(recorded)}, this model's "
                    f"are {sorted(now)}: record one for this model"
                )


def environment_differences(then: Environment, now: Environment) -> dict[str, tuple[object, object]]:
    """Return what differs, with its values then and now."""
    pairs: dict[str, tuple[object, object]] = {
        "runtime": (then.runtime, now.runtime),
        "runtime_version": (then.runtime_version, now.runtime_version),
        "providers": (list(then.providers), list(now.providers)),
        "cpu_features": (list(then.cpu_features), list(now.cpu_features)),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(slots=True)
class OutputReport:
    """One output over all cases.

    Attributes:
        relative_errors, cosine_similarities, disagreements: Measures of now, a value for each case that gave a sample.
        recorded: The same at recording.
        differences: Relative error from the recorded outputs, for each case.
        thresholds: Thresholds that hold for the output.
        changed: Cases whose output is not the recorded one although a relative error has no meaning: of an output
            that was all zeros, or of labels.
        reasons: Why cases gave no sample, and how many.
        broken: Cases whose output has broken, by how.
    """

    recorded: OutputStatistics
    thresholds: Thresholds
    relative_errors: list[float] = field(default_factory=list[float])
    cosine_similarities: list[float] = field(default_factory=list[float])
    disagreements: list[float] = field(default_factory=list[float])
    differences: list[float] = field(default_factory=list[float])
    changed: int = 0
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    broken: dict[Broken, int] = field(default_factory=dict[Broken, int])

    def add_broken(self, how: Broken) -> None:
        """Take note that the output of one case has broken, see `CaseReplay.broken`."""
        self.broken[how] = self.broken.get(how, 0) + 1

    def add_difference(self, one: Comparison) -> None:
        """Take one case's comparison with what was recorded."""
        if one.reason is None and one.measures is not None:
            self.differences.append(one.measures.relative_error)
        elif one.measures is not None:
            self.changed += one.measures.max_abs_error > 0
        elif one.equal_share is not None:
            self.changed += one.equal_share < 1

    def add(self, one: Comparison) -> None:
        """Take one case's comparison with the reference."""
        if one.reason is None and one.measures is not None:
            self.relative_errors.append(one.measures.relative_error)
            self.cosine_similarities.append(one.measures.cosine_similarity)
            if one.measures.disagreement is not None:
                self.disagreements.append(one.measures.disagreement)
        elif one.reason is not None:
            self.reasons[one.reason] = self.reasons.get(one.reason, 0) + 1
        elif one.equal_share is not None and one.equal_share < 1.0:
            self.reasons["labels differ"] = self.reasons.get("labels differ", 0) + 1

    @property
    def crossed(self) -> list[str]:
        """Which thresholds are crossed; of those that the running application checks, too."""
        found: list[str] = []
        # A threshold may be the largest recorded value itself, which another host gives but for its rounding.
        if max(self.relative_errors, default=0.0) > self.thresholds.relative_error + SAME_RELATIVE_ERROR:
            found.append("relative_error")
        if min(self.cosine_similarities, default=1.0) < self.thresholds.cosine_similarity - _SAME_COSINE:
            found.append("cosine_similarity")
        # A model that disagreed as often when it was recorded has not become worse.
        limit = max(DISAGREEMENT_THRESHOLD, *self.recorded.disagreements, 0.0)
        if max(self.disagreements, default=0.0) > limit:
            found.append("disagreement")
        found += [how for how in ("nonfinite", "nonzero") if how in self.broken]
        if "no_sample" in self.broken or (not self.relative_errors and self.recorded.relative_errors):
            found.append("no_sample")
        if "labels differ" in self.reasons:
            found.append("labels")
        return found


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a whole replay gave.

    Attributes:
        outputs: Checks of the outputs, by name.
        latency: Latency of now, of passes after the one that was compared.
        environment: Values of the environment that differ from the recording, then and now.
    """

    outputs: dict[str, OutputReport]
    latency: LatencyStatistics | None
    environment: dict[str, tuple[object, object]]

    @property
    def passed(self) -> bool:
        """True if no threshold is crossed."""
        return not any(output.crossed for output in self.outputs.values())


# As in `record`.
@suppress_instrumentation()
def check_baseline(
    baseline: Baseline, engine: Engine, progress: Callable[[int], object] = lambda _: None
) -> ReplayReport:
    """Replay a whole baseline on a model, from its initial state.

    Args:
        baseline: Baseline to replay.
        engine: The model as it is now.
        progress: A function that is called after each case with the number done so far.

    Raises:
        BaselineError: The baseline is of another model.
        EngineError: The model refuses the inputs.
    """
    check_inputs(baseline, [t.name for t in engine.inputs], [t.name for t in engine.outputs])
    thresholds = thresholds_of(baseline)
    outputs = {
        name: OutputReport(recorded, thresholds[name])
        for name, recorded in baseline.output_statistics.items()
    }
    facts = {tensor.name: tensor for tensor in engine.outputs}
    norms = median_norms(baseline)
    engine.reset()
    for number, case in enumerate(baseline.cases, start=1):
        replay = check_case(case, engine.run(case.inputs), facts, norms)
        for one in replay.comparisons:
            outputs[one.output].add(one)
        for one in replay.differences:
            outputs[one.output].add_difference(one)
        for name, how in replay.broken.items():
            outputs[name].add_broken(how)
        progress(number)
    return ReplayReport(
        outputs,
        latency_of(timed(engine, [case.inputs for case in baseline.cases])),
        environment_differences(baseline.environment, environment_of(engine)),
    )
