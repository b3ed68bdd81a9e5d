"""Once in each judgement interval, on the worker: what was observed is judged, and what was found is reported."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter, thread_time
from typing import cast

from otel_quantmon import semconv
from otel_quantmon.detection.kept import Earlier, KeptBaselines
from otel_quantmon.detection.life_cycle import News, ObservedCall, Transition
from otel_quantmon.detection.model_streams import Found
from otel_quantmon.detection.monitor import Monitor
from otel_quantmon.guard import internal_error, pass_on
from otel_quantmon.hooks import Anomaly, AnomalyHook
from otel_quantmon.models.graph_health import is_everywhere, is_plain
from otel_quantmon.process.host import resident_memory
from otel_quantmon.process.worker import worker
from otel_quantmon.recording.announcement import attributes_of_news, sentence
from otel_quantmon.recording.diagnosis import OF_DATA
from otel_quantmon.recording.escalation import inquire
from otel_quantmon.recording.recorder import Recorder
from otel_quantmon.recording.series import Series
from otel_quantmon.telemetry.api import SpanContext
from otel_quantmon.telemetry.instruments import Attributes
from otel_quantmon.telemetry.providers import Providers

__all__ = ["Judging"]

_logger = logging.getLogger("otel_quantmon")

# A judgement may take so much of one core: where it takes long, the next one is so many times as far away.
_SHARE = 50.0
_LONGEST_JUDGEMENT = 0.02  # seconds of it that count: no judgement is put off for more than a second

# Share of an alarm's evidence from which calls are checked one after the other, and judged so many times as often. It
# costs less than the reference, which waits for half.
_CHECK_CLOSELY = 1 / 3
_SOONER = 4.0

# Without calls the next judgement is twice as far away each time, and after so many seconds there is none until
# there are calls again.
_LONGEST_WAIT = 60.0


class Judging:
    """Takes what waits, has it judged, and reports what has changed.

    Args:
        recorder: Recorder of the calls.
        monitor: Monitor that judges.
        providers: Providers to report to.
        live_series: A function that gives the series of models that are alive.
        interval: Seconds between two judgements, at least.
        kept: Learnt baselines of earlier starts, None where none are kept.
        show: Makes a root span of a call that no span has shown, and returns its context. None for no spans.
        inquiry_timeout: Seconds that a report waits for what is found out about an anomaly of data.
    """

    def __init__(
        self,
        recorder: Recorder,
        monitor: Monitor,
        providers: Callable[[], Providers],
        live_series: Callable[[], list[Series]],
        interval: float,
        kept: KeptBaselines | None = None,
        *,
        show: Callable[[Series, semconv.AnomalyType, ObservedCall], SpanContext | None] | None = None,
        inquiry_timeout: float = 30.0,
    ) -> None:
        self._recorder = recorder
        self._monitor = monitor
        self._providers = providers
        self._live_series = live_series
        self._interval = interval
        self._kept = kept
        self._show = show
        self._inquiry_timeout = inquiry_timeout
        # Empty while a judgement is arranged for.
        self._idle = [None]
        self._wait = interval
        self._closely = False
        self._unkept = False
        self._forget_calls()
        self.hooks: list[AnomalyHook] = []

    def arm(self) -> None:
        """Judge in a while, and again for as long as there are calls."""
        if not self._idle:
            return
        # In one step: of two threads that come at once, one arranges for it.
        try:
            self._idle.pop()
        except IndexError:
            return
        self._wait = self._interval
        try:
            worker.submit(self._tick, self._interval)
        except Exception as error:  # noqa: BLE001  without a thread calls are counted all the same
            internal_error(error)

    def after_fork(self) -> None:
        """In a child: the timer ran on a thread of the parent. It starts anew with the first calls here."""
        self._idle = [None]
        self._forget_calls()
        self._monitor.reset()

    def _forget_calls(self) -> None:
        # By name of the model, of which there are so many at most. That a model has gone makes them no fewer.
        self._calls: dict[str, int] = {}
        # What of each series is in them.
        self._counted: weakref.WeakKeyDictionary[Series, int] = weakref.WeakKeyDictionary()

    def _count(self, series: Sequence[Series]) -> bool:
        """Add the calls since the last time; True if there were any."""
        called = False
        for one in series:
            calls = one.calls
            more = calls - self._counted.get(one, 0)
            if more:
                called = True
                self._counted[one] = calls
                self._calls[one.key[0]] = self._calls.get(one.key[0], 0) + more
        return called

    def _tick(self) -> None:
        began, began_cpu = perf_counter(), thread_time()
        called = True  # also where the judgement has failed: the next one need not
        try:
            called = self.run()
        finally:
            # Not the time in which others had the processor. And tables of bets are made once: no more of that comes.
            self._go_on(called, began, min(thread_time() - began_cpu, _LONGEST_JUDGEMENT))

    def _go_on(self, called: bool, now: float, spent: float) -> None:
        """Arrange for the next judgement after one that took ``spent`` seconds, if there were calls lately."""
        self._wait = self._interval if called else 2 * self._wait
        # After the end of the provider calls are judged all the same, for the hooks; but none is waited for.
        if self._wait > max(_LONGEST_WAIT, self._interval) or (not called and self._providers().shut_down()):
            # Also what waits for more to be found out: nothing may follow.
            for news in self._monitor.news(now, at_once=True):
                self._announce(news)
            self._idle.append(None)
        else:
            wait = self._wait / _SOONER if self._closely else self._wait
            worker.submit(self._tick, max(wait, _SHARE * spent))

    def run(self, *, at_once: bool = False) -> bool:
        """Have judged what has come by now, and report what was found; True if there were calls.

        Args:
            at_once: True if what is found is not to wait for what happens to other models meanwhile.
        """
        worker.counts_elsewhere(self._recorder.take())
        now = perf_counter()
        series = self._live_series()
        if self._kept is not None:
            for one in series:
                if one.digest is not None:
                    earlier = self._kept.bring(one.streams, one.digest, one.key[3])
                    _compare_with_earlier(one, one.digest, earlier, now)
        _check_waiting(series)
        found = self._monitor.judge(now)
        called = self._count(series)
        if called:
            found += self._monitor.memory(self._calls, resident_memory(), now)
        by_streams = {one.streams: one for one in series}
        for change in found:
            self._report(change, None if change.streams is None else by_streams.get(change.streams))
        self._closely = False
        for one in series:
            if one.assessment is not None and one.streams.suspicious(_CHECK_CLOSELY):
                self._closely = True
                one.assessment.check_closely(now)
                if one.streams.suspicious():
                    one.assessment.look_closer(now)
        if self._kept is not None:
            self._keep(self._kept, series, now)
        for news in self._monitor.news(now, at_once=at_once, held=self._held):
            self._announce(news)
        return called

    def _keep(self, kept: KeptBaselines, series: Sequence[Series], now: float) -> None:
        learnt = [(one.streams, digest, one.key[3]) for one in series if (digest := one.digest) is not None]
        try:
            kept.write(learnt, now)
        except OSError as error:
            pass_on(error)
            # As where the disk is full: it is tried again, and is not to cost what there is to tell.
            if not self._unkept:
                _logger.warning("learnt baselines cannot be kept: %s; it is tried again", error)
            self._unkept = True
        else:
            self._unkept = False

    def _report(self, found: Found, series: Series | None) -> None:
        transition = found.transition
        kind = cast("semconv.AnomalyType", transition.kind)
        if transition.what == "entered":
            attributes: Attributes = {} if series is None else dict(series.attributes)
            self._providers().instruments.anomalies.add(1, {**attributes, semconv.ANOMALY_TYPE: kind})
            if series is not None:
                found = found._replace(transition=self._shown(transition, kind, series))
                inquire(series, kind, transition.at, self._inquiry_timeout)
        self._monitor.announce(found)
        judgement = transition.judgement
        anomaly = Anomaly(
            what=transition.what,
            type=kind,
            model="" if series is None else series.key[0],
            of=transition.of or judgement.stream,
            value=judgement.value,
            baseline=judgement.baseline,
            evidence=judgement.evidence,
            observations=judgement.observations,
        )
        # Both instrumentors may have been given the same one.
        for hook in {id(hook): hook for hook in self.hooks}.values():
            _call(hook, anomaly)

    def _shown(self, transition: Transition, kind: semconv.AnomalyType, series: Series) -> Transition:
        """Return ``transition`` with the span of its call: a root span, made now, if none has shown it."""
        call = transition.call
        if call is not None and call.context is None:
            made = None if self._show is None else self._show(series, kind, call)
            if made is not None:
                return replace(transition, call=replace(call, context=made))
        # No call is known, or it is in a trace already: the next one shows the anomaly.
        if series.assessment is not None:
            series.assessment.show_anomaly(kind)
        return transition

    def _announce(self, news: News) -> None:
        series = self._series_of(news.first)
        entered = news.what == "entered"
        body = sentence(news, series)
        event = semconv.EVENT_ANOMALY_ENTERED if entered else semconv.EVENT_ANOMALY_LEFT
        call = news.first.call
        span = call.context if call is not None and isinstance(call.context, SpanContext) else None
        attributes = attributes_of_news(news, series)
        self._providers().events.emit(event, attributes, body, warning=entered, span=span)
        # A lost provider is logged when it is lost, with the one that took its place.
        if not (entered and news.kind == "fallback"):
            _logger.log(logging.WARNING if entered else logging.INFO, "%s", body)

    def _series_of(self, transition: Transition) -> Series | None:
        return next((one for one in self._live_series() if one.key[0] == transition.model), None)

    def _held(self, transition: Transition) -> bool:
        """Return True while more of what has led to ``transition`` is being found out."""
        if transition.what == "left" or transition.kind not in OF_DATA:
            return False
        series = self._series_of(transition)
        return series is not None and series.inquiry is not None and series.inquiry.pending(perf_counter())


def _check_waiting(series: Sequence[Series]) -> None:
    for one in series:
        if one.assessment is not None:
            one.assessment.check_waiting()


def _compare_with_earlier(series: Series, digest: str, earlier: Sequence[Earlier], now: float) -> None:
    """Take note of what is not as it was when earlier processes ran a model of this name."""
    if not earlier:
        return
    name, _, _, provider = series.key
    same = [one for one in earlier if one.digest == digest]
    if not same:
        series.streams.fact("model_changed", "", 1.0, now)
    # Of hosts that share the folder one may have a GPU and another none, as they are meant to be.
    lost = next(
        (
            one.provider
            for one in same
            if not is_plain(one.provider) and (one.here or is_everywhere(one.provider))
        ),
        None,
    )
    if lost is not None and is_plain(provider):
        series.streams.fact("fallback", lost, 1.0, now)
        _logger.warning("model %r runs on %s, and ran on %s before this process", name, provider, lost)


def _call(hook: AnomalyHook, anomaly: Anomaly) -> None:
    try:
        hook(anomaly)
    except Exception as error:  # noqa: BLE001  the application's hook is not to end the judgement
        internal_error(error)
