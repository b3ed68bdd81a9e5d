"""The names of the telemetry: what was promised is there, and every backend accepts it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry.metrics import Meter

from otel_quantmon import semconv
from otel_quantmon.semconv import ERROR_TYPE, MODEL_ATTRIBUTES, Event, Metric

ROOT = Path(__file__).parents[2]

CONSTANTS: Mapping[str, object] = {
    name: value for name, value in vars(semconv).items() if name.isupper() and not name.startswith("_")
}
METRICS = {value.name: value for value in CONSTANTS.values() if isinstance(value, Metric)}
EVENTS = {value.name: value for value in CONSTANTS.values() if isinstance(value, Event)}
ATTRIBUTES = {
    value
    for value in CONSTANTS.values()
    if isinstance(value, str) and (value.startswith("quantmon.") or value == ERROR_TYPE)
}

# The promises of version 1, spelled out: they change by a decision, not because the code did.
PROMISED_METRICS = {
    ("quantmon.inference.duration", "histogram", "s"),
    ("quantmon.inference.active", "observable_up_down_counter", "{inference}"),
    ("quantmon.inference.window.duration", "observable_gauge", "s"),
    ("quantmon.inference.duration.drift", "observable_gauge", "1"),
    ("quantmon.inference.batch_size", "histogram", "{item}"),
    ("quantmon.model.load.duration", "histogram", "s"),
    ("quantmon.model.info", "observable_gauge", "1"),
    ("quantmon.output.relative_error", "observable_gauge", "1"),
    ("quantmon.output.error", "histogram", "1"),
    ("quantmon.output.sqnr", "observable_gauge", "dB"),
    ("quantmon.output.cosine_similarity", "observable_gauge", "1"),
    ("quantmon.output.disagreement", "observable_gauge", "1"),
    ("quantmon.input.clip_ratio", "observable_gauge", "1"),
    ("quantmon.tensor.nonfinite", "counter", "{tensor}"),
    ("quantmon.memory.usage", "observable_up_down_counter", "By"),
    ("quantmon.memory.allocated", "observable_counter", "By"),
    ("quantmon.memory.growth", "observable_gauge", "By/{inference}"),
    ("quantmon.execution_provider.nodes", "observable_gauge", "{node}"),
    ("quantmon.quantization.unfused_nodes", "observable_gauge", "{node}"),
    ("quantmon.reference.evaluations", "counter", "{evaluation}"),
    ("quantmon.speedup", "observable_gauge", "1"),
    ("quantmon.anomalies", "counter", "{anomaly}"),
    ("quantmon.anomaly.active", "observable_gauge", "1"),
    ("quantmon.spans.suppressed", "counter", "{span}"),
    ("quantmon.overhead.duration", "observable_counter", "s"),
    ("quantmon.fleet.anomaly.active", "observable_gauge", "1"),
    ("quantmon.fleet.golden.error_ratio", "observable_gauge", "1"),
    ("quantmon.fleet.size", "observable_gauge", "{host}"),
}
PROMISED_MODEL_ATTRIBUTES = (
    "quantmon.model.name",
    "quantmon.runtime.name",
    "quantmon.quantization.scheme",
    "quantmon.execution_provider",
)
PROMISED_METRIC_ATTRIBUTES = {
    *PROMISED_MODEL_ATTRIBUTES,
    "error.type",
    "quantmon.operation.name",
    "quantmon.output.name",
    "quantmon.input.name",
    "quantmon.statistic",
    "quantmon.reference.source",
    "quantmon.reference.outcome",
    "quantmon.anomaly.type",
    "quantmon.memory.type",
    "quantmon.tensor.direction",
    "quantmon.nonfinite.outcome",
    "quantmon.overhead.phase",
    "quantmon.fleet.scope",
    "quantmon.fleet.host",
    "quantmon.fleet.lacking",
}
PROMISED_INFO_ATTRIBUTES = {
    "quantmon.model.digest",
    "quantmon.model.format",
    "quantmon.model.version",
    "quantmon.runtime.version",
    "quantmon.quantization.weight_type",
    "quantmon.quantization.activation_type",
    "quantmon.cpu.isa",
}
PROMISED_SPAN_ONLY_ATTRIBUTES = {
    "quantmon.model.path",
    "quantmon.input.shapes",
    "quantmon.output.shapes",
    "quantmon.batch.size",
    "quantmon.warmup",
}
PROMISED_EVENTS = {
    "quantmon.anomaly.entered", "quantmon.anomaly.left", "quantmon.model.far_from_float", "quantmon.sample",
    "quantmon.fleet.anomaly.entered", "quantmon.fleet.anomaly.left", "quantmon.fleet.hosts.disagree",
}  # fmt: skip
PROMISED_EVENT_ONLY_ATTRIBUTES = {
    "quantmon.anomaly.models",
    "quantmon.anomaly.value",
    "quantmon.anomaly.baseline",
    "quantmon.anomaly.statistic",
    "quantmon.anomaly.evidence",
    "quantmon.anomaly.observations",
    "quantmon.anomaly.since",
    "quantmon.anomaly.cause",
    "quantmon.anomaly.layer",
    "quantmon.anomaly.remedy",
    "quantmon.baseline.source",
    "quantmon.fleet.hosts",
    "quantmon.fleet.versions",
    "quantmon.fleet.services",
    "quantmon.sample.id",
    "quantmon.sample.format",
    "quantmon.sample.location",
}
PROMISED_VALUES = {
    "quantmon.runtime.name": {"onnxruntime", "tflite", "litert"},
    "quantmon.quantization.scheme": {
        "none", "qdq", "qoperator", "dynamic", "weight_only", "float16", "full_integer", "unknown",
    },
    "quantmon.model.format": {"onnx", "ort", "tflite", "unknown"},
    "quantmon.statistic": {"mean", "p50", "p95", "p99", "last", "max"},
    "quantmon.reference.source": {"shadow", "golden", "remote"},
    "quantmon.reference.outcome": {
        "evaluated", "degenerate", "nonfinite", "incomparable", "failed",
        "sent", "rejected", "withheld", "unpaired",
        "dropped_queue", "dropped_bytes", "dropped_size", "dropped_concurrency", "dropped_shutdown",
    },
    "quantmon.anomaly.type": {
        "latency_drift", "timeout", "relative_error", "clipping", "nonfinite", "fallback",
        "memory_growth", "disagreement", "stall", "error_rate", "cosine", "output_distribution",
        "input_distribution", "speedup", "model_changed",
    },
    "quantmon.anomaly.cause": {"data", "machine", "file", "provider", "host", "application", "unknown"},
    "quantmon.baseline.source": {"learnt", "kept", "recorded", "none"},
    "quantmon.memory.type": {"model_file", "tensor_arena", "io", "load_rss", "process_rss"},
    "quantmon.tensor.direction": {"input", "output"},
    "quantmon.nonfinite.outcome": {"propagated", "masked", "generated"},
    "quantmon.overhead.phase": {"call", "drain", "collect", "load", "worker"},
    "quantmon.fleet.scope": {"everywhere", "version", "service", "host", "unknown"},
}  # fmt: skip


class TestPromises:
    """What users were promised, against the literal lists above."""

    def test_metrics(self) -> None:
        """Every promised metric is there with its instrument and unit, and no other."""
        assert {(m.name, m.instrument, m.unit) for m in METRICS.values()} == PROMISED_METRICS

    def test_attributes(self) -> None:
        """Every promised attribute has a constant, and there is no constant without a promise."""
        assert ATTRIBUTES == (
            PROMISED_METRIC_ATTRIBUTES
            | PROMISED_INFO_ATTRIBUTES
            | PROMISED_SPAN_ONLY_ATTRIBUTES
            | PROMISED_EVENT_ONLY_ATTRIBUTES
        )

    def test_events(self) -> None:
        """Every promised event is there, and no other."""
        assert set(EVENTS) == PROMISED_EVENTS

    def test_values(self) -> None:
        """Each enumerated attribute has the promised values."""
        assert {key: set(values) for key, values in semconv.ENUMERATIONS.items()} == PROMISED_VALUES

    def test_metric_attributes_are_bounded(self) -> None:
        """Only model.info goes beyond the bounded attributes: a digest elsewhere would split series."""
        for metric in METRICS.values():
            allowed = PROMISED_METRIC_ATTRIBUTES
            if metric.name == "quantmon.model.info":
                allowed = {*PROMISED_MODEL_ATTRIBUTES, *PROMISED_INFO_ATTRIBUTES}
            assert set(metric.attributes) <= allowed, metric.name

    def test_every_metric_of_a_model_tells_which_model(self) -> None:
        """All metrics share the same leading attributes and can be joined; overhead is the process's own."""
        assert MODEL_ATTRIBUTES == PROMISED_MODEL_ATTRIBUTES
        others = {m.name for m in METRICS.values() if m.attributes[:4] != PROMISED_MODEL_ATTRIBUTES}
        assert others == {"quantmon.overhead.duration"}

    def test_every_attribute_is_used(self) -> None:
        """Each attribute is on the span, on a metric or on an event: none is a dead name."""
        used = set(semconv.SPAN_ATTRIBUTES).union(
            *(m.attributes for m in (*METRICS.values(), *EVENTS.values()))
        )
        assert used == ATTRIBUTES
        assert set(semconv.SPAN_ATTRIBUTES) >= PROMISED_SPAN_ONLY_ATTRIBUTES

    def test_scope_and_modes(self) -> None:
        """Scope and span modes are those that users write into views and settings."""
        assert semconv.SCOPE == "otel_quantmon"
        assert semconv.SPAN_MODES == ("auto", "all", "parent", "none")


