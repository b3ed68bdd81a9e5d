"""The dashboard of one model: anomalies, latency, fidelity, graph and memory."""

# ruff: noqa: INP001 - scripts beside what they write, not a package

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from panels import DURATION, MODEL, Panel, mean, quantile, rate

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
# Nor have its anomalies.
ANOMALIES: Final = (
    f"instance:quantmon_anomaly_active{MODEL}"
    ' or instance:quantmon_anomaly_active{job=~"$job", quantmon_model_name=""}'
)
ONE_MODEL: Final[Sequence[Panel | str]] = (
    Panel(
        "Anomalies",
        "Each type that has a baseline: red while the model has left it. memory_growth is the whole process's.",
        "short",
        [(ANOMALIES, "{{quantmon_anomaly_type}} {{host}} {{instance}}")],
        kind="states",
        width=24,
        limit=1,
    ),
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
    ),
    Panel(
        "Clipped input",
        "Share of the values outside the range that the graph can represent.",
        "percentunit",
        [(f"quantmon_input_clip_ratio{MODEL}", "{{quantmon_input_name}} {{instance}}")],
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
