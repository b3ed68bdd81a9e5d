"""``quantmon certify``: may this model serve on this host? For a pipeline, and for the start of a pod."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from otel_quantmon.cli.broken import write_broken
from otel_quantmon.cli.output import number, progress, table, write_json
from otel_quantmon.fidelity.baseline import ReplayReport, check_baseline, read_baseline
from otel_quantmon.fidelity.engines import open_engine
from otel_quantmon.fidelity.windows import SAME_RELATIVE_ERROR
from otel_quantmon.models.formats import read_digest
from otel_quantmon.models.graph_health import may_saturate
from otel_quantmon.process.host import cpu_isa

__all__ = ["certify_command"]


def certify_command(arguments: Namespace) -> int:
    """Certify a model on this host; see ``quantmon certify --help``."""
    baseline = read_baseline(arguments.baseline)
    engine = open_engine(arguments.model, threads=arguments.threads)
    with progress("Replaying", len(baseline.cases)) as done:
        report = check_baseline(baseline, engine, done)
    here = cpu_isa()
    lacking = _lacking(report, here)
    other_file = read_digest(arguments.model) != baseline.digest
    failed = {name: output.crossed for name, output in report.outputs.items() if output.crossed}
    differing = [
        name
        for name, output in report.outputs.items()
        if output.changed or output.broken or max(output.differences, default=0.0) > SAME_RELATIVE_ERROR
    ]
    saturates = may_saturate(engine.facts, here)
    advice = _advice(report.passed, differing, lacking, saturates=saturates, other_file=other_file)
    if arguments.json:
        write_json(
            {
                "model": baseline.model,
                "certified": report.passed,
                "failed": failed,
                "computes_differently": differing,
                "same_file": not other_file,
                "instructions": here.split("+")[1:],
                "lacking_instructions": lacking,
                "may_saturate": saturates,
                "advice": advice,
            }
        )
    else:
        _show(baseline.model, report, here, lacking, advice)
    return 0 if report.passed else 1


def _lacking(report: ReplayReport, here: str) -> list[str]:
    """Instruction sets of the recording's host that this one does not have."""
    if "cpu_features" not in report.environment:
        return []
    recorded: Any = report.environment["cpu_features"][0]
    # The first is the machine.
    return [feature for feature in tuple(recorded)[1:] if feature not in here.split("+")]


def _advice(
    passed: bool, differing: Sequence[str], lacking: Sequence[str], *, saturates: bool, other_file: bool
) -> list[str]:
    advice: list[str] = []
    if saturates and (not passed or differing):
        advice.append(
            "products of uint8 activations and int8 weights can saturate here: set the session's configuration "
            "session.x64quantprecision to 1 (slower, exact), or quantize with reduce_range=True, or to int8 activations"
        )
    if lacking and (not passed or differing):
        advice.append(
            f"the host of the recording had {', '.join(lacking)}, this one has not: run on a host that has it, or "
            "record a baseline on a host of this kind and compare the two"
        )
    if other_file:
        advice.append(
            "this is another model file than the recorded one: record a baseline of it once it is accepted"
        )
    if not passed and not advice:
        advice.append(
            "the same file gives other results with the same instructions: compare runtime versions and providers "
            "(quantmon baseline check), then the layers (quantmon compare --layers)"
        )
    return advice


def _show(model: str, report: ReplayReport, here: str, lacking: Sequence[str], advice: Sequence[str]) -> None:
    rows = [
        [
            name,
            number(max(output.relative_errors, default=None)),
            number(output.thresholds.relative_error),
            number(max(output.differences, default=None)),
            ", ".join(output.crossed) or "ok",
        ]
        for name, output in report.outputs.items()
    ]
    columns = ["output", "relative error, largest", "threshold", "from recorded", "result"]
    table(f"{model} on {here}", columns, rows)
    for name, output in report.outputs.items():
        write_broken(name, output)
    for feature in lacking:
        sys.stdout.write(f"lacking: {feature}\n")
    for line in advice:
        sys.stdout.write(f"advice: {line}\n")
    sys.stdout.write("certified\n" if report.passed else "not certified: a threshold is crossed\n")