class TestNames:
    """Names that OpenTelemetry and its backends accept."""

    @pytest.mark.parametrize("name", sorted(ATTRIBUTES | set(METRICS)))
    def test_follows_the_naming_rules(self, name: str) -> None:
        """Lowercase, begins with a letter, ends alphanumeric, no two delimiters in a row, has a namespace."""
        assert re.fullmatch(r"[a-z][a-z0-9]*([._][a-z0-9]+)*", name)
        assert "." in name

    @pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
    def test_metric_is_valid_for_the_api(self, metric: Metric) -> None:
        """Name up to 255 characters, unit up to 63 of ASCII, as the API wants; a description of one line."""
        assert len(metric.name) <= 255
        assert len(metric.unit) <= 63
        assert metric.unit.isascii()
        assert re.fullmatch(r"[^\n|]+\.", metric.description)
        assert not metric.name.endswith("total")

    @pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
    def test_instrument_is_one_of_the_api(self, metric: Metric) -> None:
        """The meter has a method for the instrument, so that creating it needs no table of names."""
        assert callable(getattr(Meter, f"create_{metric.instrument}"))

    def test_no_name_stands_twice(self) -> None:
        """No two constants share a name, nor do two that are equal once Prometheus has put underscores."""
        names = [v for v in CONSTANTS.values() if isinstance(v, str) and v in ATTRIBUTES]
        metrics = [v.name for v in CONSTANTS.values() if isinstance(v, Metric)]
        for group in (names, metrics):
            escaped = Counter(name.replace(".", "_") for name in group)
            assert [name for name, count in escaped.items() if count > 1] == []

    def test_no_attribute_or_value_stands_twice(self) -> None:
        """Attribute lists and enumerations hold each entry once."""
        groups = [m.attributes for m in METRICS.values()]
        for group in (*groups, semconv.SPAN_ATTRIBUTES, *semconv.ENUMERATIONS.values()):
            assert len(group) == len(set(group))

    def test_names_are_spelled_out_here_alone(self) -> None:
        """No other module of the package writes a name as a literal, which could drift from this one."""
        found = [
            f"{path.relative_to(ROOT)}:{node.lineno} {node.value}"
            for path in sorted((ROOT / "src").rglob("*.py"))
            if path.name != "semconv.py"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and node.value in ATTRIBUTES | set(METRICS)
        ]
        assert found == []


class TestBoundaries:
    """Advisory bucket boundaries."""

    def test_histograms_and_only_they_have_boundaries(self) -> None:
        """The SDK's defaults, 0 to 10000, would put every inference into the first bucket."""
        assert {m.name for m in METRICS.values() if m.boundaries} == {
            m.name for m in METRICS.values() if m.instrument == "histogram"
        }

    @pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
    def test_strictly_increasing(self, metric: Metric) -> None:
        """Positive and strictly increasing, as the SDK demands of explicit buckets."""
        assert all(low < high for low, high in pairwise((0.0, *metric.boundaries)))

    def test_duration_range(self) -> None:
        """10 µs to 60 s, fine enough that a quantile read from a bucket is off by at most a factor of 3."""
        boundaries = semconv.DURATION_BOUNDARIES
        assert (boundaries[0], boundaries[-1], len(boundaries)) == (10e-6, 60.0, 21)
        assert all(high / low <= 3.0 for low, high in pairwise(boundaries))
