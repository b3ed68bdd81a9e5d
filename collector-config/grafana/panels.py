"""What the dashboards show: each panel with its queries. ``dashboards.py`` makes Grafana's files of it.

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
        kind: ``lines`` over time, one ``number``, a ``heatmap`` of a histogram, or a ``table`` of labels.
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
    """A quantile over the panel's own interval."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', *by, 'le')})"


def mean(histogram: str) -> str:
    """The mean of a histogram's values, by instance."""
    return f"{rate(f'{histogram}_sum', 'instance')} / {rate(f'{histogram}_count', 'instance')}"


EACH: Final = "{{quantmon_model_name}} · {{job}}"
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
        "Changes into an anomaly in the last hour.",
        "short",
        [(f"round(sum(increase(quantmon_anomalies_total{JOBS}[1h]))) or vector(0)", "")],
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
        limit=0.05,
    ),
    Panel(
        "What runs where",
        "Each loaded model with its digest, types, runtime, and the int8 abilities of its host.",
        "short",
        [(f"quantmon_model_info_ratio{JOBS}", "")],
        kind="table",
        width=24,
    ),
)

DURATION: Final = "quantmon_inference_duration_seconds"
OUTCOMES: Final = (
    f'label_replace({rate(f"{DURATION}_count", "error_type")}, "error_type", "succeeded", "error_type", "")'
)
# Since the process began: its one load is over before the first export, so no rate ever sees it.
LOADING: Final = (
    f"sum by (instance) (quantmon_model_load_duration_seconds_sum{MODEL})"
    f" / sum by (instance) (quantmon_model_load_duration_seconds_count{MODEL})"
)
# What the process holds has no model's name.
MEMORY: Final = (
    f"quantmon_memory_usage_bytes{MODEL}"
    ' or quantmon_memory_usage_bytes{job=~"$job", quantmon_memory_type="process_rss"}'
)
ONE_MODEL: Final[Sequence[Panel | str]] = (
    "Latency",
    Panel(
        "Duration",
        "Half and 99 % of the calls take less. A dot is a call with a trace: click it.",
        "s",
        [
            (quantile(0.5, DURATION, "quantmon_model_name"), "p50 {{quantmon_model_name}}"),
            (quantile(0.99, DURATION, "quantmon_model_name"), "p99 {{quantmon_model_name}}"),
        ],
        width=12,
        exemplars=True,
    ),
    Panel(
        "Distribution of the duration",
        "Two bands are two kinds of call.",
        "s",
        [(f"sum by (le) (increase({DURATION}_bucket{MODEL}[$__rate_interval]))", "{{le}}")],
        kind="heatmap",
        width=12,
    ),
    Panel(
        "Sliding window",
        "As the process itself sees it.",
        "s",
        [(f"quantmon_inference_window_duration_seconds{MODEL}", "{{quantmon_statistic}} {{instance}}")],
    ),
    Panel(
        "Drift",
        "Window mean over the process's own baseline, minus 1.",
        "percentunit",
        [(f"quantmon_inference_duration_drift_ratio{MODEL}", "{{instance}}")],
        limit=0.5,
    ),
    Panel("In flight", "Calls under way.", "short", [(f"quantmon_inference_active{MODEL}", "{{instance}}")]),
    Panel(
        "Calls by outcome",
        "Calls a second; those that failed by the type of the error.",
        "reqps",
        [(OUTCOMES, "{{error_type}}")],
    ),
    Panel(
        "Batch size",
        "Mean length of the first dimension.",
        "short",
        [(mean("quantmon_inference_batch_size"), "{{instance}}")],
    ),
    Panel(
        "Loading",
        "Mean duration of a process's loads of the model since it began: most load it once.",
        "s",
        [(LOADING, "{{instance}}")],
    ),
    "Fidelity",
    Panel(
        "Relative error",
        "Norm of the difference from the float reference, over the reference's norm.",
        "percentunit",
        [
            (
                f"quantmon_output_relative_error_ratio{MODEL}",
                "{{quantmon_statistic}} {{quantmon_output_name}} {{instance}}",
            )
        ],
        width=12,
        limit=0.05,
    ),
    Panel(
        "Relative error, p99",
        "Of single evaluations. A dot is one with a trace: click it.",
        "percentunit",
        [(quantile(0.99, "quantmon_output_error", "quantmon_output_name"), "{{quantmon_output_name}}")],
        width=12,
        exemplars=True,
    ),
    Panel(
        "Signal to quantization noise",
        "20 dB is a relative error of 0.1, 40 dB of 0.01.",
        "dB",
        [(f"quantmon_output_sqnr_dB{MODEL}", "{{quantmon_output_name}} {{instance}}")],
    ),
    Panel(
        "Cosine similarity",
        "Below 0.99 the direction is wrong too, not only the size.",
        "short",
        [(f"quantmon_output_cosine_similarity_ratio{MODEL}", "{{quantmon_output_name}} {{instance}}")],
    ),
    Panel(
        "Disagreement",
        "Share of the decisions that the float model makes otherwise.",
        "percentunit",
        [(f"quantmon_output_disagreement_ratio{MODEL}", "{{quantmon_output_name}} {{instance}}")],
        limit=0.02,
    ),
    Panel(
        "Clipped input",
        "Share of the values outside the range that the graph can represent.",
        "percentunit",
        [(f"quantmon_input_clip_ratio{MODEL}", "{{quantmon_input_name}} {{instance}}")],
        limit=0.01,
    ),
    Panel(
        "NaN and infinity",
        "Tensors a second. Masked: bad in, finite out.",
        "short",
        [
            (
                rate(
                    "quantmon_tensor_nonfinite_total",
                    "quantmon_tensor_direction",
                    "quantmon_nonfinite_outcome",
                ),
                "{{quantmon_tensor_direction}} {{quantmon_nonfinite_outcome}}",
            )
        ],
    ),
    Panel(
        "Speedup",
        "Float duration over quantized. Under 1 the quantization does not pay.",
        "short",
        [(f"quantmon_speedup_ratio{MODEL}", "{{instance}}")],
    ),
    "Graph and memory",
    Panel(
        "Nodes by provider",
        "Where the graph runs.",
        "short",
        [(f"quantmon_execution_provider_nodes{MODEL}", "{{quantmon_execution_provider}} {{instance}}")],
        width=12,
    ),
    Panel(
        "Unfused pairs",
        "Quantize and dequantize pairs that the optimizer left.",
        "short",
        [(f"quantmon_quantization_unfused_nodes{MODEL}", "{{instance}}")],
        width=12,
    ),
    Panel(
        "Memory",
        "By what holds it; the kinds overlap. process_rss is the whole process's.",
        "bytes",
        [(MEMORY, "{{quantmon_memory_type}} {{instance}}")],
    ),
    Panel(
        "Growth",
        "Bytes of resident memory a call.",
        "bytes",
        [(f"quantmon_memory_growth_bytes{MODEL}", "{{instance}}")],
    ),
    Panel(
        "Tensors produced",
        "Bytes of outputs a second.",
        "Bps",
        [(rate("quantmon_memory_allocated_bytes_total", "instance"), "{{instance}}")],
    ),
)

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
        "By room",
        "Seconds a second: cores.",
        "short",
        [
            (
                rate("quantmon_overhead_duration_seconds_total", "quantmon_overhead_room", where=JOBS),
                "{{quantmon_overhead_room}}",
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
