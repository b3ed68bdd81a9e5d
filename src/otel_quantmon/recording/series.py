"""What is aggregated for all loaded models that share the metric attributes of a model."""

from __future__ import annotations

import weakref
from functools import lru_cache
from typing import TypeAlias

from otel_quantmon import semconv
from otel_quantmon.detection.model_streams import ModelStreams
from otel_quantmon.fidelity.assessment import Assessment, Comparer
from otel_quantmon.fidelity.golden import Golden
from otel_quantmon.fidelity.inquiry import Inquiry
from otel_quantmon.models.identity import Model
from otel_quantmon.recording.latency import LatencyMonitor
from otel_quantmon.telemetry.instruments import Attributes

__all__ = ["Series", "SeriesKey", "attributes_of", "point_attributes"]

SeriesKey: TypeAlias = tuple[str, str, str, str]
"""Values of `semconv.MODEL_ATTRIBUTES`, in their order."""


def attributes_of(key: SeriesKey) -> Attributes:
    """Return the attributes that ``key`` stands for."""
    return dict(zip(semconv.MODEL_ATTRIBUTES, key, strict=True))


# More than 200 models have points; a collection that finds none of them here makes them anew.
@lru_cache(maxsize=8192)
def point_attributes(key: SeriesKey, *more: tuple[str, str | None]) -> Attributes:
    """Return the attributes of ``key`` and those of ``more`` that have a value, made once and not to be changed."""
    return {**attributes_of(key), **{name: value for name, value in more if value is not None}}


class Series:
    """The windows of one model's series. It lives as long as a loaded model refers to it.

    Attributes:
        key, attributes: Key and attributes of each of its points.
        calls: Finished calls, failed ones included.
        streams: Streams of the model, for detection.
        assessment: What samples say, None until calls can be sampled.
        comparer: What its samples are compared by, None if there is no reference.
        golden: Replays the baseline, None without one.
        inquiry: What was found out about the last anomaly of data; None before the first.
        io_bytes: Bytes of the inputs and outputs of the last call, None until one was seen.
    """

    __slots__ = (
        "__weakref__",
        "_digest",
        "_models",
        "assessment",
        "attributes",
        "calls",
        "comparer",
        "golden",
        "inquiry",
        "io_bytes",
        "key",
        "latency",
        "streams",
    )

    def __init__(self, key: SeriesKey, model: Model, streams: ModelStreams) -> None:
        settings = model.settings
        self._digest: str | None = None
        self._models: list[weakref.ref[Model]] = [weakref.ref(model)]
        self.streams = streams
        self.key = key
        self.attributes: Attributes = attributes_of(key)
        self.latency = LatencyMonitor(
            size=settings.window_size,
            age=settings.window_age,
            baseline_calls=settings.baseline_calls,
            baseline=settings.baseline_duration,
            watch=streams.durations,
        )
        self.assessment: Assessment | None = None
        self.comparer: Comparer | None = None
        self.golden: Golden | None = None
        self.inquiry: Inquiry | None = None
        self.calls = 0
        self.io_bytes: int | None = None

    def add(self, model: Model) -> None:
        """Take note of one more model of the series; those before it may go. For one thread at a time."""
        if all(known() is not model for known in self._models):
            self._models = [known for known in self._models if known() is not None] + [weakref.ref(model)]

    @property
    def digest(self) -> str | None:
        """Of the first model of the series, as long as there is one with this content.

        None until it is known, where no model of that content is left, since what was learnt is not of another, and
        where models of any content share the series.
        """
        live = [model for known in self._models if (model := known()) is not None]
        found = [model.digest for model in live if model.name == self.key[0] and model.digest is not None]
        if self._digest is None and found:
            self._digest = found[0]
        return self._digest if self._digest in found else None
