"""The calls that an application can have made for each span of an inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from opentelemetry.trace import Span

__all__ = ["NO_HOOKS", "Hooks", "InferenceCall", "RequestHook", "ResponseHook"]


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """One call of a runtime, as a hook sees it. Keep none of it beyond the hook.

    Attributes:
        model: name of the model, as in ``quantmon.model.name``.
        operation: method that was called, as in ``quantmon.operation.name``.
        instance: the session, interpreter, signature runner or compiled model.
        args, kwargs: as the application passed them.
    """

    model: str
    operation: str
    instance: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class RequestHook(Protocol):
    """Called before the inference runs, for each call whose span is known to be wanted by then.

    A call that gets its span only because it failed is given to the hook afterwards.
    """

    def __call__(self, span: Span, call: InferenceCall, /) -> None:
        """Add to ``span`` what ``call`` tells."""


class ResponseHook(Protocol):
    """Called before the span of an inference ends."""

    def __call__(self, span: Span, call: InferenceCall, result: Any, error: BaseException | None, /) -> None:
        """Add to ``span`` what the runtime's ``result`` tells, or its ``error`` (then ``result`` is None)."""


class Hooks(NamedTuple):
    """The hooks that an instrumentor was given."""

    request: RequestHook | None = None
    response: ResponseHook | None = None


NO_HOOKS = Hooks()
