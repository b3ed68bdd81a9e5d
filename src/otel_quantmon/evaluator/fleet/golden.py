"""Which hosts disagree on the inputs of a golden baseline, which all have, and what their processors lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from otel_quantmon.detection.placement import Subject, lacking
from otel_quantmon.evaluator.fleet.state import GoldenCase

__all__ = ["Disagreement", "disagreements"]

# Of an output's norm: what rounding in another order makes, as in `fidelity.windows.SAME_RELATIVE_ERROR`.
_SAME = 1e-4


class Disagreement(NamedTuple):
    """A host that disagrees.

    Attributes:
        host: Its name.
        version: Digest of the model that it runs.
        ratio: Its mean relative error over that of the hosts that agree, on the same inputs.
        lacking: Instruction sets that all hosts that agree have, and it has not.
    """

    host: str
    version: str
    ratio: float
    lacking: tuple[str, ...]


def disagreements(cases: Sequence[GoldenCase]) -> list[Disagreement]:
    """Return the hosts that make something else of golden inputs than most, and come out farther from float or nearer.

    Those who agree are the largest group of hosts with the same outputs, bit for bit, for each input; of several that
    are as large, the one nearest to float. Hosts are compared with others that run the same version of the model.

    Args:
        cases: What each host makes of each input.
    """
    by_version: dict[str, list[GoldenCase]] = {}
    for case in cases:
        by_version.setdefault(case.version, []).append(case)
    found = [one for version in sorted(by_version) for one in _of_version(version, by_version[version])]
    return sorted(found, key=lambda one: (-one.ratio, one.host))


def _of_version(version: str, cases: Sequence[GoldenCase]) -> list[Disagreement]:
    by_input: dict[str, list[GoldenCase]] = {}
    for case in cases:
        by_input.setdefault(case.input, []).append(case)
    own: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    subjects: dict[str, Subject] = {}
    agree: set[str] = {case.host for case in cases}
    for group in by_input.values():
        outputs = Counter(case.output for case in group)
        errors = {case.output: case.error for case in group}
        usual = max(outputs, key=lambda output: (outputs[output], -errors[output], output))
        for case in group:
            subjects[case.host] = Subject(case.host, "", version, case.instructions)
            own.setdefault(case.host, []).append(case.error)
            theirs.setdefault(case.host, []).append(errors[usual])
            if case.output != usual and abs(case.error - errors[usual]) > _SAME:
                agree.discard(case.host)
    stayed = {subjects[host] for host in agree}
    return [
        Disagreement(
            host,
            version,
            fmean(own[host]) / max(fmean(theirs[host]), _SAME),
            lacking({subjects[host]}, stayed),
        )
        for host in sorted(set(own) - agree)
    ]
