"""How often a view is drawn anew: as often as it costs little, however large the run has become."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["Pace"]

# Times as long as a view took: so views take a fifth of a core at most.
_REST = 4


class Pace:
    """Says when the next view is due.

    Args:
        clock: Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = 0.0

    @contextmanager
    def view(self) -> Generator[None, None, None]:
        """Draw a view inside: the next is due when four times as long as that took has passed."""
        began = self._clock()
        try:
            yield
        finally:
            ended = self._clock()
            self._due = max(self._due, ended + _REST * (ended - began))

    def rest(self) -> float:
        """Seconds until a view is due; 0 if one is."""
        return max(0.0, self._due - self._clock())
