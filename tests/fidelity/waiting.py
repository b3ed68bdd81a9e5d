"""Waiting for what happens in the background, by the events that there are, and what it led to."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
from exported import Exported

from otel_quantmon.fidelity.assessment import Assessment
from otel_quantmon.pipeline import Pipeline, pipelines
from otel_quantmon.process.worker import reference_worker, worker

SECONDS = 120
"""After which something counts as not happening, on a busy machine too."""

EVALUATIONS = "quantmon.reference.evaluations"


def settle() -> None:
    """Wait until every sample that was taken has been looked at and compared."""
    assert worker.flush(SECONDS)
    assert reference_worker.flush(SECONDS)


def until(reached: Callable[[], bool], act: Callable[[], object]) -> None:
    """Repeat ``act``, and settle, until ``reached``."""
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < deadline
        act()
        settle()


def until_piping(function: str) -> None:
    """Wait until the thread of the references is in ``_read`` or ``_write``: nothing but its frame tells that."""
    deadline = time.monotonic() + SECONDS
    while True:
        (thread,) = (t for t in threading.enumerate() if t.name == "otel-quantmon-reference")
        frame = sys._current_frames()[thread.ident or 0]
        if frame.f_code.co_name == function and frame.f_code.co_filename.endswith("messages.py"):
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def outcomes(exported: Exported) -> dict[str, int]:
    """Evaluations of all models so far, by their outcome."""
    return _total(exported, EVALUATIONS, "quantmon.reference.outcome")


def evaluate(exported: Exported, run: Callable[[], object], count: int = 1) -> None:
    """Call ``run`` until ``count`` evaluations have an outcome."""
    until(lambda: sum(outcomes(exported).values()) >= count, run)


def pipeline_of(exported: Exported) -> Pipeline:
    """What reports to ``exported``."""
    return next(one for one in pipelines() if one.providers.meter_provider is exported.meter_provider)


def fidelity_of(exported: Exported) -> Assessment:
    """That of the only model."""
    (series,) = pipeline_of(exported).live_series()
    assert series.assessment is not None
    return series.assessment


def reference_process(exported: Exported) -> psutil.Process:
    """The references' process."""
    process = pipeline_of(exported).references.process._process
    assert process is not None
    return psutil.Process(process.pid)


def by_output(exported: Exported, metric: str, statistic: str | None = None) -> dict[str, Any]:
    """The values of a gauge by output."""
    wanted = {} if statistic is None else {"statistic": statistic}
    return {p.attributes["quantmon.output.name"]: p.value for p in exported.points(metric, **wanted)}


def judge(exported: Exported) -> None:
    """Have all judged that was observed so far, and told what was found."""
    settle()
    worker.submit(lambda: pipeline_of(exported).judging.run(at_once=True))
    assert worker.flush(SECONDS)


def anomalies(exported: Exported) -> dict[str, int]:
    """Anomalies of all models so far, by their type, of all that was observed."""
    judge(exported)
    return _total(exported, "quantmon.anomalies", "quantmon.anomaly.type")


def _total(exported: Exported, metric: str, by: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for point in exported.points(metric):
        total[point.attributes[by]] += point.value
    return dict(total)


def warnings(caplog: Any) -> list[str]:
    """What the instrumentation warned of, without what the graph itself gave rise to."""
    messages = [record.getMessage() for record in caplog.records if record.name == "otel_quantmon"]
    return [message for message in messages if "can saturate on this CPU" not in message]
