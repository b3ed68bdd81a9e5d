"""Memory of the process against the calls that a model has served."""

from __future__ import annotations

from collections import deque
from statistics import median

__all__ = ["GrowthMonitor"]


class GrowthMonitor:
    """Robust slope of resident memory per call, over the last samples.

    The slope is Theil's estimator: the median of the slopes between all pairs of samples (H. Theil, "A
    rank-invariant method of linear and polynomial regression analysis", 1950). Up to 29% of the samples may
    be outliers, such as one allocator trim or one model loaded meanwhile, and leave it as it is.

    Args:
        size: most samples kept, at least 3; the work at each `slope` grows with its square.
    """

    __slots__ = ("_samples",)

    _FEWEST = 5

    def __init__(self, size: int = 30) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=size)

    def observe(self, calls: int, resident: int) -> None:
        """Take ``resident`` bytes seen after ``calls`` calls; without a new call there is nothing to learn."""
        if not self._samples or calls > self._samples[-1][0]:
            self._samples.append((calls, resident))

    def slope(self) -> float | None:
        """Bytes per call; None until there are five samples."""
        if len(self._samples) < self._FEWEST:
            return None
        samples = list(self._samples)
        return median(
            (later[1] - earlier[1]) / (later[0] - earlier[0])
            for i, earlier in enumerate(samples)
            for later in samples[i + 1 :]
        )
