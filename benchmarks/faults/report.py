"""Tables and the picture for docs/detection.md, from what the runs have left."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.floors import floors, peers, rate_floor, replay
from benchmarks.faults.services import SPECS

Result = dict[str, Any]

# What of a fault can be known at once: Lorden's floor is one call.
_FACTS = {"another file", "badly calibrated", "lost provider"}
_RATES = {"errors 1%": 0.01, "timeouts 2%": 0.02}
_BY_REFERENCE = {"relative_error", "disagreement", "cosine"}


def found(result: Result) -> bool:
    """Whether anything was told after the change."""
    return bool(result.get("told"))


def floor(result: Result) -> tuple[float, str] | None:
    """The least of the floors in calls, and the stream that it is of; None where none can be computed."""
    if result["fault"] in _FACTS:
        return 1.0, "fact"
    if result["fault"].startswith("leak"):
        return None
    if result["fault"] in _RATES:
        return rate_floor(min(result["healthy_calls"], 3000), _RATES[result["fault"]]), "events"
    known = floors(result)
    if not known:
        return math.inf, ""
    stream = min(known, key=lambda name: known[name])
    return known[stream], stream


def unseen(result: Result) -> str:
    """Why a pair that was not found could not be, in as many calls; empty where it could."""
    if found(result):
        return ""
    least = floor(result)
    if least is None or least[0] <= result["calls"]:
        return ""
    if math.isinf(least[0]):
        return "nothing that is looked at has changed"
    return f"the floor is {least[0]:,.0f} calls ({least[1]})"


def rows(results: list[Result]) -> list[tuple[str, str, Result | None, str]]:
    """For each pair its model, fault, result, and why it cannot be or cannot be seen."""
    by = {(r["model"], r["fault"]): r for r in results if "failed" not in r and r["fault"] in FAULTS}
    found_rows: list[tuple[str, str, Result | None, str]] = []
    for fault in FAULTS.values():
        for spec in SPECS.values():
            result = by.get((spec.name, fault.name))
            never = fault.never(spec)
            if never or result is not None:
                found_rows.append((spec.name, fault.name, result, never or unseen(result or {})))
    return found_rows


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body), ""])


def pairs_table(results: list[Result]) -> str:
    """Each pair: what was detected first, how soon, and the floor."""
    body: list[list[str]] = []
    for model, fault, result, why in rows(results):
        if result is None or (why and not found(result)):
            body.append([fault, model, f"– {why}", "", "", "", ""])
            continue
        least = floor(result)
        shown = f"{least[0]:,.0f}" if least and math.isfinite(least[0]) else "–"
        if not found(result):
            body.append([fault, model, f"**missed** in {result['calls']:,}", "", "", shown, ""])
            continue
        first = result["told"][0]
        kind = first["type"] if first["type"] in FAULTS[fault].types else f"{first['type']} (other name)"
        evaluations = str(first["evaluations"]) if first["type"] in _BY_REFERENCE else ""
        times = f"{first['calls'] / least[0]:.1f}" if least and math.isfinite(least[0]) else "–"
        body.append([fault, model, kind, f"{first['calls']:,}", evaluations, shown, times])
    return _table(["fault", "model", "detected first as", "calls", "evaluations", "floor", "times"], body)


def summary(results: list[Result]) -> str:
    """The figures against what is to be reached."""
    pairs = [(m, f, r) for m, f, r, why in rows(results) if r is not None and not why]
    caught = [(m, f, r) for m, f, r in pairs if found(r)]
    if not pairs:
        return ""
    leaks = [r["told"][0]["calls"] for _, f, r in caught if f.startswith("leak")]
    rest = [(f, r) for _, f, r in caught if not f.startswith("leak")]
    by_reference = [r["told"][0]["evaluations"] for _, r in rest if r["told"][0]["type"] in _BY_REFERENCE]
    calls = [r["told"][0]["calls"] for _, r in rest if r["told"][0]["type"] not in _BY_REFERENCE]
    times = [
        r["told"][0]["calls"] / least[0]
        for _, r in rest
        if (least := floor(r)) is not None and math.isfinite(least[0])
    ]
    right = sum(r["told"][0]["type"] in FAULTS[f].types for _, f, r in caught)
    before = sum(sum(r["before"].values()) for _, _, r, _ in rows(results) if r is not None)
    healthy = sum(r["healthy_calls"] for _, _, r, _ in rows(results) if r is not None)
    middle: Callable[[list[Any]], str] = lambda v: f"{statistics.median(v):,.1f}" if v else "–"  # noqa: E731
    body = [
        ["pairs whose floor permits it", f"{len(pairs)}", ""],
        ["found", f"{len(caught)} ({len(caught) / len(pairs):.0%})", "95%"],
        ["right type first", f"{right} of {len(caught)} ({right / max(1, len(caught)):.0%})", "80%"],
        ["median delay in calls", middle(calls), "200"],
        ["median delay by a reference, in evaluations", middle(by_reference), "64"],
        ["median delay of leaks, in calls", middle(leaks), "2,000"],
        ["median multiple of the floor", middle(times), "2"],
        ["alarms before the fault", f"{before} in {healthy:,} calls", ""],
    ]
    return _table(["", "measured", "to reach"], body)


def peers_table(results: list[Result]) -> str:
    """What other rules make of the same numbers."""
    usable = [r for _, f, r, why in rows(results) if r is not None and not why and r["streams"]]
    usable = [r for r in usable if r["fault"] not in _FACTS and not r["fault"].startswith("leak")]
    body: list[list[str]] = []
    ours = [r["told"][0]["calls"] for r in usable if found(r)]
    if usable:
        alarms, healthy = (
            sum(sum(r["before"].values()) for r in usable),
            sum(r["healthy_calls"] for r in usable),
        )
        body.append(
            [
                "this project (sampled streams)",
                f"{len(ours)} of {len(usable)}",
                f"{statistics.median(ours):.0f}" if ours else "–",
                f"{alarms} in {healthy:,}",
                f"{alarms / healthy * 1e6:,.1f}",
            ]
        )
    for name, peer in peers().items():
        most = 300 if "KSWIN" in name else 1000
        replayed = [replay(r, peer, most) for r in usable]
        alarms, count = sum(a for a, _, _ in replayed), sum(c for _, c, _ in replayed)
        delays = [first for _, _, first in replayed if first is not None]
        body.append(
            [
                name,
                f"{len(delays)} of {len(usable)}",
                f"{statistics.median(delays):.0f}" if delays else "–",
                f"{alarms} in {count:,} numbers",
                f"{alarms / max(1, count) * 1e6:,.1f}",
            ]
        )
    return _table(["rule", "rang after the change", "median delay", "rang before it", "in 10⁶"], body)


def healthy_table(runs: list[Result]) -> str:
    """False alarms in calls without a fault."""
    body: list[list[str]] = []
    for run in runs:
        if run.get("failed"):
            body.append(["failed", run["failed"][-200:].replace("\n", " "), ""])
            continue
        for phase, part in run["phases"].items():
            told = ", ".join(f"{kind} {n}" for kind, n in part["anomalies"].items())
            body.append([phase, f"{part['calls']:,}", told or "0"])
        told = ", ".join(f"{kind} {n}" for kind, n in run["anomalies"].items())
        body.append([f"**all**, {run['seconds']:.0f} s", f"{run['calls']:,}", told or "0"])
    return _table(["without a fault", "calls", "alarms"], body) if body else ""


def draw(results: list[Result], path: Path) -> None:
    """All pairs at one look: how many calls until it was told, or why not."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.pyplot import get_cmap

    models, names = list(SPECS), list(FAULTS)
    by = {(m, f): (r, why) for m, f, r, why in rows(results)}
    figure = Figure(figsize=(9, 8.5), layout="constrained")
    axes = figure.subplots()
    shades = get_cmap("viridis_r")
    for y, fault in enumerate(names):
        for x, model in enumerate(models):
            if (model, fault) not in by:
                continue
            result, why = by[model, fault]
            if result is not None and found(result):
                first = result["told"][0]
                level = min(1.0, math.log10(max(1, first["calls"])) / 4)
                colour, ink = shades(level * 0.8), "white" if level > 0.55 else "black"
                mark = "" if first["type"] in FAULTS[fault].types else " *"
                text = f"{first['calls']:,}{mark}"
            elif why:
                colour, ink, text = "#e4e4e4", "#777777", "–"
            else:
                colour, ink, text = "#c0392b", "white", "missed"
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour))
            axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=9)
    axes.set(xlim=(-0.5, len(models) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(range(len(models)), models)
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(
        "calls from the fault to the alarm; * another type was named first; "
        "grey: it cannot be, or cannot be seen; white: not run"
    )
    figure.savefig(path, dpi=110)
