"""Every name that otel-quantmon puts into telemetry: the only place where one is spelled out.

The same names stand in ``semconv/registry/*.yaml``, for tools, and in ``docs/telemetry.md``, for
people; ``tests/semconv`` holds the three together. They follow OpenTelemetry's naming rules
(https://opentelemetry.io/docs/specs/semconv/general/naming/); units are UCUM
(https://ucum.org/ucum). There is no standard for classical inference yet, hence the prefix of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, get_args

SCOPE: Final = "otel_quantmon"

# A schema URL promises a file there that says how names changed from version to version. Version 1 has
# no change to record, and OpenTelemetry's own schema does not know these names.
SCHEMA_URL: Final[str | None] = None

NAME_LIMIT: Final = 128
"""Characters of a name that comes from a model, a runtime or the user's settings; longer ones are cut."""


def bounded(name: str) -> str:
    """``name`` as telemetry may carry it: at most `NAME_LIMIT` characters, all of them printable.

    Control and format characters, surrogates and what else `str.isprintable` excludes become U+FFFD: names come from
    files, and go to terminals, to logs and to UTF-8. The last character of a name that was cut is an ellipsis.
    """
    if len(name) <= NAME_LIMIT and name.isprintable():
        return name
    cut = name if len(name) <= NAME_LIMIT else name[: NAME_LIMIT - 1] + "…"
    return "".join(character if character.isprintable() else "\ufffd" for character in cut)


# Attributes of every signal of one model.

MODEL_NAME: Final = "quantmon.model.name"
RUNTIME_NAME: Final = "quantmon.runtime.name"
QUANTIZATION_SCHEME: Final = "quantmon.quantization.scheme"
EXECUTION_PROVIDER: Final = "quantmon.execution_provider"

# Attributes of metrics, some of spans too. Each has values that an operator can bound.

ERROR_TYPE: Final = "error.type"
OPERATION_NAME: Final = "quantmon.operation.name"
INPUT_NAME: Final = "quantmon.input.name"
OUTPUT_NAME: Final = "quantmon.output.name"
STATISTIC: Final = "quantmon.statistic"
REFERENCE_SOURCE: Final = "quantmon.reference.source"
REFERENCE_OUTCOME: Final = "quantmon.reference.outcome"
ANOMALY_TYPE: Final = "quantmon.anomaly.type"
MEMORY_TYPE: Final = "quantmon.memory.type"
TENSOR_DIRECTION: Final = "quantmon.tensor.direction"
NONFINITE_OUTCOME: Final = "quantmon.nonfinite.outcome"
OVERHEAD_PHASE: Final = "quantmon.overhead.phase"
FLEET_SCOPE: Final = "quantmon.fleet.scope"
FLEET_HOST: Final = "quantmon.fleet.host"
FLEET_LACKING: Final = "quantmon.fleet.lacking"

# Attributes of events alone.

ANOMALY_VALUE: Final = "quantmon.anomaly.value"
ANOMALY_BASELINE: Final = "quantmon.anomaly.baseline"
ANOMALY_STATISTIC: Final = "quantmon.anomaly.statistic"
ANOMALY_EVIDENCE: Final = "quantmon.anomaly.evidence"
ANOMALY_OBSERVATIONS: Final = "quantmon.anomaly.observations"
ANOMALY_SINCE: Final = "quantmon.anomaly.since"
ANOMALY_MODELS: Final = "quantmon.anomaly.models"
ANOMALY_CAUSE: Final = "quantmon.anomaly.cause"
ANOMALY_LAYER: Final = "quantmon.anomaly.layer"
ANOMALY_REMEDY: Final = "quantmon.anomaly.remedy"
BASELINE_SOURCE: Final = "quantmon.baseline.source"
FLEET_HOSTS: Final = "quantmon.fleet.hosts"
FLEET_VERSIONS: Final = "quantmon.fleet.versions"
FLEET_SERVICES: Final = "quantmon.fleet.services"
SAMPLE_ID: Final = "quantmon.sample.id"
SAMPLE_FORMAT: Final = "quantmon.sample.format"
SAMPLE_LOCATION: Final = "quantmon.sample.location"

