"""The dashboard of what the monitoring costs, and of the Collector."""

# ruff: noqa: INP001 - scripts beside what they write, not a package

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from panels import JOBS, Panel, rate

QUEUE_USE: Final = (
    "max by (exporter) (otelcol_exporter_queue_size) / max by (exporter) (otelcol_exporter_queue_capacity)"
)
COST: Final[Sequence[Panel | str]] = (
    Panel(
        "Share of the models' own time",
        "All of the monitoring over all inference.",
        "percentunit",
        [(f"job:quantmon_overhead:ratio_rate5m{JOBS}", "{{job}}")],
        width=12,
        limit=0.12,
    ),
    Panel(
        "By phase",
        "Seconds a second: cores.",
        "short",
        [
            (
                rate("quantmon_overhead_duration_seconds_total", "quantmon_overhead_phase", where=JOBS),
                "{{quantmon_overhead_phase}}",
            )
        ],
        width=12,
    ),
    Panel(
        "References",
        "Evaluations a second, by what became of them.",
        "short",
        [
            (
                rate("quantmon_reference_evaluations_total", "quantmon_reference_outcome", where=JOBS),
                "{{quantmon_reference_outcome}}",
            )
        ],
    ),
    Panel(
        "Spans withheld",
        "Root spans a second that the budget withheld.",
        "short",
        [
            (
                rate("quantmon_spans_suppressed_total", "quantmon_model_name", where=JOBS),
                "{{quantmon_model_name}}",
            )
        ],
    ),
    Panel(
        "Anomalies",
        "Changes into an anomaly a second, by type.",
        "short",
        [
            (
                rate("quantmon_anomalies_total", "quantmon_anomaly_type", where=JOBS),
                "{{quantmon_anomaly_type}}",
            )
        ],
    ),
    "Collector",
    Panel(
        "Received",
        "Spans and points a second.",
        "short",
        [
            (rate("otelcol_receiver_accepted_spans", "instance", where=""), "spans {{instance}}"),
            (rate("otelcol_receiver_accepted_metric_points", "instance", where=""), "points {{instance}}"),
        ],
    ),
    Panel(
        "Sent",
        "Spans and points a second, by exporter.",
        "short",
        [
            (rate("otelcol_exporter_sent_spans", "exporter", where=""), "spans {{exporter}}"),
            (rate("otelcol_exporter_sent_metric_points", "exporter", where=""), "points {{exporter}}"),
        ],
    ),
    Panel(
        "Queue",
        "What waits for a backend, of what may.",
        "percentunit",
        [
            (
                QUEUE_USE,
                "{{exporter}}",
            )
        ],
        limit=0.8,
    ),
)
