"""The calls that an application can have made for each span of an inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from otel_quantmon.telemetry.api import Span

__all__ = [
    "NO_HOOKS",
    "Anomaly",
    "AnomalyHook",
    "Hooks",
    "InferenceCall",
    "RequestHook",
    "ResponseHook",
    "SampleHook",
]


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """One call of a runtime, as a hook sees it. Keep none of it beyond the hook.

    Attributes:
        model: Name of the model, as in ``quantmon.model.name``.
        operation: Method that was called, as in ``quantmon.operation.name``.
        instance: The session, interpreter, signature runner or compiled model; None for a session that was dropped
            before its `run_async` was over.
        args, kwargs: Arguments, as the application passed them.
    """

    model: str
    operation: str
    instance: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A stream of a model has left its baseline, or is back at it.

    Attributes:
        what: ``entered`` or ``left``.
        type: Type of anomaly, a value of ``quantmon.anomaly.type``.
        model: Name of the model, as in ``quantmon.model.name``; empty for what is laid to none, such as memory.
        of: Part of the model that it is of, such as an output's name; may be empty.
        value, baseline: Statistic of the stream since the change and of its baseline, in the stream's unit.
        evidence: A stream without a change reaches it at most once in so many observations; None for a fact.
        observations: Number of observations since the estimated change.
    """

    what: Literal["entered", "left"]
    type: str
    model: str
    of: str
    value: float
    baseline: float
    evidence: float | None
    observations: int


class AnomalyHook(Protocol):
    """Called on a background thread when a model becomes anomalous, and when it is well again."""

    def __call__(self, anomaly: Anomaly, /) -> None:
        """Take note of ``anomaly``. It is not to block: other models are judged after it returns."""


class RequestHook(Protocol):
    """Called before the inference runs, for each call whose span is known to be wanted by then.

    A call that gets its span only because it failed is given to the hook afterwards.
    """

    def __call__(self, span: Span, call: InferenceCall, /) -> None:
        """Add to ``span`` what is known from ``call``."""


class ResponseHook(Protocol):
    """Called before the span of an inference ends."""

    def __call__(self, span: Span, call: InferenceCall, result: Any, error: BaseException | None, /) -> None:
        """Add to ``span`` what is known from the runtime's ``result``, or its ``error`` (then ``result`` is None)."""


class SampleHook(Protocol):
    """Called on a background thread for each sample that is about to leave the process for a remote reference."""

    def __call__(self, model: str, inputs: dict[str, Any], outputs: dict[str, Any], /) -> bool:
        """Return True to let the sample leave; what is removed from ``inputs`` or ``outputs``, or replaced, does not.

        The outputs are compared with what the float model makes of the inputs: where a value is replaced, that is no
        longer the distance from float. If it raises, the sample does not leave.
        """
        ...


class Hooks(NamedTuple):
    """The hooks that an instrumentor was given."""

    request: RequestHook | None = None
    response: ResponseHook | None = None


NO_HOOKS = Hooks()