# Attributes of spans, of quantmon.model.info and of events, never of another metric.

MODEL_DIGEST: Final = "quantmon.model.digest"
MODEL_FORMAT: Final = "quantmon.model.format"
MODEL_VERSION: Final = "quantmon.model.version"
RUNTIME_VERSION: Final = "quantmon.runtime.version"
QUANTIZATION_WEIGHT_TYPE: Final = "quantmon.quantization.weight_type"
QUANTIZATION_ACTIVATION_TYPE: Final = "quantmon.quantization.activation_type"
CPU_ISA: Final = "quantmon.cpu.isa"

# Attributes of spans alone: unbounded, or about one call.

MODEL_PATH: Final = "quantmon.model.path"
INPUT_SHAPES: Final = "quantmon.input.shapes"
OUTPUT_SHAPES: Final = "quantmon.output.shapes"
BATCH_SIZE: Final = "quantmon.batch.size"
WARMUP: Final = "quantmon.warmup"

# Values of the enumerated attributes, as types: a misspelt value fails the type checker.

RuntimeName = Literal["onnxruntime", "tflite", "litert"]
QuantizationScheme = Literal[
    "none", "qdq", "qoperator", "dynamic", "weight_only", "float16", "full_integer", "unknown"
]
ModelFormat = Literal["onnx", "ort", "tflite", "unknown"]
Statistic = Literal["mean", "p50", "p95", "p99", "last", "max"]
ReferenceSource = Literal["shadow", "golden", "remote"]
ReferenceOutcome = Literal[
    "evaluated",
    "degenerate",
    "nonfinite",
    "incomparable",
    "failed",
    "sent",
    "rejected",
    "withheld",
    "unpaired",
    "dropped_queue",
    "dropped_bytes",
    "dropped_size",
    "dropped_concurrency",
    "dropped_shutdown",
]
AnomalyType = Literal[
    "latency_drift",
    "timeout",
    "relative_error",
    "clipping",
    "nonfinite",
    "fallback",
    "memory_growth",
    "disagreement",
    "stall",
    "error_rate",
    "cosine",
    "output_distribution",
    "input_distribution",
    "speedup",
    "model_changed",
]
AnomalyCause = Literal["data", "machine", "file", "provider", "host", "application", "unknown"]
BaselineSource = Literal["learnt", "kept", "recorded", "none"]
MemoryType = Literal["model_file", "tensor_arena", "io", "load_rss", "process_rss"]
TensorDirection = Literal["input", "output"]
NonfiniteOutcome = Literal["propagated", "masked", "generated"]
FleetScope = Literal["everywhere", "version", "service", "host", "unknown"]
OverheadPhase = Literal["call", "drain", "collect", "load", "worker"]

ENUMERATIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        RUNTIME_NAME: get_args(RuntimeName),
        QUANTIZATION_SCHEME: get_args(QuantizationScheme),
        MODEL_FORMAT: get_args(ModelFormat),
        STATISTIC: get_args(Statistic),
        REFERENCE_SOURCE: get_args(ReferenceSource),
        REFERENCE_OUTCOME: get_args(ReferenceOutcome),
        ANOMALY_TYPE: get_args(AnomalyType),
        ANOMALY_CAUSE: get_args(AnomalyCause),
        BASELINE_SOURCE: get_args(BaselineSource),
        MEMORY_TYPE: get_args(MemoryType),
        TENSOR_DIRECTION: get_args(TensorDirection),
        NONFINITE_OUTCOME: get_args(NonfiniteOutcome),
        OVERHEAD_PHASE: get_args(OverheadPhase),
        FLEET_SCOPE: get_args(FleetScope),
    }
)
"""All values of each enumerated attribute, in the order in which the documentation gives them."""

