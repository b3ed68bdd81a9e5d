"""``quantmon diff``: two runs side by side, and whether the second is worse."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_quantmon.cli.output import number, table, write_json
from otel_quantmon.desk.overview import Overview, overview
from otel_quantmon.desk.schema import open_reader
from otel_quantmon.desk.significance import compare
from otel_quantmon.desk.text import bytes_text, seconds_text
from otel_quantmon.errors import CommandError

__all__ = ["diff_command"]

# A distribution is another one where chance would make it look so once in a thousand comparisons.
_LEAST_P = 0.001
# Sizes and shares below these are the same for anybody: a page, and one call in a thousand.
_LEAST_MEMORY = 1 << 20
_LEAST_SHARE = 0.001


@dataclass(frozen=True, slots=True)
class _Line:
    """One thing that is compared. ``worse`` is None where that is not known."""

    name: str
    before: float | None
    after: float | None
    worse: bool | None
    unit: str = ""

    @property
    def ratio(self) -> float | None:
        return self.after / self.before if self.before and self.after is not None else None


@dataclass(frozen=True, slots=True)
class _Pair:
    """A model in both runs."""

    name: str
    lines: list[_Line]
    distance: float | None
    p: float | None

    @property
    def worse(self) -> list[str]:
        return [line.name for line in self.lines if line.worse]


def diff_command(arguments: Namespace) -> int:
    """Compare two runs; see ``quantmon diff --help``."""
    before, after = _models(arguments.before), _models(arguments.after)
    renamed: Mapping[str, str] = dict(arguments.map)
    unknown = renamed.keys() - before.keys()
    if unknown:
        raise CommandError(f"{arguments.before} has no model {min(unknown)!r}: it has {_names(before)}")
    missing = set(renamed.values()) - after.keys()
    if missing:
        raise CommandError(f"{arguments.after} has no model {min(missing)!r}: it has {_names(after)}")
    pairs = [
        _compare(name, found, after[renamed.get(name, name)], arguments.worse_by)
        for name, found in before.items()
        if renamed.get(name, name) in after
    ]
    if not pairs:
        raise CommandError(
            f"no model is in both: {arguments.before} has {_names(before)}, {arguments.after} has {_names(after)}; "
            "if one was renamed, say so by --map NAME=OTHER"
        )
    compared = {renamed.get(pair.name, pair.name) for pair in pairs}
    alone = sorted(before.keys() - {pair.name for pair in pairs}), sorted(after.keys() - compared)
    if arguments.json:
        write_json(_as_json(pairs, alone))
    else:
        _show(pairs, alone, arguments)
    return 1 if any(pair.worse for pair in pairs) else 0


def _models(path: Path) -> dict[str, Overview]:
    """The models of a run by name; of several with one name, the one with most calls."""
    database = open_reader(path)
    try:
        found = sorted(overview(database), key=lambda model: model.calls)
    finally:
        database.close()
    return {model.model.name: model for model in found}


def _names(found: Mapping[str, Overview]) -> str:
    return ", ".join(map(repr, sorted(found))) or "none"


def _compare(name: str, before: Overview, after: Overview, worse_by: float) -> _Pair:
    test = compare(before.durations, after.durations)
    another = test is not None and test.p < _LEAST_P

    def grown(value: Callable[[Overview], float | None], least: float = 0.0) -> bool | None:
        then, now = value(before), value(after)
        return None if then is None or now is None else now > then * (1 + worse_by) and now - then > least

    def duration(of: str, value: Callable[[Overview], float | None]) -> _Line:
        longer = grown(value)
        return _Line(of, value(before), value(after), None if test is None else bool(longer) and another, "s")

    lines = [
        _Line("calls", before.calls, after.calls, None),
        duration("mean duration", lambda run: run.durations.mean),
        duration("p50", lambda run: run.p50),
        duration("p95", lambda run: run.p95),
        duration("p99", lambda run: run.p99),
        _line("failed", _failed, grown(_failed, _LEAST_SHARE), before, after),
        _line("relative error", _relative_error, grown(_relative_error), before, after),
        _line("clipped", _clipped, grown(_clipped, _LEAST_SHARE), before, after),
        _line("memory", _memory, grown(_memory, _LEAST_MEMORY), before, after, "By"),
        _line("anomalies", _anomalies, _anomalies(after) > _anomalies(before), before, after),
    ]
    return _Pair(name, lines, None if test is None else test.distance, None if test is None else test.p)


def _line(
    name: str,
    value: Callable[[Overview], float | None],
    worse: bool | None,
    before: Overview,
    after: Overview,
    unit: str = "",
) -> _Line:
    return _Line(name, value(before), value(after), worse, unit)


def _failed(run: Overview) -> float | None:
    return sum(run.errors.values()) / run.calls if run.calls else None


def _relative_error(run: Overview) -> float | None:
    return run.relative_error


def _clipped(run: Overview) -> float | None:
    return run.clipping


def _memory(run: Overview) -> float | None:
    return run.memory


def _anomalies(run: Overview) -> float:
    return sum(run.anomalies.values())


def _as_json(pairs: list[_Pair], alone: tuple[list[str], list[str]]) -> dict[str, Any]:
    return {
        "worse": any(pair.worse for pair in pairs),
        "models": {
            pair.name: {
                "worse": pair.worse,
                "duration_test": {"distance": pair.distance, "p": pair.p},
                **{
                    line.name.replace(" ", "_"): {
                        "before": line.before,
                        "after": line.after,
                        "ratio": line.ratio,
                        "worse": line.worse,
                    }
                    for line in pair.lines
                },
            }
            for pair in pairs
        },
        "only_before": alone[0],
        "only_after": alone[1],
    }


def _show(pairs: list[_Pair], alone: tuple[list[str], list[str]], arguments: Namespace) -> None:
    for pair in pairs:
        rows = [
            [
                line.name,
                _text(line.before, line.unit),
                _text(line.after, line.unit),
                number(line.ratio, 3),
                _verdict(line),
            ]
            for line in pair.lines
            if line.before is not None or line.after is not None
        ]
        table(pair.name, ["", arguments.before.name, arguments.after.name, "ratio", ""], rows)
        if pair.p is None:
            sys.stdout.write(
                "The durations cannot be tested: a run has none, or its buckets lie across those of the other.\n\n"
            )
        else:
            # A run's calls are not quite independent, so a p far from small says more than a small one.
            said = "differ by more than chance" if pair.p < _LEAST_P else "do not differ by more than chance"
            sys.stdout.write(
                f"The durations {said}: Kolmogorov-Smirnov, D = {pair.distance:.3g}, p = {pair.p:.2g}.\n\n"
            )
    for names, path in zip(alone, (arguments.before, arguments.after), strict=True):
        if names:
            sys.stdout.write(f"only in {path}: {', '.join(names)}\n")
    worse = [f"{pair.name}: {', '.join(pair.worse)}" for pair in pairs if pair.worse]
    untested = ", ".join(pair.name for pair in pairs if pair.p is None)
    if worse:
        sys.stdout.write(f"worse: {'; '.join(worse)}\n")
    elif untested:
        sys.stdout.write(f"nothing that was tested is worse; not tested: the durations of {untested}\n")
    else:
        sys.stdout.write("nothing is worse\n")


def _verdict(line: _Line) -> str:
    return "worse" if line.worse else ""


def _text(value: float | None, unit: str) -> str:
    if unit == "s":
        return seconds_text(value)
    if unit == "By":
        return bytes_text(None if value is None else int(value))
    return number(value, 4)
