"""Every setting, once: what declares, reads, validates and documents a setting goes by this table.

To add one, write its line here and its field in `records.py`; the tests name what else is to follow
(the constants, `schema.json` and `docs/configuration.md`, which `tests/settings/rendering.py` writes).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag
from typing import Any

from .kinds import (
    BOOLEAN,
    DURATION,
    FOLDER,
    FOLDER_OR_URL,
    LABEL,
    LABELS,
    NAMES,
    OPTIONAL_DURATION,
    PATH,
    RATIO,
    REFERENCE,
    REFERENCES,
    SIZE,
    Kind,
    choice,
    choices,
    integer,
    positive,
)

__all__ = ["OTEL_PREFIX", "PREFIX", "TABLE", "Place", "Setting", "settings_at"]

PREFIX = "QUANTMON_"
# `opentelemetry-instrument` makes a flag only of a variable that starts with OTEL_, and strips OTEL_PYTHON_.
OTEL_PREFIX = "OTEL_PYTHON_QUANTMON_"


class Place(Flag):
    """Where a setting may be given."""

    ENVIRONMENT = 1
    FILE = 2
    MODEL = 4  # a [models."name or glob"] section of the file


_PROCESS = Place.ENVIRONMENT | Place.FILE
_ANYWHERE = _PROCESS | Place.MODEL


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: The TOML key, and the name of the field.
        kind: Kind of the value, which says how it is read.
        default: Default, as one would write it in the file; None when there is no value by default.
        places: Places where it may be given.
        help: One line, for the documentation.
    """

    name: str
    kind: Kind
    default: Any
    places: Place
    help: str


ANOMALIES = (
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
)
"""Those of `semconv.AnomalyType`, which is not loaded at the start of a process without a model."""

# fmt: off
TABLE: tuple[Setting, ...] = (
    Setting("config", PATH, None, Place.ENVIRONMENT,
            "TOML file to read settings from."),
    Setting("enabled", BOOLEAN, True, _ANYWHERE,
            "Whether to observe: everything, or the model of the section."),
    Setting("spans", choice("auto", "all", "parent", "none"), "auto", _ANYWHERE,
            "Which inferences get a span: under a recording parent and, within the span budget, without one "
            "(auto); every one (all); under a recording parent only (parent); none (none)."),
    Setting("span_budget", RATIO, 0.05, _ANYWHERE,
            "Share of the model's own time that spans without a parent may cost, with spans = auto."),
    Setting("timeout", OPTIONAL_DURATION, "none", _ANYWHERE,
            "Longest time one inference may take; ONNX Runtime is stopped then, TFLite is only reported."),
    Setting("warmup", integer(0, 1_000_000), 10, _ANYWHERE,
            "Calls at the start that the window and the baseline leave out."),
    Setting("window_size", integer(1, 1_000_000), 1000, _ANYWHERE,
            "Calls in the sliding window once there were so many, and up to a quarter more."),
    Setting("window_age", DURATION, "5m", _ANYWHERE,
            "Age up to which a call stays in the sliding window; it leaves within a quarter more."),
    Setting("baseline_calls", integer(1, 1_000_000), 100, _ANYWHERE,
            "Calls after the warm-up from which the baseline duration is learnt, for each class of shapes."),
    Setting("baseline_duration", OPTIONAL_DURATION, "none", _ANYWHERE,
            "Duration to compare all calls with, whatever their shapes, instead of learning it."),
    Setting("max_models", integer(1, 10_000), 200, _PROCESS,
            "Model names that get series of their own, at most."),
    Setting("queue_size", integer(1, 1_000_000), 512, _PROCESS,
            "Finished calls of one model and method that wait before a caller records them itself."),
    Setting("exit_timeout", OPTIONAL_DURATION, "1s", _PROCESS,
            "Longest time that a child of multiprocessing may take at its end to export what it has counted; with "
            "none it ends at once."),
    Setting("capture_model_path", BOOLEAN, False, _PROCESS,
            "Whether spans may carry the full path of the model file."),
    Setting("reference", REFERENCES, {}, _PROCESS,
            "Float reference models, by the name or path (or a glob of either) or the digest of the quantized model; "
            "with remote, samples leave the process and are evaluated elsewhere."),
    Setting("reference", REFERENCE, None, Place.MODEL,
            "Float reference of the model; with remote, samples leave the process and are evaluated elsewhere."),
    Setting("reference_mapping", LABELS, {}, Place.MODEL,
            "Names of inputs and outputs in the reference, by their names in the model, where they differ."),
    Setting("reference_budget", RATIO, 0.01, _PROCESS,
            "Share of one core that reference runs may use."),
    Setting("reference_discovery", BOOLEAN, False, _PROCESS,
            "Whether to look for a reference beside the model by naming convention."),
    Setting("reference_queue", integer(1, 1024), 8, _PROCESS,
            "Captured calls that may wait for a reference run, at most."),
    Setting("reference_timeout", DURATION, "30s", _PROCESS,
            "Longest time one reference run may take."),
    Setting("reference_batch", integer(1, 1024), 1, Place.MODEL,
            "Samples that quantmon evaluate runs the reference on at once, where its first dimension is dynamic."),
    Setting("remote_directory", FOLDER, None, _PROCESS,
            "Folder that samples for a remote reference are written to, instead of events."),
    Setting("remote_store", FOLDER_OR_URL, None, _PROCESS,
            "Folder or URL of fsspec for samples that are too large for an event."),
    Setting("remote_size", SIZE, "512KiB", _PROCESS,
            "Size of a compressed sample in an event, at most."),
    Setting("remote_interval", DURATION, "1s", _ANYWHERE,
            "Time between two samples of a model that leave the process, at least."),
    Setting("remote_inputs", NAMES, None, _ANYWHERE,
            "Inputs that may leave the process; all without it."),
    Setting("capture_bytes", SIZE, "64MiB", _PROCESS,
            "Memory that captured tensors may hold, at most."),
    Setting("baseline", PATH, None, _ANYWHERE,
            "Golden baseline file to replay."),
    Setting("baseline_interval", DURATION, "5m", _PROCESS,
            "Time between two replays of a golden baseline."),
    Setting("check_budget", RATIO, 0.02, _PROCESS,
            "Share of the model's own time for checks without a reference; of short calls one in 100 is checked."),
    Setting("anomalies", choices(*ANOMALIES), None, _ANYWHERE,
            "Types of anomaly that are looked for; all without it."),
    Setting("anomaly_change", RATIO, 0.0, _ANYWHERE,
            "Least change worth reporting, as a share of the baseline."),
    Setting("false_alarms", positive(1e6), 1.0, _PROCESS,
            "False alarms in a million calls of the process, at most."),
    Setting("judgement_interval", DURATION, "100ms", _PROCESS,
            "Time between two judgements while there are calls, at least."),
    Setting("baseline_state", FOLDER, None, _PROCESS,
            "Folder that keeps learnt baselines between starts, by digest and host type."),
    Setting("name", LABEL, None, Place.MODEL,
            "Name to report instead of the one that was matched."),
    Setting("version", LABEL, None, Place.MODEL,
            "Version to report."),
)
# fmt: on


def settings_at(place: Place) -> dict[str, Setting]:
    """Return the settings that may be given at a place, by name."""
    return {setting.name: setting for setting in TABLE if place in setting.places}
