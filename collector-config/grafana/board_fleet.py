"""The dashboard of all models: which disagree, and what runs where."""

# ruff: noqa: INP001 - scripts beside what they write, not a package

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from panels import EACH, JOBS, Panel

ERROR_BY_MODEL: Final = (
    "max by (job, quantmon_model_name)"
    ' (quantmon_output_relative_error_ratio{job=~"$job", quantmon_statistic="mean"})'
)
FLEET: Final[Sequence[Panel | str]] = (
    Panel(
        "Models",
        "Models that report.",
        "short",
        [(f"count(count by (job, quantmon_model_name) (quantmon_model_info_ratio{JOBS}))", "")],
        kind="number",
        width=6,
    ),
    Panel(
        "Calls",
        "Inference calls a second.",
        "reqps",
        [(f"sum(model:quantmon_inferences:rate5m{JOBS})", "")],
        kind="number",
        width=6,
    ),
    Panel(
        "Failing models",
        "Models with more failures than the objective of 99.9 % allows.",
        "short",
        [(f"count(model:quantmon_inference_errors:ratio_rate5m{JOBS} > 0.001) or vector(0)", "")],
        kind="number",
        width=6,
        limit=1,
    ),
    Panel(
        "Anomalies",
        "Anomalies that are on now, each instance's.",
        "short",
        [(f"count(instance:quantmon_anomaly_active{JOBS} > 0) or vector(0)", "")],
        kind="number",
        width=6,
        limit=1,
    ),
    Panel(
        "Calls by model",
        "Inference calls a second.",
        "reqps",
        [(f"model:quantmon_inferences:rate5m{JOBS}", EACH)],
        width=12,
    ),
    Panel(
        "p99 by model",
        "99 % of the calls take less.",
        "s",
        [(f"model:quantmon_inference_duration_seconds:p99_5m{JOBS}", EACH)],
        width=12,
    ),
    Panel(
        "Failures by model",
        "Share of the calls that failed.",
        "percentunit",
        [(f"model:quantmon_inference_errors:ratio_rate5m{JOBS}", EACH)],
        width=12,
        limit=0.001,
    ),
    Panel(
        "Relative error by model",
        "Distance from the float reference: the worst output of the worst instance.",
        "percentunit",
        [(ERROR_BY_MODEL, EACH)],
        width=12,
    ),
    "Which hosts disagree",
    Panel(
        "Share of instances with an anomaly",
        "Of those that have the model loaded, by type: a small share is a host, a large one what all have in common.",
        "percentunit",
        [(f"model:quantmon_anomaly_active:share{JOBS} > 0", f"{{{{quantmon_anomaly_type}}}} {EACH}")],
        limit=0.5,
    ),
    Panel(
        "Relative error over the fleet's median",
        "Of each instance. A host that computes otherwise is far from 1, from its start on.",
        "short",
        [
            (
                f"instance:quantmon_output_relative_error:over_median{JOBS}",
                "{{quantmon_model_name}} {{quantmon_output_name}} {{host}} {{instance}}",
            )
        ],
        limit=2,
    ),
    Panel(
        "p50 over the fleet's median",
        "Of each instance's sliding window.",
        "short",
        [
            (
                f"instance:quantmon_inference_duration_seconds:p50_over_median{JOBS}",
                "{{quantmon_model_name}} {{host}} {{instance}}",
            )
        ],
        limit=2,
    ),
    Panel(
        "Where in the fleet it has changed",
        "By the judge of samples (quantmon evaluate --fleet): everywhere is the data, a host is a machine.",
        "short",
        [
            (
                "quantmon_fleet_anomaly_active_ratio > 0",
                "{{quantmon_model_name}} {{quantmon_anomaly_type}} {{quantmon_fleet_scope}} {{quantmon_fleet_host}}",
            ),
            (
                "quantmon_fleet_golden_error_ratio",
                "{{quantmon_model_name}} golden {{quantmon_fleet_host}} lacks {{quantmon_fleet_lacking}}",
            ),
        ],
    ),
    Panel(
        "Hosts that send samples",
        "Heard by the judge of samples (quantmon evaluate --fleet) in the last ten minutes.",
        "short",
        [("quantmon_fleet_size", "{{quantmon_model_name}}")],
    ),
    Panel(
        "Anomalies that are on",
        "Where, and of what type. What each means and what to do is in the runbooks.",
        "short",
        [(f"instance:quantmon_anomaly_active{JOBS} > 0", "")],
        kind="table",
        width=24,
    ),
    "Loaded models",
    Panel(
        "What runs where",
        "Each loaded model with its digest, types, runtime, and the int8 abilities of its host.",
        "short",
        [(f"quantmon_model_info_ratio{JOBS}", "")],
        kind="table",
        width=24,
    ),
)
