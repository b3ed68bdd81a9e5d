"""Figures of a noisy machine, and what says under which conditions they were taken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest value and quartiles of ``values``, in their unit."""
    if len(values) == 1:
        return {"median": values[0], "min": values[0], "q1": values[0], "q3": values[0]}
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "min": min(values), "q1": q1, "q3": q3}


def conditions(distributions: Iterable[str]) -> dict[str, Any]:
    """The machine, its load now, the Python and the versions of those of ``distributions`` that are installed."""
    installed = {
        found.name.lower().replace("_", "-"): found.version for found in importlib.metadata.distributions()
    }
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "versions": {name: installed[name] for name in distributions if name in installed},
    }


def verdict(*, reached: bool) -> str:
    """A word for the table."""
    return "pass" if reached else "FAIL"
