"""The state of one method of one loaded model: all that the hot path reads and writes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from otel_quantmon.hooks import Hooks
from otel_quantmon.models.description import CallKind, KindOf, Method, Shapes, declared_shapes
from otel_quantmon.models.identity import Model
from otel_quantmon.probe.sampling import Sampler
from otel_quantmon.process.watchdog import Timeouts
from otel_quantmon.recording.pending import PendingCalls
from otel_quantmon.recording.recorder import Recorder
from otel_quantmon.recording.series import Series
from otel_quantmon.semconv import SPAN_NAME_PREFIX, AnomalyType
from otel_quantmon.telemetry.providers import Providers
from otel_quantmon.telemetry.spans import SpanTemplate

__all__ = ["CallState"]

# Nanoseconds that hardly a runtime is faster than: its call through Python alone takes as long.
_SHORT_CALL = 1_000


class CallState(PendingCalls):
    """One method of one loaded model. Refers to the model's record, never to the runtime's object.

    Args:
        model: Model that is called.
        method: Method of the calls.
        series: Series that the calls belong to.
        recorder: Recorder that takes the calls.
        providers: Where the calls are reported.
        hooks: Hooks of the application.
        timeouts: What ends a call at its timeout, None where the runtime has no way to.
        model_alive: Tells whether the runtime's object is still there.

    Attributes:
        model, recorder, providers, hooks, timeouts: As given.
        measure: Measures what a call moves, None where `io` holds for every call.
        kind_of: Tells the kind of a call in place of `measure`, None where only that can.
        fed, array, size_of, kinds_by_size: As in `Kinds`, so that most kinds are found without a call.
        fixed_shapes: True if the spans of all calls have the same shapes.
        spans_in_context: False if no call gets a span.
        span_name: Name of every span of the call state.
        span_template: What every span of the call state has, None until that is known.
        span_templates: The same with the shapes of a call, by these, for the first that were met.
        credit: Nanoseconds of the model's own time since its last root span. Threads may overwrite each other's
            addition; the budget is a rate, and loses nothing by it but a span.
        budget: Share of the model's own time that root spans may cost, 0 where none is made for it.
        span_due: Credit that a root span takes.
        look_at: Credit at which a call is to `look` whether there is more to it than its times.
        to_warm_up: Calls until this call state is warm.
        anomaly: Type of the anomaly that was found last, until a call has shown it.
        sampler: Takes samples of the calls, None if they cannot be read.
        asleep: True until there has been somewhere to report to.
        slow: True if there is nowhere, or the next call has to take the slow path: for a timeout, a request hook, its
            span, a sample, or to be calibrated.
        always_slow: True if every call has to, for one of the first three.
        calibrate: True if the next call that takes the fast path is to be timed from outside, for what its observation
            costs.
        hookless: True if there are no hooks.
    """

    __slots__ = (
        "always_slow",
        "anomaly",
        "array",
        "asleep",
        "budget",
        "calibrate",
        "credit",
        "fed",
        "fixed_shapes",
        "hookless",
        "hooks",
        "kind_of",
        "kinds_by_size",
        "look_at",
        "measure",
        "model",
        "providers",
        "recorder",
        "sampler",
        "size_of",
        "slow",
        "span_due",
        "span_name",
        "span_template",
        "span_templates",
        "spans_in_context",
        "timeouts",
        "to_warm_up",
    )

    def __init__(
        self,
        model: Model,
        method: Method,
        series: Series,
        recorder: Recorder,
        providers: Providers,
        hooks: Hooks,
        timeouts: Timeouts | None,
        model_alive: Callable[[], bool],
    ) -> None:
        settings = model.settings
        # Not the model's later on: calls that wait when it is resized are of what it was.
        io = None if method.resizes else model.loaded.io
        # Of a model with one output of a fixed shape, every call moves the same.
        fixed = io is not None and len(model.loaded.outputs) <= 1
        self.measure = None if fixed else method.measure or model.loaded.measure
        super().__init__(
            method,
            series,
            io=io,
            measure_calls=self.measure is not None,
            limit=recorder.limit,
            span_mode=settings.spans,
            timeout=settings.timeout,
            model_alive=model_alive,
        )
        self.model = model
        self.recorder = recorder
        self.providers = providers
        self.kind_of: KindOf | None = None
        self.fed: str | None = None
        self.array: type | None = None
        self.size_of: Callable[[Any], object] = len
        self.kinds_by_size: Mapping[object, CallKind] = {}
        kinds = method.kinds(model.loaded) if self.measure is not None and method.kinds is not None else None
        if kinds is not None:
            self.kind_of, self.fed, self.array, self.size_of, self.kinds_by_size = kinds
        self.fixed_shapes = io is not None or method.shapes is declared_shapes
        self.spans_in_context = settings.spans != "none"
        self.span_name = f"{SPAN_NAME_PREFIX} {model.name}"
        self.span_template: SpanTemplate | None = None
        self.span_templates: dict[Shapes, SpanTemplate] = {}
        self.credit = 0
        self.budget = settings.span_budget if settings.spans == "auto" else 0.0
        self.span_due = sys.maxsize
        self.look_at = 0
        self.pay_span()
        self.to_warm_up = settings.warmup
        self.hooks = hooks
        self.timeouts = timeouts if settings.timeout is not None else None
        self.anomaly: AnomalyType | None = None
        self.sampler: Sampler | None = None
        self.hookless = hooks.request is None and hooks.response is None
        self.calibrate = True
        self.always_slow = (
            settings.timeout is not None or hooks.request is not None or settings.spans == "all"
        )
        self.asleep = True
        self.slow = True

    def wake(self) -> bool:
        """Begin to observe if there is somewhere to report to; no call is observed before, and none is missed."""
        if self.providers.idle():
            return False
        self.asleep = False
        self.settle()
        return True

    def settle(self) -> None:
        """Decide anew which way calls take, after what was asked for has been taken up."""
        # In this order: who asks does so first and then sets the flag, and a wish must not be lost in between.
        self.slow = self.always_slow
        if self.calibrate or self._asked():
            self.slow = True

    def ask_to_calibrate(self) -> None:
        """Have one of the next calls calibrated."""
        # In this order, see `settle`.
        self.calibrate = True
        self.slow = True

    def ask_for_sample(self) -> None:
        """See `SampledCalls`."""
        self.slow = True

    def show_anomaly(self, kind: AnomalyType) -> None:
        """See `SampledCalls`."""
        self.anomaly = kind
        self.slow = True

    def learn_check_cost(self, nanoseconds: int) -> None:
        """See `SampledCalls`."""
        if self.sampler is not None:
            self.sampler.spent(nanoseconds)

    def check_closely(self, count: int) -> None:
        """See `SampledCalls`."""
        if self.sampler is not None:
            self.sampler.check_closely(count)

    def forget_checks(self) -> None:
        """See `SampledCalls`."""
        if self.sampler is not None:
            self.sampler.forget()

    def recorded(self, nanoseconds: int, calls: int) -> None:
        """See `PendingCalls`: so much more time may be checked in."""
        if self.sampler is not None:
            self.sampler.add_budget(nanoseconds * self.recorder.check_budget, calls)

    def reported(self) -> None:
        """See `PendingCalls`."""
        # Not whenever calls are recorded: a call right after that is slow, since they have driven it from the caches.
        self.ask_to_calibrate()

    def starts_calibrating(self) -> bool:
        """Return True if the call that is about to be made is to be calibrated, which is asked once."""
        if not self.calibrate or self.always_slow or self.to_warm_up > 0 or self._asked():
            return False
        self.calibrate = False
        self.settle()
        return True

    def _asked(self) -> bool:
        return self.anomaly is not None or (self.sampler is not None and self.sampler.due)

    def learn_overhead(self, took: int, waiting: int) -> None:
        """Learn from a call that was calibrated: nanoseconds that it took with its observation.

        Args:
            took: Those nanoseconds.
            waiting: Durations that waited before it.
        """
        # In one step, since a collection may take them. Of several the last may be of another thread's call.
        own = self.durations[waiting:]
        if len(own) == 1:
            self.overhead += (took - own[0] - self.overhead) * (0.1 if self.overhead else 1.0)

    def pay_span(self) -> None:
        """Begin anew to save for a root span, at what those cost lately."""
        # Whole numbers, which are compared in half the time.
        self.credit = self.look_at = 0
        if self.budget > 0:
            self.span_due = min(int(self.providers.spans.cost / self.budget), sys.maxsize)

    def look(self, credit: int, duration: int) -> bool:
        """Return True if a call of such a ``duration`` is to be completed, with ``credit``; else see what waits.

        To ask for each at each call would cost it a tenth more.
        """
        if self.to_warm_up > 0 or credit >= self.span_due:
            return True
        left = self.limit - len(self.durations) - 1
        if left <= 0:
            self.recorder.flush(self)
            left = self.limit - len(self.durations) - 1
        # Until then hardly more calls can have ended than may still wait.
        self.look_at = min(credit + left * min(duration // 4, _SHORT_CALL), self.span_due)
        return False