# When a call makes a span: a setting, in no telemetry itself, but part of what its reader must know.
SpanMode = Literal["auto", "all", "parent", "none"]
SPAN_MODES: Final[tuple[SpanMode, ...]] = get_args(SpanMode)

SPAN_NAME_PREFIX: Final = "inference"
"""A span's name is this, a space, and the model's name."""

SPAN_ATTRIBUTES: Final = (
    MODEL_NAME,
    RUNTIME_NAME,
    QUANTIZATION_SCHEME,
    EXECUTION_PROVIDER,
    OPERATION_NAME,
    ERROR_TYPE,
    ANOMALY_TYPE,
    MODEL_DIGEST,
    MODEL_FORMAT,
    MODEL_VERSION,
    MODEL_PATH,
    RUNTIME_VERSION,
    QUANTIZATION_WEIGHT_TYPE,
    QUANTIZATION_ACTIVATION_TYPE,
    INPUT_SHAPES,
    OUTPUT_SHAPES,
    BATCH_SIZE,
    WARMUP,
)
"""All attributes that the inference span can carry."""

Instrument = Literal[
    "counter", "histogram", "observable_counter", "observable_gauge", "observable_up_down_counter"
]


class Metric(NamedTuple):
    """What one metric promises.

    Attributes:
        name: Name, as the meter is given it.
        instrument: Kind; the meter's method is ``create_`` followed by it.
        unit: UCUM, annotations in braces.
        description: One sentence.
        attributes: All that a point can carry, in the documentation's order.
        boundaries: Advisory upper bounds of a histogram's buckets, inclusive, in ``unit``;
            empty for other instruments.
    """

    name: str
    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[str, ...]
    boundaries: tuple[float, ...] = ()


MODEL_ATTRIBUTES: Final = (MODEL_NAME, RUNTIME_NAME, QUANTIZATION_SCHEME, EXECUTION_PROVIDER)
"""Attributes that identify a model's series."""

# 1-2-5 in each decade. 10 µs is about twice what the smallest model takes, an int8 wake word;
# 60 s is where most clients have given up. OpenTelemetry's default boundaries begin at 5 s for this unit.
DURATION_BOUNDARIES: Final = (
    10e-6, 20e-6, 50e-6,
    100e-6, 200e-6, 500e-6,
    1e-3, 2e-3, 5e-3,
    10e-3, 20e-3, 50e-3,
    0.1, 0.2, 0.5,
    1.0, 2.0, 5.0,
    10.0, 30.0, 60.0,
)  # fmt: skip

# From a small buffer to a large file on a network disk, compiled for an accelerator.
LOAD_DURATION_BOUNDARIES: Final = (
    1e-3, 2e-3, 5e-3,
    10e-3, 20e-3, 50e-3,
    0.1, 0.2, 0.5,
    1.0, 2.0, 5.0,
    10.0, 30.0, 60.0,
    120.0, 300.0,
)  # fmt: skip

BATCH_SIZE_BOUNDARIES: Final = (
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
)  # fmt: skip

# float16 rounds to 2**-11, about 5e-4; past 1 the error is larger than the signal.
ERROR_BOUNDARIES: Final = (
    1e-4, 2e-4, 5e-4,
    1e-3, 2e-3, 5e-3,
    0.01, 0.02, 0.05,
    0.1, 0.2, 0.5,
    1.0, 10.0,
)  # fmt: skip

