"""The state of one method of one loaded model: all that the hot path reads and writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from opentelemetry.trace import SpanContext

from otel_quantmon.hooks import Hooks
from otel_quantmon.probe.loaded import IO, Method
from otel_quantmon.semconv import SPAN_NAME_PREFIX

if TYPE_CHECKING:
    from otel_quantmon.probe.model import Model
    from otel_quantmon.probe.observer import Observer
    from otel_quantmon.probe.sampling import Sampler
    from otel_quantmon.probe.series import Series
    from otel_quantmon.probe.watchdog import Timeouts
    from otel_quantmon.semconv import AnomalyType, SpanMode
    from otel_quantmon.telemetry.instruments import Attributes

__all__ = ["Lane", "Note", "Record"]


class Note(NamedTuple):
    """What is to be said of a call beyond its times; most calls have none.

    Attributes:
        error_type: None for a success.
        span: context of the sampled span that shows the call, for an exemplar.
        warmup: True if the lane was not warm.
        withheld: True if the span budget was what kept it from having a span.
    """

    error_type: str | None = None
    span: SpanContext | None = None
    warmup: bool = False
    withheld: bool = False


Record: TypeAlias = tuple[int, int, int, IO | None, Note | None]
"""One finished call: start and end by `time.perf_counter_ns`, nanoseconds of observation around it, what it moved
(None where `Lane.io` holds), and the note. Without a note it was a success of a warm lane that got no span, in
mode ``auto`` because of the budget. A plain tuple, since building a named one takes twice as long."""


class Lane:
    """One method of one loaded model. Refers to the model's record, never to the runtime's object.

    Attributes:
        model, method, series, observer: what the lane belongs to.
        model_alive: False once the runtime's object has gone.
        pending, append: the records that wait, and the way in. A deque, since appending to it is atomic.
        io: what every call moves, None where that is not fixed.
        measure: the method's, None where `io` holds for every call.
        limit: records that may wait before a caller takes them.
        in_flight: start (`time.perf_counter_ns`) of each running call, by thread or by call. A dict, since
            setting and deleting a key are atomic where adding to a number is not.
        spans: the span mode in force.
        spans_in_context: False if no call gets a span.
        span_name: of every span of the lane.
        span_attributes: those that every span of the lane has, None until the first is made.
        credit: nanoseconds that root spans may still cost. Threads may overwrite each other's addition; the
            budget is a rate, and loses nothing by it but a span.
        budget: nanoseconds of credit for each nanosecond of the model's own time.
        span_cost: credit that a root span takes.
        to_warm_up: calls until this lane is warm.
        anomaly: that was found last, until a call has shown it.
        sampler: takes samples of the calls, None if they cannot be read.
        idle: True until there is somewhere to report to.
        careful: True if the next call has to take the slow way: for a timeout, a request hook, its span, a sample,
            or since the lane is idle.
        hooks: of the application.
        timeout: seconds, None for no limit.
        timeouts: what ends a call at its timeout, None where the runtime has no way to.
    """

    __slots__ = (
        "__weakref__",
        "anomaly",
        "append",
        "budget",
        "careful",
        "credit",
        "hooks",
        "idle",
        "in_flight",
        "io",
        "limit",
        "measure",
        "method",
        "model",
        "model_alive",
        "observer",
        "pending",
        "sampler",
        "series",
        "span_attributes",
        "span_cost",
        "span_name",
        "spans",
        "spans_in_context",
        "timeout",
        "timeouts",
        "to_warm_up",
    )

    def __init__(
        self,
        model: Model,
        method: Method,
        observer: Observer,
        hooks: Hooks,
        timeouts: Timeouts | None,
        model_alive: Callable[[], bool],
    ) -> None:
        settings = model.settings
        self.model = model
        self.method = method
        self.series: Series = observer.series(model)
        self.observer = observer
        self.model_alive = model_alive
        self.pending: deque[Record] = deque()
        self.append = self.pending.append
        # Not the model's later on: records that wait when it is resized are of what it was.
        self.io = None if method.resizes else model.loaded.io
        # Of a model with one output of a fixed shape, every call moves the same.
        fixed = self.io is not None and len(model.loaded.outputs) <= 1
        self.measure = None if fixed else method.measure
        self.limit = observer.queue_size
        self.in_flight: dict[object, int] = {}
        self.spans: SpanMode = settings.spans
        self.spans_in_context = settings.spans != "none"
        self.span_name = f"{SPAN_NAME_PREFIX} {model.name}"
        self.span_attributes: Attributes | None = None
        self.credit = 0.0
        self.budget = settings.span_budget if settings.spans == "auto" else 0.0
        self.span_cost = observer.spans.cost
        self.to_warm_up = settings.warmup
        self.hooks = hooks
        self.timeout = settings.timeout
        self.timeouts = timeouts if settings.timeout is not None else None
        self.anomaly: AnomalyType | None = None
        self.sampler: Sampler | None = None
        self.idle = True
        self.careful = True

    def wake(self) -> bool:
        """Begin to observe if there is somewhere to report to; no call is observed before, and none is missed."""
        if self.observer.idle():
            return False
        self.idle = False
        self.settle()
        return True

    def settle(self) -> None:
        """Decide anew which way calls take, after what was asked for has been taken up."""
        # In this order: who asks does so first and then sets the flag, and a wish must not be lost in between.
        self.careful = self.timeout is not None or self.hooks.request is not None or self.spans == "all"
        if self.anomaly is not None or (self.sampler is not None and self.sampler.due):
            self.careful = True
