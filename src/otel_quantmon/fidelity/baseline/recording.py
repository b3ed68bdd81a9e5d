"""Make a baseline: run a model and its float reference on given inputs, and keep what came of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from time import perf_counter
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from otel_quantmon.fidelity.baseline.file import (
    Baseline,
    BaselineError,
    Case,
    Environment,
    InputStatistics,
    LatencyStatistics,
    OutputStatistics,
)
from otel_quantmon.fidelity.engines import Engine, feed, open_engine
from otel_quantmon.fidelity.numerics.comparison import compare, match_outputs
from otel_quantmon.fidelity.numerics.dequantization import NotComparableError, as_real
from otel_quantmon.fidelity.numerics.tensor_checks import TensorCheck, check_tensor
from otel_quantmon.models.formats import read_digest
from otel_quantmon.models.formats.facts import TensorFacts
from otel_quantmon.process.host import cpu_isa
from otel_quantmon.telemetry.context import suppress_instrumentation

__all__ = ["environment_of", "latency_of", "model_name", "record", "split_cases", "summarized", "timed"]

_logger = logging.getLogger("otel_quantmon")

# Calls that latency is taken from, and seconds after which fewer have to do.
_TIMED_CALLS = 100
_TIMED_SECONDS = 5.0

_NO_NAMES: Mapping[str, str] = MappingProxyType({})


# Nothing here is a call of the application, whose process may be the one that records.
@suppress_instrumentation()
def record(
    model: str | bytes,
    inputs: Sequence[Mapping[str, NDArray[Any]]],
    *,
    reference: str | bytes | None = None,
    mapping: Mapping[str, str] = _NO_NAMES,
    name: str | None = None,
    threads: int = 1,
    progress: Callable[[int], object] = lambda _: None,
) -> Baseline:
    """Run a model on inputs, from its initial state and in their order, and describe what it gave.

    Latency is that of later passes over the same inputs: the first allocates, and would read as slow.

    Args:
        model: Path or buffer of the quantized model.
        inputs: Inputs of each call, by name; see `otel_quantmon.fidelity.baseline.load_inputs`.
        reference: Path of the float model, if there is one.
        mapping: Names of inputs and outputs in the model to those in the reference, where they differ.
        name: Name of the model; by default the one that it has in telemetry.
        threads: Threads that one run of the model may use, as in the application.
        progress: A function that is called after each case with the number done so far.

    Raises:
        BaselineError: There is no input, or an output that could be stored.
        EngineError: A model cannot be loaded, or refuses the inputs.
    """
    engine = open_engine(model, threads=threads)
    float_engine = None if reference is None else open_engine(reference, threads=threads)
    facts = {tensor.name: tensor for tensor in (*engine.inputs, *engine.outputs)}
    cases: list[Case] = []
    for number, given in enumerate(inputs, start=1):
        outputs = storable(engine.run(given))
        references: dict[str, NDArray[Any]] = {}
        if float_engine is not None:
            results = float_engine.run(feed(given, facts, float_engine.inputs, mapping))
            references = named_as_outputs(outputs, results, float_engine, mapping)
        cases.append(Case(inputs=dict(given), outputs=outputs, references=references))
        progress(number)
    return summarized(
        cases,
        facts,
        model=name or model_name(model, engine),
        digest=read_digest(model),
        reference_digest=None if reference is None else read_digest(reference),
        environment=environment_of(engine),
        latency=latency_of(timed(engine, inputs)),
    )


def summarized(
    cases: Sequence[Case],
    facts: Mapping[str, TensorFacts],
    *,
    model: str,
    digest: str,
    environment: Environment,
    reference_digest: str | None = None,
    latency: LatencyStatistics | None = None,
) -> Baseline:
    """Return a baseline of these calls, with its statistics.

    Args:
        cases: Recorded cases, in order.
        facts: Facts of the model's inputs and outputs, by name.
        model: Name of the model in telemetry.
        digest: Digest of the model's file.
        environment: Environment that the cases were recorded in.
        reference_digest: Digest of the float model's file, None without one.
        latency: Latency of the model, None if it was not measured.

    Raises:
        BaselineError: There is no case, or one without an output.
    """
    if not cases:
        raise BaselineError("a baseline needs at least one call: give inputs")
    if not all(case.outputs for case in cases):
        raise BaselineError("no output of the model is an array of numbers, so there is nothing to store")
    return Baseline(
        model=model,
        digest=digest,
        environment=environment,
        cases=tuple(cases),
        reference_digest=reference_digest,
        output_statistics=_output_statistics(cases, facts),
        input_statistics=_input_statistics(cases, facts),
        latency=latency,
    )


def split_cases(
    inputs: list[dict[str, NDArray[Any]]], wanted: Sequence[TensorFacts], count: int | None = None
) -> list[dict[str, NDArray[Any]]]:
    """Make calls of what a file of inputs holds.

    One array per input is one call, unless each has one dimension more than the model's input: then each index
    of the first is a call. With ``count``, a single call of at least as many rows is divided into that many,
    and of several calls the first are taken.

    Raises:
        BaselineError: There are fewer calls or rows than ``count``.
    """
    if len(inputs) == 1:
        (single,) = inputs
        ranks = {tensor.name: None if tensor.shape is None else len(tensor.shape) for tensor in wanted}
        rows = {len(array) if array.ndim else 0 for array in single.values()}
        if len(rows) == 1 and all(ranks.get(name) == array.ndim - 1 for name, array in single.items()):
            inputs = [{name: array[row] for name, array in single.items()} for row in range(min(rows))]
        elif count is not None and len(rows) == 1 and min(rows) >= count:
            parts = {name: np.array_split(array, count) for name, array in single.items()}
            return [{name: part[number] for name, part in parts.items()} for number in range(count)]
    if count is not None and len(inputs) < count:
        raise BaselineError(f"the file holds {len(inputs)} calls, not {count}: ask for fewer")
    return inputs[:count]


def model_name(source: str | bytes, engine: Engine) -> str:
    """Return what the model is called in telemetry, if its settings do not name it."""
    from otel_quantmon.models.description import LoadedModel, source_of
    from otel_quantmon.models.identity import Model
    from otel_quantmon.settings import Settings

    runtime, version = engine.runtime
    loaded = LoadedModel(
        runtime="onnxruntime" if runtime == "onnxruntime" else "tflite",
        runtime_version=version,
        provider=engine.providers[0],
        source=source_of(source),
    )
    return Model(loaded, Settings()).name


def environment_of(engine: Engine) -> Environment:
    """Where a model runs now."""
    runtime, version = engine.runtime
    return Environment(runtime, version, engine.providers, tuple(cpu_isa().split("+")))


def latency_of(durations: Sequence[float]) -> LatencyStatistics | None:
    """Statistics of durations in seconds; None without any.

    Quantiles are the least duration that covers the share (Hyndman and Fan 1996, type 1).
    """
    if not durations:
        return None
    ordered = sorted(durations)
    p50, p95, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.50, 0.95, 0.99))
    return LatencyStatistics(len(ordered), fmean(ordered), p50, p95, p99)


def storable(outputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Those of the outputs that are arrays of numbers; sequences, maps and strings cannot be stored."""
    arrays = {
        name: cast("NDArray[Any]", value) for name, value in outputs.items() if isinstance(value, np.ndarray)
    }
    return {name: array for name, array in arrays.items() if array.dtype.kind not in "OUSc"}