METRIC_INFERENCE_DURATION: Final = Metric(
    "quantmon.inference.duration",
    "histogram",
    "s",
    "Duration of inference calls, failed ones included.",
    (*MODEL_ATTRIBUTES, OPERATION_NAME, ERROR_TYPE),
    DURATION_BOUNDARIES,
)
METRIC_INFERENCE_ACTIVE: Final = Metric(
    "quantmon.inference.active",
    "observable_up_down_counter",
    "{inference}",
    "Inference calls in flight.",
    MODEL_ATTRIBUTES,
)
METRIC_INFERENCE_WINDOW_DURATION: Final = Metric(
    "quantmon.inference.window.duration",
    "observable_gauge",
    "s",
    "Mean and quantiles of the duration of inference calls over a sliding window.",
    (*MODEL_ATTRIBUTES, STATISTIC),
)
METRIC_INFERENCE_DURATION_DRIFT: Final = Metric(
    "quantmon.inference.duration.drift",
    "observable_gauge",
    "1",
    "Duration of the calls in the window divided by the baseline of their shapes, minus 1.",
    MODEL_ATTRIBUTES,
)
METRIC_INFERENCE_BATCH_SIZE: Final = Metric(
    "quantmon.inference.batch_size",
    "histogram",
    "{item}",
    "Length of the first dimension of the first input of inference calls.",
    MODEL_ATTRIBUTES,
    BATCH_SIZE_BOUNDARIES,
)
METRIC_MODEL_LOAD_DURATION: Final = Metric(
    "quantmon.model.load.duration",
    "histogram",
    "s",
    "Duration of the construction of a session or interpreter.",
    (*MODEL_ATTRIBUTES, ERROR_TYPE),
    LOAD_DURATION_BOUNDARIES,
)
METRIC_MODEL_INFO: Final = Metric(
    "quantmon.model.info",
    "observable_gauge",
    "1",
    "Facts about a loaded model, as attributes; the value is always 1.",
    (
        *MODEL_ATTRIBUTES,
        MODEL_DIGEST,
        MODEL_FORMAT,
        MODEL_VERSION,
        RUNTIME_VERSION,
        QUANTIZATION_WEIGHT_TYPE,
        QUANTIZATION_ACTIVATION_TYPE,
        CPU_ISA,
    ),
)
METRIC_OUTPUT_RELATIVE_ERROR: Final = Metric(
    "quantmon.output.relative_error",
    "observable_gauge",
    "1",
    "Norm of the difference from the float reference divided by the reference's norm, over a window.",
    (*MODEL_ATTRIBUTES, OUTPUT_NAME, REFERENCE_SOURCE, STATISTIC),
)
METRIC_OUTPUT_ERROR: Final = Metric(
    "quantmon.output.error",
    "histogram",
    "1",
    "Distribution of the relative error of each evaluation.",
    (*MODEL_ATTRIBUTES, OUTPUT_NAME, REFERENCE_SOURCE),
    ERROR_BOUNDARIES,
)
METRIC_OUTPUT_SQNR: Final = Metric(
    "quantmon.output.sqnr",
    "observable_gauge",
    "dB",
    "Signal-to-quantization-noise ratio over a window, clamped to ±120 dB.",
    (*MODEL_ATTRIBUTES, OUTPUT_NAME, REFERENCE_SOURCE),
)
METRIC_OUTPUT_COSINE_SIMILARITY: Final = Metric(
    "quantmon.output.cosine_similarity",
    "observable_gauge",
    "1",
    "Mean cosine of the angle between quantized and reference output over a window.",
    (*MODEL_ATTRIBUTES, OUTPUT_NAME, REFERENCE_SOURCE),
)
METRIC_OUTPUT_DISAGREEMENT: Final = Metric(
    "quantmon.output.disagreement",
    "observable_gauge",
    "1",
    "Share of decisions that differ from the reference: top-1 where its margin is not itself noise, or labels.",
    (*MODEL_ATTRIBUTES, OUTPUT_NAME, REFERENCE_SOURCE),
)
METRIC_INPUT_CLIP_RATIO: Final = Metric(
    "quantmon.input.clip_ratio",
    "observable_gauge",
    "1",
    "Share of input values outside the range that the quantized graph can represent.",
    (*MODEL_ATTRIBUTES, INPUT_NAME),
)
METRIC_TENSOR_NONFINITE: Final = Metric(
    "quantmon.tensor.nonfinite",
    "counter",
    "{tensor}",
    "Inspected tensors that hold a NaN or an infinity.",
    (*MODEL_ATTRIBUTES, TENSOR_DIRECTION, NONFINITE_OUTCOME),
)
METRIC_MEMORY_USAGE: Final = Metric(
    "quantmon.memory.usage",
    "observable_up_down_counter",
    "By",
    "Memory by what it holds; the types overlap and are not to be added up.",
    (*MODEL_ATTRIBUTES, MEMORY_TYPE),
)
METRIC_MEMORY_ALLOCATED: Final = Metric(
    "quantmon.memory.allocated",
    "observable_counter",
    "By",
    "Bytes of output tensors produced since start.",
    MODEL_ATTRIBUTES,
)
METRIC_MEMORY_GROWTH: Final = Metric(
    "quantmon.memory.growth",
    "observable_gauge",
    "By/{inference}",
    "Robust slope of the process's resident memory per inference call.",
    MODEL_ATTRIBUTES,
)
METRIC_EXECUTION_PROVIDER_NODES: Final = Metric(
    "quantmon.execution_provider.nodes",
    "observable_gauge",
    "{node}",
    "Graph nodes assigned to an execution provider or delegate.",
    MODEL_ATTRIBUTES,
)
METRIC_QUANTIZATION_UNFUSED_NODES: Final = Metric(
    "quantmon.quantization.unfused_nodes",
    "observable_gauge",
    "{node}",
    "Pairs of QuantizeLinear and DequantizeLinear left after graph optimization.",
    MODEL_ATTRIBUTES,
)
METRIC_REFERENCE_EVALUATIONS: Final = Metric(
    "quantmon.reference.evaluations",
    "counter",
    "{evaluation}",
    "Calls chosen for comparison with the reference, by what became of them.",
    (*MODEL_ATTRIBUTES, REFERENCE_SOURCE, REFERENCE_OUTCOME),
)
METRIC_SPEEDUP: Final = Metric(
    "quantmon.speedup",
    "observable_gauge",
    "1",
    "Median duration of the float reference divided by that of the quantized model, from shadow runs.",
    MODEL_ATTRIBUTES,
)
METRIC_ANOMALIES: Final = Metric(
    "quantmon.anomalies",
    "counter",
    "{anomaly}",
    "Changes of state into an anomaly.",
    (*MODEL_ATTRIBUTES, ANOMALY_TYPE),
)
METRIC_ANOMALY_ACTIVE: Final = Metric(
    "quantmon.anomaly.active",
    "observable_gauge",
    "1",
    "1 while an anomaly is on, else 0.",
    (*MODEL_ATTRIBUTES, ANOMALY_TYPE),
)
METRIC_SPANS_SUPPRESSED: Final = Metric(
    "quantmon.spans.suppressed",
    "counter",
    "{span}",
    "Root spans withheld by the span budget.",
    MODEL_ATTRIBUTES,
)
METRIC_OVERHEAD_DURATION: Final = Metric(
    "quantmon.overhead.duration",
    "observable_counter",
    "s",
    "Time that the monitoring itself has used in this process.",
    (OVERHEAD_PHASE,),
)
METRIC_FLEET_ANOMALY_ACTIVE: Final = Metric(
    "quantmon.fleet.anomaly.active",
    "observable_gauge",
    "1",
    "1 where in a fleet an anomaly is on; 0 with the scope everywhere while it is watched for.",
    (*MODEL_ATTRIBUTES, ANOMALY_TYPE, FLEET_SCOPE, FLEET_HOST),
)
METRIC_FLEET_GOLDEN_ERROR_RATIO: Final = Metric(
    "quantmon.fleet.golden.error_ratio",
    "observable_gauge",
    "1",
    "Relative error on golden inputs, of a host that disagrees, over that of the hosts that agree.",
    (*MODEL_ATTRIBUTES, FLEET_HOST, FLEET_LACKING),
)
METRIC_FLEET_HOSTS: Final = Metric(
    "quantmon.fleet.size",
    "observable_gauge",
    "{host}",
    "Hosts that samples have come from in the last ten minutes.",
    MODEL_ATTRIBUTES,
)
FLEET_METRICS: Final = (METRIC_FLEET_ANOMALY_ACTIVE, METRIC_FLEET_GOLDEN_ERROR_RATIO, METRIC_FLEET_HOSTS)
"""Metrics that the judge of a fleet alone has."""


