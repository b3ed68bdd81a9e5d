"""A recorded baseline as the detectors' baselines: its cases are observed as calls of the application would be."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from otel_quantmon.detection.budget import Budget
from otel_quantmon.detection.model_streams import ModelStreams
from otel_quantmon.fidelity.baseline.file import Baseline
from otel_quantmon.fidelity.signals import Signals
from otel_quantmon.models.formats.facts import TensorFacts
from otel_quantmon.telemetry.events import Events

__all__ = ["states_of"]

# Cases that are looked at: each takes a fraction of a millisecond, and more say little more.
_MOST: Final = 1000


def states_of(baseline: Baseline, facts: Mapping[str, TensorFacts]) -> dict[str, dict[str, Any]]:
    """Return the states of streams for which the baseline has as many cases as a learnt one has observations.

    Not of durations: a file has those of some hundred calls of another process, and a detector would hear that.

    Args:
        baseline: Baseline of the model.
        facts: Facts of the model's inputs and outputs, by name.
    """
    streams = ModelStreams(baseline.model, Budget())
    signals = Signals(streams, {}, Events())
    for number, case in enumerate(islice(baseline.cases, _MOST)):
        signals.data(case.inputs, case.outputs, facts, float(number), None)
        streams.judge(float(number), 0)
    for name, output in baseline.output_statistics.items():
        _read(streams, "relative_error", name, output.relative_errors)
        _read(streams, "cosine", name, output.cosine_similarities)
        # Shares of rows are no decisions.
        if set(output.disagreements) <= {0.0, 1.0}:
            _read(streams, "disagreement", name, output.disagreements)
    floats = {
        name for case in baseline.cases[:1] for name, array in case.inputs.items() if array.dtype.kind == "f"
    }
    for name, given in baseline.input_statistics.items():
        if name in floats:
            _read(streams, "clipping", name, given.clip_ratios)
    return streams.states()


def _read(streams: ModelStreams, kind: str, of: str, values: tuple[float, ...]) -> None:
    for number, value in enumerate(values[:_MOST]):
        streams.read(kind, of, value, float(number))
    streams.judge(float(len(values)), 0)
