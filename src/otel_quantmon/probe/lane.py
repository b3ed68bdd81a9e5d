"""The state of one method of one loaded model: all that the hot path reads and writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from otel_quantmon.hooks import Hooks
from otel_quantmon.probe.account import Account
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

__all__ = ["Lane", "Note", "NotedRecord"]


class Note(NamedTuple):
    """What is to be said of a call beyond its times; most calls have none.

    Attributes:
        error_type: None for a success.
        span: context of the sampled span that shows the call, for an exemplar.
        warmup: True if the lane was not warm.
        withheld: True if the span budget was what kept it from having a span.
        failed: True if it raised, and so has no output; a call that only overran its timeout has one.
        overhead: nanoseconds that the observation took around the call.
    """

    error_type: str | None = None
    span: SpanContext | None = None
    warmup: bool = False
    withheld: bool = False
    failed: bool = False
    overhead: int = 0


NotedRecord: TypeAlias = tuple[int, int, IO | None, Note]
"""A finished call of which there is more to say than its times: its end by `time.perf_counter_ns`, its duration in
nanoseconds, what it moved (None where `Lane.io` holds), and the rest."""


class Lane:
    """One method of one loaded model. Refers to the model's record, never to the runtime's object.

    Attributes:
        model, method, series, observer: what the lane belongs to.
        model_alive: False once the runtime's object has gone.
        ends, durations, moved: of the calls that wait to be recorded and of which there is nothing else to say,
            as in `NotedRecord`; successes of a warm lane that got no span, in mode ``auto`` because of the budget.
            Apart, since a tuple for each call costs a tenth of the whole observation more. Threads that end calls
            at once may append to one in another order than to the next, and exchange times that hardly differ. What
            calls moved is only there if the lane has a `measure`.
        noted: the other calls that wait. Appending is atomic, here and above.
        io: what every call moves, None where that is not fixed.
        measure: the method's, None where `io` holds for every call.
        limit: records that may wait in either before a caller takes them.
        account: what was taken from the lane and is not yet reported; of the recorder.
        in_flight: as long as calls are running. A list, since appending to it and popping are atomic where adding
            to a number is not.
        spans: the span mode in force.
        spans_in_context: False if no call gets a span.
        span_name: of every span of the lane.
        span_attributes: those that every span of the lane has, None until they are known.
        plain_spans: True if those are all that the span of a success has: shapes are fixed, and there are no hooks.
        credit: nanoseconds of the model's own time since its last root span. Threads may overwrite each other's
            addition; the budget is a rate, and loses nothing by it but a span.
        budget: share of the model's own time that root spans may cost, 0 where none is made for it.
        span_due: credit that a root span takes.
        to_warm_up: calls until this lane is warm.
        anomaly: that was found last, until a call has shown it.
        sampler: takes samples of the calls, None if they cannot be read.
        idle: True until there is somewhere to report to.
        careful: True if the next call has to take the slow way: for a timeout, a request hook, its span, a sample,
            or to be weighed.
        always_careful: True if every call has to, for one of the first three.
        weigh: True if the next call that nothing else is wanted of is to tell what the observation costs.
        overhead: nanoseconds that the observation takes of such a call, as lately weighed.
        hooks: of the application.
        hookless: True if there are none.
        timeout: seconds, None for no limit.
        timeouts: what ends a call at its timeout, None where the runtime has no way to.
    """

    __slots__ = (
        "__weakref__",
        "account",
        "always_careful",
        "anomaly",
        "budget",
        "careful",
        "credit",
        "durations",
        "ends",
        "hookless",
        "hooks",
        "idle",
        "in_flight",
        "io",
        "limit",
        "measure",
        "method",
        "model",
        "model_alive",
        "moved",
        "noted",
        "observer",
        "overhead",
        "plain_spans",
        "sampler",
        "series",
        "span_attributes",
        "span_due",
        "span_name",
        "spans",
        "spans_in_context",
        "timeout",
        "timeouts",
        "to_warm_up",
        "weigh",
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
        self.ends: list[int] = []
        self.durations: list[int] = []
        self.moved: list[IO | None] = []
        self.noted: list[NotedRecord] = []
        # Not the model's later on: records that wait when it is resized are of what it was.
        self.io = None if method.resizes else model.loaded.io
        # Of a model with one output of a fixed shape, every call moves the same.
        fixed = self.io is not None and len(model.loaded.outputs) <= 1
        self.measure = None if fixed else method.measure
        self.limit = observer.queue_size
        self.account = Account()
        self.in_flight: list[None] = []
        self.spans: SpanMode = settings.spans
        self.spans_in_context = settings.spans != "none"
        self.span_name = f"{SPAN_NAME_PREFIX} {model.name}"
        self.span_attributes: Attributes | None = None
        self.credit: float = 0
        self.budget = settings.span_budget if settings.spans == "auto" else 0.0
        self.span_due = math.inf
        self.pay_span()
        self.to_warm_up = settings.warmup
        self.hooks = hooks
        self.timeout = settings.timeout
        self.timeouts = timeouts if settings.timeout is not None else None
        self.anomaly: AnomalyType | None = None
        self.sampler: Sampler | None = None
        self.overhead = 0.0
        self.hookless = hooks.request is None and hooks.response is None
        self.plain_spans = self.io is not None and self.measure is None and self.hookless
        self.weigh = True
        self.always_careful = (
            settings.timeout is not None or hooks.request is not None or settings.spans == "all"
        )
        self.idle = True
        self.careful = True

    def wake(self) -> bool:
        """Begin to observe if there is somewhere to report to; no call is observed before, and none is missed."""
        # Asked at every call while the answer is no, so that the usual reason is looked for where it shows.
        awaited = self.observer.awaited
        if awaited is not None and awaited._real_instrument is None and trace._TRACER_PROVIDER is None:  # pyright: ignore[reportPrivateUsage]  see `Observer`
            return False
        if self.observer.idle():
            return False
        self.idle = False
        self.settle()
        return True

    def settle(self) -> None:
        """Decide anew which way calls take, after what was asked for has been taken up."""
        # In this order: who asks does so first and then sets the flag, and a wish must not be lost in between.
        self.careful = self.always_careful
        if self.weigh or self._asked():
            self.careful = True

    def ask_to_weigh(self) -> None:
        """Have one of the next calls weighed."""
        # In this order, see `settle`.
        self.weigh = True
        self.careful = True

    def starts_weighing(self) -> bool:
        """True if the call that is about to be made is to be weighed, which is asked once."""
        if not self.weigh or self.always_careful or self.to_warm_up > 0 or self._asked():
            return False
        self.weigh = False
        self.settle()
        return True

    def _asked(self) -> bool:
        return self.anomaly is not None or (self.sampler is not None and self.sampler.due)

    def learn_overhead(self, nanoseconds: int) -> None:
        """Learn from a call that was weighed."""
        self.overhead += (nanoseconds - self.overhead) * (0.1 if self.overhead else 1.0)

    def pay_span(self) -> None:
        """Begin anew to save for a root span, at what those cost lately."""
        self.credit = 0
        if self.budget > 0:
            self.span_due = self.observer.spans.cost / self.budget