class Event(NamedTuple):
    """What one event promises: a log record with an event name.

    Attributes:
        name: Name of the event.
        description: One sentence.
        attributes: All that it can carry, in the documentation's order.
    """

    name: str
    description: str
    attributes: tuple[str, ...]


_ANOMALY_ATTRIBUTES: Final = (
    *MODEL_ATTRIBUTES,
    ANOMALY_TYPE,
    ANOMALY_MODELS,
    ANOMALY_VALUE,
    ANOMALY_BASELINE,
    ANOMALY_STATISTIC,
    ANOMALY_EVIDENCE,
    ANOMALY_OBSERVATIONS,
    ANOMALY_SINCE,
    BASELINE_SOURCE,
    CPU_ISA,
    INPUT_NAME,
    OUTPUT_NAME,
    ERROR_TYPE,
)
EVENT_ANOMALY_ENTERED: Final = Event(
    "quantmon.anomaly.entered",
    "Models have left their baseline.",
    (*_ANOMALY_ATTRIBUTES, ANOMALY_CAUSE, ANOMALY_LAYER, ANOMALY_REMEDY),
)
EVENT_ANOMALY_LEFT: Final = Event(
    "quantmon.anomaly.left",
    "Models are back at their baseline.",
    _ANOMALY_ATTRIBUTES,
)
EVENT_FAR_FROM_FLOAT: Final = Event(
    "quantmon.model.far_from_float",
    "A model was far from its float reference from the start; reported once.",
    (*MODEL_ATTRIBUTES, OUTPUT_NAME, REFERENCE_SOURCE, ANOMALY_VALUE, ANOMALY_STATISTIC),
)
_FLEET_ATTRIBUTES: Final = (
    *MODEL_ATTRIBUTES,
    ANOMALY_TYPE,
    FLEET_SCOPE,
    FLEET_HOSTS,
    FLEET_VERSIONS,
    FLEET_SERVICES,
    FLEET_LACKING,
    ANOMALY_VALUE,
    ANOMALY_BASELINE,
    ANOMALY_STATISTIC,
    ANOMALY_EVIDENCE,
    ANOMALY_OBSERVATIONS,
    INPUT_NAME,
    OUTPUT_NAME,
)
EVENT_FLEET_ANOMALY_ENTERED: Final = Event(
    "quantmon.fleet.anomaly.entered",
    "Something has changed in a fleet, and it is known where.",
    (*_FLEET_ATTRIBUTES, ANOMALY_CAUSE, ANOMALY_REMEDY),
)
EVENT_FLEET_ANOMALY_LEFT: Final = Event(
    "quantmon.fleet.anomaly.left",
    "A change in a fleet is over, or has been found to be elsewhere.",
    _FLEET_ATTRIBUTES,
)
EVENT_FLEET_HOSTS_DISAGREE: Final = Event(
    "quantmon.fleet.hosts.disagree",
    "Hosts make something else of golden inputs than the others.",
    (*MODEL_ATTRIBUTES, FLEET_HOSTS, FLEET_LACKING, ANOMALY_CAUSE, ANOMALY_REMEDY),
)
EVENT_SAMPLE: Final = Event(
    "quantmon.sample",
    "A call that is to be compared with the float reference elsewhere; the body holds its tensors.",
    (*MODEL_ATTRIBUTES, MODEL_DIGEST, MODEL_VERSION, SAMPLE_ID, SAMPLE_FORMAT, SAMPLE_LOCATION),
)
