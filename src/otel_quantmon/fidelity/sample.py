"""One call that is sampled, and what bounds all that are held."""

from __future__ import annotations

import threading
from typing import Any, Protocol

from otel_quantmon.detection.life_cycle import ObservedCall
from otel_quantmon.semconv import AnomalyType
from otel_quantmon.telemetry.api import SpanContext

__all__ = ["CaptureBudget", "Sample", "SampledCalls"]


class CaptureBudget:
    """Bytes that all captured tensors may hold at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.RLock()
        self.held = 0

    def take(self, size: int) -> bool:
        """Hold ``size`` bytes more; False if that is too much."""
        with self._lock:
            if self.held + size > self._limit:
                return False
            self.held += size
            return True

    def give_back(self, size: int) -> None:
        """Hold ``size`` bytes less."""
        with self._lock:
            self.held -= size

    def reset(self) -> None:
        """In a child after fork: nothing is held by a thread that is not here."""
        self._lock = threading.RLock()
        self.held = 0


class Sample:
    """One call that is sampled.

    Attributes:
        check: True if it is to be checked without a reference.
        compare: True if it is to be compared with the reference.
        urgent: True if the next check waits for this one.
        pair: Of two calls in a row that are checked to see how much they are alike, the same object; None without.
        inputs, outputs: Copies of the tensors, by name.
        size: Bytes that they hold.
        span: Context of the call's sampled span.
        end, duration: End of the call by `time.perf_counter_ns`, and its duration; nanoseconds.
        copying: Nanoseconds that the copies took.
        golden: True if the call replayed inputs of a golden baseline.
    """

    __slots__ = (
        "check",
        "compare",
        "copying",
        "duration",
        "end",
        "golden",
        "inputs",
        "outputs",
        "pair",
        "size",
        "span",
        "urgent",
    )

    def __init__(self, *, check: bool, compare: bool, urgent: bool = False) -> None:
        self.check = check
        self.compare = compare
        self.urgent = urgent
        self.pair: object = None
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.size = 0
        self.span: SpanContext | None = None
        self.end = self.duration = 0
        self.copying = 0
        self.golden = False

    @property
    def call(self) -> ObservedCall:
        """The call, as it goes with what is observed of it."""
        return ObservedCall(self.end, self.duration, self.span)

    def clear(self) -> None:
        """Let go of the tensors; their bytes are to be given back before."""
        self.size = 0
        self.inputs, self.outputs = {}, {}


class SampledCalls(Protocol):
    """The calls of one method of one loaded model, as seen by who wants samples of them."""

    def ask_for_sample(self) -> None:
        """Have the next call look whether a sample of it is due."""

    def check_closely(self, count: int) -> None:
        """Have so many calls checked, each as soon as the check before is over."""

    def show_anomaly(self, kind: AnomalyType) -> None:
        """Have the span of the next call show an anomaly."""

    def learn_check_cost(self, nanoseconds: int) -> None:
        """Learn what one check of a sample has cost."""

    def forget_checks(self) -> None:
        """In a child after fork: ask for none that the parent was to make."""
