"""``quantmon compare``: a quantized model against its float original, by the measures of the running application."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from time import perf_counter, thread_time
from typing import Any

from otel_quantmon.cli.cases import read_cases
from otel_quantmon.cli.output import number, progress, table, write_json
from otel_quantmon.fidelity.engines import Engine, EngineError, feed, open_engine
from otel_quantmon.fidelity.layers.breakdown import LayerReport, break_down
from otel_quantmon.fidelity.numerics.comparison import Comparison, compare
from otel_quantmon.fidelity.numerics.measures import Measures
from otel_quantmon.fidelity.numerics.speedup import SHORTEST, speedup, time_in_turns
from otel_quantmon.fidelity.numerics.tensor_checks import check_tensor

__all__ = ["ModelComparison", "OutputComparison", "compare_command", "compare_models"]

# Of these many calls: intermediate tensors are many, and an error that enters does so at each call.
_LAYER_CALLS = 8

# Calls that both models are timed with, seconds that this takes, as far as the fewest rounds allow, and rounds at most.
_TIMED_CALLS = 8
_TIMING = 1.0
_MOST_ROUNDS = 400


@dataclass(slots=True)
class OutputComparison:
    """One output over all calls.

    Attributes:
        reference: Name of the output in the float model, None if there is none.
        samples: Measures of each call that gave a sample.
        equal_shares: Shares of equal elements of each call, for labels.
        reasons: Why calls gave no sample, and how many.
        nonfinite: Elements that are NaN or infinite in one model alone.
    """

    reference: str | None = None
    samples: list[Measures] = field(default_factory=list[Measures])
    equal_shares: list[float] = field(default_factory=list[float])
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    nonfinite: int = 0

    def add(self, one: Comparison) -> None:
        """Take one call."""
        self.reference = one.reference
        if one.measures is not None:
            self.nonfinite += one.measures.nonfinite_mismatches
        if one.reason is not None:
            reason = f"{one.reason}: {one.detail}" if one.detail else one.reason
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        elif one.measures is not None:
            self.samples.append(one.measures)
        elif one.equal_share is not None:
            self.equal_shares.append(one.equal_share)


@dataclass(slots=True)
class ModelComparison:
    """Two models over all calls.

    Attributes:
        outputs: Comparisons of the outputs, by name.
        clip_ratios: Clip ratios of each call, by input.
        float_durations, quantized_durations: Seconds of runs that were made in turns, as many of each.
    """

    outputs: dict[str, OutputComparison] = field(default_factory=dict[str, OutputComparison])
    clip_ratios: dict[str, list[float]] = field(default_factory=dict[str, "list[float]"])
    float_durations: list[float] = field(default_factory=list[float])
    quantized_durations: list[float] = field(default_factory=list[float])


def compare_command(arguments: Namespace) -> int:
    """Compare two models; see ``quantmon compare --help``."""
    quantized = open_engine(arguments.quantized, threads=arguments.threads)
    original = open_engine(arguments.float, threads=arguments.threads)
    mapping = dict(arguments.map)
    _check_order(arguments.float, original, arguments.quantized, quantized)
    calls = read_cases(arguments.inputs, quantized.inputs, arguments.cases)
    with progress("Comparing", len(calls)) as done:
        result = compare_models(original, quantized, calls, mapping, done)
    result.float_durations, result.quantized_durations = time_models(
        original, quantized, calls[:_TIMED_CALLS], mapping, one_thread=arguments.threads == 1
    )
    layers: list[LayerReport] | None = None
    if arguments.layers:
        some = calls[:_LAYER_CALLS]
        with progress("Layers", len(some)) as done:
            layers = break_down(arguments.float, arguments.quantized, some, mapping, done)
    if arguments.json:
        write_json(_as_json(result, len(calls), layers))
    else:
        _show(result, len(calls), layers)
    if not any(output.samples or output.equal_shares for output in result.outputs.values()):
        sys.stderr.write("quantmon: error: no output could be compared; the reasons are in the report\n")
        return 2
    return 0


def _check_order(float_path: str, original: Engine, quantized_path: str, quantized: Engine) -> None:
    """Refuse two models in the wrong order, where their files show which is the quantized one.

    Raises:
        EngineError: The two are in the wrong order.
    """
    if quantized.facts.scheme == "none" and original.facts.scheme not in ("none", "unknown"):
        raise EngineError(
            f"FLOAT {float_path!r} is quantized ({original.facts.scheme}) and QUANTIZED {quantized_path!r} is not: "
            f"give them in the other order, quantmon compare {shlex.join([quantized_path, float_path])} ..."
        )


def compare_models(
    original: Engine,
    quantized: Engine,
    calls: Sequence[Mapping[str, Any]],
    mapping: Mapping[str, str],
    progress: Callable[[int], object] = lambda _: None,
) -> ModelComparison:
    """Run both models on the same inputs, in order, from their initial states.

    Args:
        original: The float model.
        quantized: The model that is compared; its names are used.
        calls: Inputs of the quantized model.
        mapping: Names of the quantized model to those of the original, where they differ.
        progress: A function that is called after each call with the number done so far.

    Raises:
        EngineError: A model refuses the inputs.
    """
    result = ModelComparison()
    facts = {tensor.name: tensor for tensor in (*quantized.inputs, *quantized.outputs)}
    reference_facts = {tensor.name: tensor for tensor in original.outputs}
    original.reset()
    quantized.reset()
    for done, inputs in enumerate(calls, start=1):
        feeds = feed(inputs, facts, original.inputs, mapping)
        outputs, references = quantized.run(inputs), original.run(feeds)
        for one in compare(
            outputs,
            references,
            inputs=inputs,
            facts=facts,
            reference_facts=reference_facts,
            mapping=mapping,
        ):
            result.outputs.setdefault(one.output, OutputComparison()).add(one)
        for name, array in inputs.items():
            check = check_tensor(array, facts.get(name))
            if check is not None and check.clip_ratio is not None:
                result.clip_ratios.setdefault(name, []).append(check.clip_ratio)
        progress(done)
    return result


def time_models(
    original: Engine,
    quantized: Engine,
    calls: Sequence[Mapping[str, Any]],
    mapping: Mapping[str, str],
    *,
    one_thread: bool,
) -> tuple[list[float], list[float]]:
    """Seconds that both models take for some of the calls, run in turns; see `time_in_turns`.

    Args:
        original, quantized, calls, mapping: See `compare_models`. The models are left in whatever state they end in.
        one_thread: True if each runs on the calling thread alone. Then its processor time is taken, in which the other
            load of the machine does not count.

    Raises:
        EngineError: A model refuses the inputs.
    """
    facts = {tensor.name: tensor for tensor in quantized.inputs}
    feeds = [feed(inputs, facts, original.inputs, mapping) for inputs in calls]
    # Two rounds with each call, so that it meets the models in both orders.
    return time_in_turns(
        lambda number: original.run(feeds[number // 2 % len(calls)]),
        lambda number: quantized.run(calls[number // 2 % len(calls)]),
        thread_time if one_thread else perf_counter,
        _TIMING,
        most=_MOST_ROUNDS,
    )


def _as_json(result: ModelComparison, calls: int, layers: list[LayerReport] | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "calls": calls,
        "outputs": {name: _output(output) for name, output in result.outputs.items()},
        "inputs": {name: {"clip_ratio": fmean(ratios)} for name, ratios in result.clip_ratios.items()},
        "latency": {
            "float_median": median(result.float_durations),
            "quantized_median": median(result.quantized_durations),
            "rounds": len(result.quantized_durations),
            "speedup": speedup(result.float_durations, result.quantized_durations),
        },
    }
    if layers is not None:
        shown["layers"] = [
            {
                "name": layer.name,
                "operator": layer.operator,
                "relative_error": layer.relative_error,
                "cosine_similarity": layer.cosine_similarity,
                "jump": layer.jump,
            }
            for layer in layers
        ]
    return shown


def _output(output: OutputComparison) -> dict[str, Any]:
    samples = output.samples
    shown: dict[str, Any] = {"reference": output.reference, "samples": len(samples)}
    if samples:
        shown["relative_error"] = {
            "last": samples[-1].relative_error,
            "mean": fmean(one.relative_error for one in samples),
            "max": max(one.relative_error for one in samples),
        }
        shown["sqnr"] = fmean(one.sqnr for one in samples)
        shown["cosine_similarity"] = fmean(one.cosine_similarity for one in samples)
        shown["max_abs_error"] = max(one.max_abs_error for one in samples)
        shown["disagreement"] = _disagreement(samples)
    if output.equal_shares:
        shown["equal_share"] = fmean(output.equal_shares)
    shown["nonfinite_mismatches"] = output.nonfinite
    shown["no_sample"] = output.reasons
    return shown


def _disagreement(samples: Sequence[Measures]) -> float | None:
    shares = [one.disagreement for one in samples if one.disagreement is not None]
    return fmean(shares) if shares else None


def _show(result: ModelComparison, calls: int, layers: list[LayerReport] | None) -> None:
    rows: list[list[str]] = []
    for name, output in result.outputs.items():
        found = _output(output)
        error = found.get("relative_error", {})
        rows.append(
            [
                name,
                number(error.get("mean")),
                number(error.get("max")),
                number(found.get("sqnr"), 3),
                number(found.get("cosine_similarity"), 6),
                number(found.get("max_abs_error")),
                number(found.get("disagreement")),
            ]
        )
    columns = ["output", "relative error, mean", "largest", "SQNR, dB", "cosine", "max |q-f|", "disagreement"]
    table(f"{calls} calls", columns, rows)
    for name, output in result.outputs.items():
        for reason, count in output.reasons.items():
            sys.stdout.write(f"{name}: {count} calls gave no sample: {reason}\n")
        if output.equal_shares:
            sys.stdout.write(f"{name}: labels, {fmean(output.equal_shares):.4%} are equal\n")
        if output.nonfinite:
            sys.stdout.write(f"{name}: {output.nonfinite} elements are NaN or infinite in one model alone\n")
    for name, ratios in result.clip_ratios.items():
        sys.stdout.write(f"input {name}: {fmean(ratios):.4%} of the values are out of range\n")
    float_time, quantized_time = median(result.float_durations), median(result.quantized_durations)
    ratio = speedup(result.float_durations, result.quantized_durations)
    sys.stdout.write(
        f"median latency: float {float_time * 1e3:.3g} ms, quantized {quantized_time * 1e3:.3g} ms "
        + (
            f"(speedup {ratio:.2f})\n"
            if ratio is not None
            else f"(no speedup is given under {SHORTEST * 1e3:g} ms, where much of it is the call itself)\n"
        )
    )
    if layers:
        sys.stdout.write("\n")
        table(
            "layers in the graph's order",
            ["layer", "operator", "relative error", "jump"],
            [[one.name, one.operator, number(one.relative_error), f"{one.jump:+.4f}"] for one in layers],
        )
        worst = max(layers, key=lambda one: one.jump)
        sys.stdout.write(
            f"most error enters at {worst.name} ({worst.operator}): {worst.jump:+.3g}, "
            f"to {worst.relative_error:.3g}\n"
        )
    elif layers is not None:
        sys.stdout.write("no layer is in both models under one name\n")
