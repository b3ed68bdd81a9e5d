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
        "_model",
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
        self._model = weakref.ref(model)
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

    @property
    def digest(self) -> str | None:
        """Of the model that made the series; None until it is known, and where models of any content share it."""
        model = self._model()
        return None if model is None or model.name != self.key[0] else model.digest
