"""Copies of a span that the SDK has made, which are made and read faster than the original.

A copy has other times, another context and another parent. Private parts of the SDK's spans are named here and in
`direct_span` alone, and `span_proof` shows that they are still what they were.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, SpanKind
from opentelemetry.util.types import AttributeValue

__all__ = ["MOULD", "Mould", "count_with", "hashed"]

MOULD: Final = "_quantmon_mould"
"""Attribute of a copy: its mould."""

_new: Callable[[type], Any] = object.__new__
_NO_PARENT = Context()


class Mould:
    """A span that the SDK has made, and copies of it with other times, another context and another parent.

    Each copy has containers of its own, as the SDK's spans have: an exporter that changes one changes no other. They
    are made when they are asked for, which is mostly on the exporter's thread.

    Args:
        tracer: Tracer of the SDK.
        name, attributes: Of the span.
        resource: Resource of the tracer, or what stands for it.
    """

    __slots__ = ("_kind", "_state", "containers")

    def __init__(
        self, tracer: Any, name: str, attributes: Mapping[str, AttributeValue], resource: Any
    ) -> None:
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        keeper = _Keeper()
        # The same limits, resource and scope; nobody hears of this span, and no number of the application's is used up.
        maker = copy.copy(tracer)
        maker.span_processor = keeper
        maker.sampler = ALWAYS_ON
        maker.id_generator = RandomIdGenerator()
        count_with(maker, _Uncounted())
        maker.start_span(name, _NO_PARENT, SpanKind.INTERNAL, attributes, None, 0).end(0)
        (span,) = keeper.spans
        made = span._attributes
        self.containers = {
            "_attributes": _copier(made, "_dict", made._dict.copy, _quickly_read(made.__class__)),
            "_events": _copier(span._events, "_dq", _emptied(span._events._dq)),
            "_links": _copier(span._links, "_dq", _emptied(span._links._dq)),
        }
        self._kind = _filled_late(span.__class__)
        state = {name: value for name, value in span.__dict__.items() if name not in self.containers}
        self._state: dict[str, Any] = {**state, "_resource": resource, MOULD: self}

    def cast(self, context: SpanContext, parent: SpanContext | None, start: int, end: int) -> Any:
        """One more span."""
        span = _new(self._kind)
        span.__dict__ = {
            **self._state,
            "_context": context,
            "_parent": parent,
            "_start_time": start,
            "_end_time": end,
        }
        return span


@lru_cache(maxsize=8)
def _filled_late(kind: type[Any]) -> type[Any]:
    """Return a class like ``kind``, the SDK's of spans, that gets its containers when they are asked for.

    The three of them took the caller as long as all the rest of a copy, and an exporter does not need those of events
    and links to learn that there are none.
    """

    def missing(self: Any, name: str) -> Any:
        state = self.__dict__
        make = state[MOULD].containers.get(name) if MOULD in state else None
        if make is None:
            raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}", name=name, obj=self)
        # Of threads that ask at once all get the same.
        return state.setdefault(name, make())

    def nothing_before(name: str, container: str, nothing: object) -> property:
        asked: Any = getattr(kind, name)

        def get(self: Any) -> Any:
            return asked.__get__(self, kind) if container in self.__dict__ else nothing

        return property(get)

    return _like(
        kind,
        __getattr__=missing,
        events=nothing_before("events", "_events", ()),
        dropped_events=nothing_before("dropped_events", "_events", 0),
        links=nothing_before("links", "_links", ()),
        dropped_links=nothing_before("dropped_links", "_links", 0),
    )


class _Keeper:
    """A processor that keeps the spans that have ended."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        pass

    def _on_ending(self, span: Any) -> None:
        pass

    def on_end(self, span: Any) -> None:
        self.spans.append(span)


class _Uncounted:
    """Stands for the SDK's metrics of its spans."""

    def start_span(self, *_: Any) -> Callable[[], None]:
        return lambda: None


def _copier(
    original: Any, content: str, elements: Callable[[], Any], like: type[Any] | None = None
) -> Callable[[], Any]:
    """Return what copies ``original``, a container of the SDK, with what ``elements`` makes as its ``content``.

    The copies are of the class ``like``, where one is given.
    """
    kind: type[Any] = like or original.__class__
    state: dict[str, Any] = original.__dict__.copy()
    # Each its own: a fork would leave one that all of them share locked for ever.
    lock = threading.Lock if type(state["_lock"]) is type(threading.Lock()) else threading.RLock

    def copied() -> Any:
        made = _new(kind)
        made.__dict__ = {**state, content: elements(), "_lock": lock()}
        return made

    return copied


def _emptied(elements: deque[Any]) -> Callable[[], Any]:
    """Return what makes lists that look like ``elements``, an empty deque, of which each takes 624 bytes and 0.4 µs."""
    if elements:
        raise ValueError("a span that nothing was added to has events or links")
    return _elements(elements.maxlen)


@lru_cache(maxsize=8)
def _elements(most: int | None) -> type[list[Any]]:
    # Not for each mould: a class takes as long as a span, and is only freed by a collection of garbage.
    return type("_Elements", (list,), {"__slots__": (), "maxlen": most})


@lru_cache(maxsize=8)
def _quickly_read(kind: type[Any]) -> type[Any]:
    """Return a class like ``kind``, the SDK's of attributes, that takes a tenth of the time to go through its items."""

    def items(self: Any) -> Any:
        return self._dict.items()

    return _like(kind, items=items)


def hashed(resource: Any) -> Any:
    """Return ``resource`` once more, with the same state and a hash that is known.

    Exporters group spans by their resource, and to find its hash the SDK makes a text of it in JSON each time. With the
    attributes, that is a fifth of what it costs to encode a span.
    """
    kind: type[Any] = resource.__class__
    number = hash(resource)

    def equal(self: object, other: object) -> Any:
        return self is other or other is resource or resource == other

    def known_hash(_: object) -> int:
        return number

    made = _new(_like(kind, __eq__=equal, __hash__=known_hash))
    made.__dict__ = resource.__dict__
    return made


def _like(kind: type[Any], **members: Any) -> type[Any]:
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), named | members)


def count_with(tracer: Any, metrics: Any) -> None:
    """Have ``metrics`` count the spans of ``tracer``, a tracer of the SDK, if that counts them at all."""
    if hasattr(tracer, "_tracer_metrics"):
        tracer._tracer_metrics = metrics
