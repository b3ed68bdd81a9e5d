"""What is aggregated for all loaded models that share the metric attributes of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from otel_quantmon import semconv
from otel_quantmon.monitors.latency import LatencyMonitor
from otel_quantmon.monitors.memory import GrowthMonitor
from otel_quantmon.settings import ModelSettings
from otel_quantmon.telemetry.instruments import Attributes

if TYPE_CHECKING:
    from otel_quantmon.probe.fidelity import Fidelity
    from otel_quantmon.probe.shadow import Shadow

__all__ = ["Series", "SeriesKey", "attributes_of"]

SeriesKey: TypeAlias = tuple[str, str, str, str]
"""Values of `semconv.MODEL_ATTRIBUTES`, in their order."""


def attributes_of(key: SeriesKey) -> Attributes:
    """The attributes that ``key`` stands for."""
    return dict(zip(semconv.MODEL_ATTRIBUTES, key, strict=True))


class Series:
    """The windows of one model's series. It lives as long as a loaded model refers to it.

    Attributes:
        key, attributes: of each of its points.
        calls: finished calls, failed ones included.
        fidelity: what samples tell, None until a lane can be sampled.
        shadow: the float reference, None if there is none.
        io_bytes: of inputs and outputs of the last call, None until one was seen.
    """

    __slots__ = (
        "__weakref__",
        "attributes",
        "calls",
        "fidelity",
        "growth",
        "io_bytes",
        "key",
        "latency",
        "shadow",
    )

    def __init__(self, key: SeriesKey, settings: ModelSettings) -> None:
        self.key = key
        self.attributes: Attributes = attributes_of(key)
        self.latency = LatencyMonitor(
            size=settings.window_size,
            age=settings.window_age,
            baseline_calls=settings.baseline_calls,
            baseline=settings.baseline_duration,
        )
        self.growth = GrowthMonitor()
        self.fidelity: Fidelity | None = None
        self.shadow: Shadow | None = None
        self.calls = 0
        self.io_bytes: int | None = None