def named_as_outputs(
    outputs: Mapping[str, Any], results: Mapping[str, Any], engine: Engine, mapping: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    """Return the reference's results as real numbers, under the names of the model's outputs that they belong to."""
    facts = {tensor.name: tensor for tensor in engine.outputs}
    named: dict[str, NDArray[Any]] = {}
    for match in match_outputs(outputs, storable(results), mapping):
        if match.reference is None:
            _logger.warning("output %r has no reference: %s", match.output, match.detail)
            continue
        value = results[match.reference]
        try:
            named[match.output] = as_real(value, facts.get(match.reference))
        except NotComparableError:
            # Labels, which are compared as they are.
            named[match.output] = value
    return named


def timed(engine: Engine, inputs: Sequence[Mapping[str, NDArray[Any]]]) -> list[float]:
    """Seconds of up to 100 calls, over at most 5 s and one pass, each pass from the initial state."""
    durations: list[float] = []
    while len(durations) < _TIMED_CALLS and sum(durations) < _TIMED_SECONDS:
        engine.reset()
        for given in inputs:
            began = perf_counter()
            engine.run(given)
            durations.append(perf_counter() - began)
            if len(durations) >= _TIMED_CALLS:
                break
    return durations


def _output_statistics(
    cases: Iterable[Case], facts: Mapping[str, TensorFacts]
) -> dict[str, OutputStatistics]:
    found: dict[str, dict[str, list[float]]] = {}
    extremes: dict[str, list[TensorCheck]] = {}
    for case in cases:
        for name, array in case.outputs.items():
            check = check_tensor(array, facts.get(name))
            extremes.setdefault(name, []).extend([] if check is None else [check])
        compared = (
            compare(case.outputs, case.references, inputs=case.inputs, facts=facts) if case.references else []
        )
        for one in compared:
            if one.reason is not None or one.measures is None:
                continue
            samples = found.setdefault(one.output, {"norms": [], "errors": [], "cosines": [], "flips": []})
            samples["norms"].append(one.measures.reference_norm)
            samples["errors"].append(one.measures.relative_error)
            samples["cosines"].append(one.measures.cosine_similarity)
            if one.measures.disagreement is not None:
                samples["flips"].append(one.measures.disagreement)
    none: dict[str, list[float]] = {}
    return {
        name: OutputStatistics(
            reference_norms=tuple(found.get(name, none).get("norms", ())),
            relative_errors=tuple(found.get(name, none).get("errors", ())),
            cosine_similarities=tuple(found.get(name, none).get("cosines", ())),
            disagreements=tuple(found.get(name, none).get("flips", ())),
            minimum=_smallest(checks),
            maximum=_largest(checks),
        )
        for name, checks in extremes.items()
    }


def _input_statistics(cases: Iterable[Case], facts: Mapping[str, TensorFacts]) -> dict[str, InputStatistics]:
    checks: dict[str, list[TensorCheck]] = {}
    for case in cases:
        for name, array in case.inputs.items():
            check = check_tensor(array, facts.get(name))
            checks.setdefault(name, []).extend([] if check is None else [check])
    return {
        name: InputStatistics(
            clip_ratios=tuple(check.clip_ratio for check in found if check.clip_ratio is not None),
            range_uses=tuple(check.range_use for check in found if check.range_use is not None),
            minimum=_smallest(found),
            maximum=_largest(found),
        )
        for name, found in checks.items()
    }


def _smallest(checks: Sequence[TensorCheck]) -> float | None:
    return min((check.minimum for check in checks if check.minimum is not None), default=None)


def _largest(checks: Sequence[TensorCheck]) -> float | None:
    return max((check.maximum for check in checks if check.maximum is not None), default=None)
