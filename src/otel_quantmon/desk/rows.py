"""What the queries of a run return: plain values, times in nanoseconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from otel_quantmon.desk.histogram import Histogram

__all__ = ["Event", "Interval", "Model", "Process", "Quantiles", "Reading", "Span"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model.

    Attributes:
        id: Key of the model in this file.
        name, runtime, scheme: Together they identify a model.
        provider: Execution provider or delegate last heard of.
        info: Attributes of ``quantmon.model.info``.
    """

    id: int
    name: str
    runtime: str
    scheme: str
    provider: str | None
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has sent something. ``resource`` has all its attributes."""

    id: int
    instance: str
    service: str
    pid: int | None
    first_seen: int
    last_seen: int
    resource: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of durations, in seconds; None where they are not known. ``exact`` is False for those made of buckets."""

    p50: float | None
    p95: float | None
    p99: float | None
    exact: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """The last value of a gauge, or the total of a sum.

    Attributes:
        process: Id of the process.
        attributes: Attributes, without those of the model.
        time: Time of the last point.
        value: Value of that point, or the total.
    """

    process: int
    attributes: dict[str, Any]
    time: int
    value: float


@dataclass(frozen=True, slots=True)
class Interval:
    """What all processes together added in a piece of time: ``start`` is excluded, ``time`` included."""

    start: int
    time: int
    values: Histogram


@dataclass(frozen=True, slots=True)
class Span:
    """A span; ``model`` is the name of the inference's model, None for other spans. Ids are hexadecimal."""

    id: int
    trace_id: str
    span_id: str
    parent_id: str | None
    process: int
    model: str | None
    name: str
    kind: int
    scope: str
    operation: str | None
    start: int
    duration: float
    status: int
    error_type: str | None
    message: str | None
    attributes: dict[str, Any]
    events: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Event:
    """An event of otel-quantmon, such as ``quantmon.anomaly.entered``. Ids are hexadecimal, None if it has none."""

    id: int
    process: int
    model: str | None
    time: int
    name: str
    severity: int
    body: str | None
    attributes: dict[str, Any]
    trace_id: str | None
    span_id: str | None
