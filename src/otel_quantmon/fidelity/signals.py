"""What samples of a model give to detection, and the facts that are reported without it."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from otel_quantmon import semconv
from otel_quantmon.detection.life_cycle import ObservedCall
from otel_quantmon.detection.model_streams import ModelStreams
from otel_quantmon.fidelity.autocorrelation import Autocorrelation
from otel_quantmon.fidelity.numerics.comparison import Comparison, fed_back
from otel_quantmon.fidelity.numerics.sketches import first_items, input_sketch, output_sketch
from otel_quantmon.fidelity.windows import (
    COSINE_THRESHOLD,
    RELATIVE_ERROR_THRESHOLD,
    SAME_RELATIVE_ERROR,
    FidelityWindow,
    Thresholds,
)
from otel_quantmon.models.formats.facts import TensorFacts
from otel_quantmon.telemetry.events import Events
from otel_quantmon.telemetry.instruments import Attributes

__all__ = ["BURST", "Signals"]

_logger = logging.getLogger("otel_quantmon")

# Samples of an output that decide whether it is far from float, which is reported once.
_FIRST = 3

# Evaluations of a burst, and seconds between two bursts, so that they cost a bounded share of one core.
BURST = 64
_BETWEEN_BURSTS = 600.0

# The same between two bursts of checks, of which one costs some ten milliseconds.
_BETWEEN_CHECKS = 10.0


class Signals:
    """The distance of one model from float, as its streams are given it.

    Args:
        streams: Streams of the model.
        attributes: Attributes of its series.
        events: Events, for the facts.

    Attributes:
        streams: As given.
        autocorrelation: How much the inputs of calls in a row are alike.
    """

    def __init__(self, streams: ModelStreams, attributes: Attributes, events: Events) -> None:
        self.streams = streams
        self._attributes = attributes
        self._events = events
        # Outputs whose distance has been reported, or has been found small.
        self._placed: set[tuple[semconv.ReferenceSource, str]] = set()
        # In the replay that is under way: cases of each output that are past all recorded ones.
        self._worse: dict[str, int] = {}
        self._chance = random.Random(0)  # noqa: S311  rounds shares to decisions, hides nothing
        self.autocorrelation = Autocorrelation()
        # Of a pair of calls in a row, what the first one has given.
        self._first: tuple[object, Mapping[str, float]] | None = None
        self._left = 0
        self._last_burst: float | None = None
        self._last_checks: float | None = None

    def after_fork(self) -> None:
        """In a child: what is under way is the parent's."""
        self._first = None
        self._worse = {}
        self._left = 0

    def shadow(self, one: Comparison, call: ObservedCall | None) -> None:
        """Take a comparison of a call with its reference."""
        now = perf_counter()
        # The error of recurrent state is that of all calls before, and its result shows it.
        if one.measures is not None and not one.state:
            self.streams.read("relative_error", one.output, one.measures.relative_error, now, call)
            self.streams.read("cosine", one.output, one.measures.cosine_similarity, now, call)
        if one.disagreement is not None:
            # A share of the rows of a batch: the rate of decisions must not depend on how many rows there are.
            differs = self._chance.random() < one.disagreement
            self.streams.read("disagreement", one.output, float(differs), now, call)

    def data(
        self,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        facts: Mapping[str, TensorFacts],
        at: float,
        call: ObservedCall | None,
        pair: object = None,
    ) -> None:
        """Take what a call was given and gave, of which a few numbers are watched; ``facts`` of both by name.

        Of a ``pair`` of calls in a row the second one only tells how much they are alike.
        """
        # State that the model has made is no data. It adds up over all calls before, and what it does to results is
        # seen in these; so it is watched only where there are none.
        state = fed_back(inputs, outputs)
        results = {name: array for name, array in outputs.items() if name not in state} or outputs
        forms = {(outputs[name].dtype, outputs[name].shape) for name in state}
        data = {name: array for name, array in inputs.items() if (array.dtype, array.shape) not in forms}
        data, results = first_items(data, results, facts)
        sketches = {
            name: sketch
            for name, array in data.items()
            if (sketch := input_sketch(array, facts.get(name))) is not None
        }
        if pair is not None and self._is_second(pair, sketches):
            return
        for name, sketch in sketches.items():
            self.streams.read("input_distribution", name, sketch, at, call)
        for name, array in results.items():
            sketch = output_sketch(array, facts.get(name), decides=name not in state)
            if sketch is not None:
                self.streams.read("output_distribution", name, sketch, at, call)

    def _is_second(self, pair: object, sketches: Mapping[str, Mapping[str, float]]) -> bool:
        now = {f"{name} {part}": value for name, sketch in sketches.items() for part, value in sketch.items()}
        first, self._first = self._first, None
        if first is not None and first[0] is pair:
            self.autocorrelation.add(first[1], now)
            return True
        self._first = pair, now
        return False

    def golden(self, one: Comparison, recorded: Mapping[str, Thresholds]) -> None:
        """Take a comparison of a recorded case, whose inputs are the same each time: it needs no statistics."""
        threshold = recorded.get(one.output)
        if one.measures is not None and threshold is not None and threshold.from_baseline:
            # It may be the largest recorded value itself, which another host gives but for its rounding.
            worse = one.measures.relative_error > threshold.relative_error + SAME_RELATIVE_ERROR
            self._worse[one.output] = self._worse.get(one.output, 0) + worse

    def begin_replay(self) -> None:
        """Forget what a replay has given that was not ended."""
        self._worse = {}

    def replayed(self) -> bool:
        """Take note that all recorded cases have been compared; True if any is worse than all that was recorded."""
        worse, self._worse = self._worse, {}
        for output, cases in worse.items():
            self.streams.fact("relative_error", f"golden {output}", cases, perf_counter())
        return any(worse.values())

    def place(self, model: str, source: semconv.ReferenceSource, output: str, window: FidelityWindow) -> None:
        """Tell once if an output is far from float from the start, by its first samples in ``window``."""
        key = source, output
        if key in self._placed or len(window) < _FIRST:
            return
        self._placed.add(key)
        first = window.summary()
        error, cosine = first.relative_error, first.cosine_similarity
        if error is None or cosine is None:
            return
        if error.mean <= RELATIVE_ERROR_THRESHOLD and cosine.mean >= COSINE_THRESHOLD:
            return
        body = (
            f"model {model!r} is far from its float reference on {semconv.bounded(output)}: relative error "
            f"{error.mean:.4g}, cosine {cosine.mean:.4g}; `quantmon compare --layers` shows where it enters"
        )
        attributes = {
            **self._attributes,
            semconv.OUTPUT_NAME: semconv.bounded(output),
            semconv.REFERENCE_SOURCE: source,
            semconv.ANOMALY_VALUE: error.mean,
            semconv.ANOMALY_STATISTIC: "mean",
        }
        self._events.emit(semconv.EVENT_FAR_FROM_FLOAT, attributes, body, warning=True)
        _logger.warning("%s", body)

    def begin_checks(self, now: float) -> bool:
        """Begin to check one call after the other, unless that was done lately or those may be alike."""
        lately = self._last_checks is not None and now - self._last_checks < _BETWEEN_CHECKS
        if lately or self.autocorrelation.alike is not False:
            return False
        self._last_checks = now
        return True

    def begin_burst(self, now: float) -> bool:
        """Begin to compare each call, unless that was done lately or calls in a row may be alike."""
        lately = self._last_burst is not None and now - self._last_burst < _BETWEEN_BURSTS
        if lately or self.autocorrelation.alike is not False:
            return False
        self._last_burst = now
        self._left = BURST
        return True

    def in_burst(self) -> bool:
        """True if one more evaluation belongs to a burst; it is counted."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True
