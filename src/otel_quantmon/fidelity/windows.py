"""From samples of fidelity to what is reported: windows, and thresholds from a baseline."""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from otel_quantmon.fidelity.numerics.measures import Measures

__all__ = [
    "COSINE_THRESHOLD",
    "DISAGREEMENT_THRESHOLD",
    "MIN_BASELINE_SAMPLES",
    "RELATIVE_ERROR_THRESHOLD",
    "SAME_RELATIVE_ERROR",
    "FidelitySummary",
    "FidelityWindow",
    "Statistic",
    "Thresholds",
    "Window",
    "upper_limit",
]

RELATIVE_ERROR_THRESHOLD = 0.05
COSINE_THRESHOLD = 0.99
DISAGREEMENT_THRESHOLD = 0.05
"""Distance from float that is reported once, and that the commands refuse unless a model's own baseline has more.

One decision in twenty is as many as separate the better int8 models from their float originals, ten times over.
"""

SAME_RELATIVE_ERROR = 1e-4
"""From the recorded outputs: float32 arithmetic in another order may give as much, see `Thresholds.of_baseline`. More
is another kernel, runtime or model."""

MIN_BASELINE_SAMPLES = 8
"""Fewer say too little of how samples spread."""

# A normal distribution's standard deviation is this times its median absolute deviation (Rousseeuw and Croux,
# J. Am. Stat. Assoc. 88(424), 1993).
_MAD_TO_SIGMA = 1.4826
_SIGMAS = 6.0
# Real data is never quite the recorded data, and a baseline of equal samples has no spread at all.
_HEADROOM = 1.5


@dataclass(frozen=True, slots=True)
class Statistic:
    """Of one measure over a window: its last sample, its mean and its largest; all finite."""

    last: float
    mean: float
    maximum: float


class Window:
    """The last samples of one measure. One thread may add while another reads."""

    def __init__(self, size: int) -> None:
        """Keep the last `size` samples.

        Raises:
            ValueError: `size` is not positive.
        """
        if size < 1:
            raise ValueError(f"a window of {size} samples holds nothing: give at least 1")
        self._samples: deque[float] = deque(maxlen=size)
        # It knows its owner: a handler of a signal, or a finalizer, may come while the same thread holds it.
        self._lock = threading.RLock()

    def add(self, sample: float) -> None:
        """Add a sample; one that is not finite is left out, as no instrument may see it."""
        if math.isfinite(sample):
            with self._lock:
                self._samples.append(sample)

    def __len__(self) -> int:
        """Samples that it holds."""
        return len(self._samples)

    def statistic(self) -> Statistic | None:
        """None while there is no sample."""
        with self._lock:
            samples = tuple(self._samples)
        if not samples:
            return None
        largest = max(samples)
        # Samples may be the largest float64: their sum would overflow, their mean by its last bit.
        mean = 2.0 * math.fsum(sample / (2 * len(samples)) for sample in samples)
        return Statistic(samples[-1], min(mean, largest), largest)


@dataclass(frozen=True, slots=True)
class FidelitySummary:
    """One output's measures over its window; each is None while there is no sample of it."""

    relative_error: Statistic | None
    sqnr: Statistic | None
    cosine_similarity: Statistic | None
    max_abs_error: Statistic | None
    disagreement: Statistic | None


class FidelityWindow:
    """The windows of one output. One thread may add while another reads."""

    def __init__(self, size: int) -> None:
        """Keep the last `size` samples; ValueError if that is not positive."""
        self._relative_error, self._sqnr, self._cosine, self._max_abs_error, self._disagreement = (
            Window(size) for _ in range(5)
        )

    def add(self, measures: Measures | None, disagreement: float | None) -> None:
        """Add one sample. Leave out comparisons that have a reason: they are none.

        Args:
            measures: None for labels, which have no distance.
            disagreement: None for what decides nothing.
        """
        if measures is not None:
            self._relative_error.add(measures.relative_error)
            self._sqnr.add(measures.sqnr)
            self._cosine.add(measures.cosine_similarity)
            self._max_abs_error.add(measures.max_abs_error)
        if disagreement is not None:
            self._disagreement.add(disagreement)

    def __len__(self) -> int:
        """Samples of the relative error."""
        return len(self._relative_error)

    def summary(self) -> FidelitySummary:
        """Return what the gauges report."""
        return FidelitySummary(
            relative_error=self._relative_error.statistic(),
            sqnr=self._sqnr.statistic(),
            cosine_similarity=self._cosine.statistic(),
            max_abs_error=self._max_abs_error.statistic(),
            disagreement=self._disagreement.statistic(),
        )


def upper_limit(samples: Sequence[float], floor: float) -> float:
    """Return the value that a measure of which less is better should stay under, from its samples in a baseline.

    The largest of: the largest sample, the median and six robust standard deviations (1.4826 median absolute
    deviations), one and a half medians, and `floor`, what rounding alone may give.

    Raises:
        ValueError: There is no sample.
    """
    if not samples:
        raise ValueError("a threshold needs at least one sample of the baseline")
    median = statistics.median(samples)
    sigma = _MAD_TO_SIGMA * statistics.median(abs(sample - median) for sample in samples)
    return max([*samples, median + _SIGMAS * sigma, _HEADROOM * median, floor])


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where one output's error becomes an anomaly.

    Attributes:
        relative_error: Relative error above which it is far.
        cosine_similarity: Cosine similarity below which it is far.
        from_baseline: False for the fixed ones.
    """

    relative_error: float = RELATIVE_ERROR_THRESHOLD
    cosine_similarity: float = COSINE_THRESHOLD
    from_baseline: bool = False

    @classmethod
    def of_baseline(cls, relative_errors: Sequence[float], cosines: Sequence[float]) -> Thresholds:
        """From the samples of a baseline; the fixed ones while there are fewer than `MIN_BASELINE_SAMPLES`.

        Cosines are checked by their distance from 1. Float32 arithmetic in another order may give relative
        errors of 1e-4 (see `otel_quantmon.fidelity.numerics.measures.top1_noise`), and for small errors 1-cos is about
        half their square: those are the floors.
        """
        if min(len(relative_errors), len(cosines)) < MIN_BASELINE_SAMPLES:
            return cls()
        distance = upper_limit([1.0 - cosine for cosine in cosines], floor=1e-8)
        return cls(upper_limit(relative_errors, floor=1e-4), 1.0 - distance, from_baseline=True)
