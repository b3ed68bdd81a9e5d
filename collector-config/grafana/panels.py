"""What a panel is, and the PromQL that dashboards share. ``dashboards.py`` makes Grafana's files of them.

Panels use the recording rules of ``../prometheus/rules/recording.yml`` where there is one.
A plain string begins a row.
"""

# ruff: noqa: INP001 - scripts beside what they write, not a package

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

JOBS: Final = '{job=~"$job"}'
MODEL: Final = '{job=~"$job", quantmon_model_name=~"$model"}'


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        description: how to read it.
        unit: Grafana's name of the unit.
        queries: PromQL and legend.
        kind: ``lines`` over time, ``states`` over time, one ``number``, a ``heatmap`` of a histogram, or a ``table`` of
            labels.
        width: of 24 columns.
        limit: where an alert begins.
        exemplars: show the traces behind a histogram.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[tuple[str, str]]
    kind: str = "lines"
    width: int = 8
    limit: float | None = None
    exemplars: bool = False


def rate(metric: str, *by: str, where: str = MODEL) -> str:
    """Per second, summed over all labels but these."""
    return f"sum by ({', '.join(by)}) (rate({metric}{where}[$__rate_interval]))"


def quantile(share: float, histogram: str, *by: str) -> str:
    """Return a quantile over the panel's own interval."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', *by, 'le')})"


def mean(histogram: str) -> str:
    """Return the mean of a histogram's values, by instance."""
    return f"{rate(f'{histogram}_sum', 'instance')} / {rate(f'{histogram}_count', 'instance')}"


DURATION: Final = "quantmon_inference_duration_seconds"
EACH: Final = "{{quantmon_model_name}} · {{job}}"
