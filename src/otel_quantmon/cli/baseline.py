"""``quantmon baseline record`` and ``quantmon baseline check``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from otel_quantmon.cli.broken import write_broken
from otel_quantmon.cli.cases import read_cases
from otel_quantmon.cli.output import number, progress, table, write_json
from otel_quantmon.fidelity.baseline import (
    Baseline,
    LatencyStatistics,
    OutputReport,
    ReplayReport,
    check_baseline,
    read_baseline,
    record,
    write_baseline,
)
from otel_quantmon.fidelity.engines import open_engine
from otel_quantmon.fidelity.windows import MIN_BASELINE_SAMPLES
from otel_quantmon.models.formats import read_digest

__all__ = ["check_command", "record_command"]


def record_command(arguments: Namespace) -> int:
    """Record a baseline; see ``quantmon baseline record --help``."""
    if not arguments.output.parent.is_dir():
        # Said before the recording, which may take minutes.
        raise NotADirectoryError(f"{arguments.output}: there is no folder {str(arguments.output.parent)!r}")
    inputs = read_cases(arguments.inputs, open_engine(arguments.model).inputs, arguments.cases)
    with progress("Recording", len(inputs)) as done:
        baseline = record(
            arguments.model,
            inputs,
            reference=arguments.reference,
            mapping=dict(arguments.map),
            name=arguments.name,
            threads=arguments.threads,
            progress=done,
        )
    try:
        write_baseline(arguments.output, baseline)
    except OSError as error:
        # Its own file name is that of the temporary file that the baseline is written to first.
        raise OSError(f"{arguments.output} cannot be written: {error.strerror or error}") from error
    rows = [
        [
            name,
            number(_mean(found.relative_errors)),
            number(max(found.relative_errors, default=None)),
            number(_mean(found.cosine_similarities), 6),
            number(_mean(found.disagreements)),
        ]
        for name, found in baseline.output_statistics.items()
    ]
    columns = ["output", "relative error, mean", "largest", "cosine", "disagreement"]
    table(f"{arguments.output}: {baseline.model}, {len(baseline.cases)} cases", columns, rows)
    if baseline.reference_digest is None:
        sys.stdout.write("No --reference: a replay shows what has changed, not how far from float it is.\n")
    elif len(baseline.cases) < MIN_BASELINE_SAMPLES:
        sys.stdout.write(
            f"With fewer than {MIN_BASELINE_SAMPLES} cases the fixed thresholds hold, not the model's own.\n"
        )
    return 0


def check_command(arguments: Namespace) -> int:
    """Check a model against a baseline; see ``quantmon baseline check --help``."""
    baseline = read_baseline(arguments.baseline)
    engine = open_engine(arguments.model, threads=arguments.threads)
    with progress("Replaying", len(baseline.cases)) as done:
        report = check_baseline(baseline, engine, done)
    digest = read_digest(arguments.model)
    if arguments.json:
        write_json(_as_json(baseline, report, digest))
    else:
        _show(baseline, report, digest)
    return 0 if report.passed else 1


def _as_json(baseline: Baseline, report: ReplayReport, digest: str) -> dict[str, Any]:
    return {
        "model": baseline.model,
        "passed": report.passed,
        "cases": len(baseline.cases),
        "digest": {"recorded": baseline.digest, "now": digest, "same": baseline.digest == digest},
        "environment": {
            name: {"recorded": then, "now": now} for name, (then, now) in report.environment.items()
        },
        "latency": {"recorded": _latency(baseline.latency), "now": _latency(report.latency)},
        "outputs": {name: _output(output) for name, output in report.outputs.items()},
    }


def _output(output: OutputReport) -> dict[str, Any]:
    then = output.recorded
    return {
        "relative_error": {"now": _spread(output.relative_errors), "recorded": _spread(then.relative_errors)},
        "cosine_similarity": {
            "now": _mean(output.cosine_similarities),
            "recorded": _mean(then.cosine_similarities),
        },
        "disagreement": {"now": _mean(output.disagreements), "recorded": _mean(then.disagreements)},
        "difference_from_recorded": _spread(output.differences),
        "changed": output.changed,
        "thresholds": {
            "relative_error": output.thresholds.relative_error,
            "cosine_similarity": output.thresholds.cosine_similarity,
            "from_baseline": output.thresholds.from_baseline,
        },
        "no_sample": output.reasons,
        "broken": output.broken,
        "crossed": output.crossed,
    }


def _show(baseline: Baseline, report: ReplayReport, digest: str) -> None:
    rows: list[list[str]] = []
    for name, output in report.outputs.items():
        rows.append(
            [
                name,
                number(_mean(output.relative_errors)),
                number(_mean(output.recorded.relative_errors)),
                number(max(output.relative_errors, default=None)),
                number(output.thresholds.relative_error),
                number(max(output.differences, default=None)),
                ", ".join(output.crossed) or "ok",
            ]
        )
    columns = ["output", "relative error", "recorded", "largest", "threshold", "from recorded", "result"]
    table(f"{baseline.model}: {len(baseline.cases)} cases", columns, rows)
    for name, output in report.outputs.items():
        if output.changed:
            sys.stdout.write(
                f"{name}: {output.changed} cases differ from what was recorded as zeros or labels\n"
            )
        write_broken(name, output)
        for reason, count in output.reasons.items():
            sys.stdout.write(f"{name}: {count} cases gave no sample: {reason}\n")
    if baseline.latency and report.latency:
        ratio = report.latency.mean / baseline.latency.mean
        sys.stdout.write(
            f"latency: mean {report.latency.mean * 1e3:.3g} ms, recorded {baseline.latency.mean * 1e3:.3g} ms "
            f"({ratio:.2f} times)\n"
        )
    if digest != baseline.digest:
        sys.stdout.write(f"another model file: {digest}, recorded {baseline.digest}\n")
    for name, (then, now) in report.environment.items():
        sys.stdout.write(f"another environment: {name} is {_text(now)}, recorded {_text(then)}\n")
    sys.stdout.write("passed\n" if report.passed else "failed: a threshold is crossed\n")


def _latency(found: LatencyStatistics | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"count": found.count, "mean": found.mean, "p50": found.p50, "p95": found.p95, "p99": found.p99}


def _mean(samples: Sequence[float]) -> float | None:
    return fmean(samples) if samples else None


def _spread(samples: Sequence[float]) -> dict[str, float] | None:
    return {"mean": fmean(samples), "max": max(samples)} if samples else None


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  of strings
