"""Which calls may be compared by their durations: those after pauses alike.

A call after a pause is slower, and so are those right after it, since caches, clock rate and the sleep of the processor
are those of an idle host. So they are a class of their own, with a baseline: neither a load that becomes idle nor one
that becomes busy is an anomaly. For calls of less than a millisecond a pause of one is one already. For longer ones it
is not, since each class has to see 3,000 calls before it is watched.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final, NamedTuple

__all__ = ["Calls", "Pauses", "Stalls"]

# Nanoseconds of a pause and of what it makes cold, and what is added to the name of a class of shapes.
_LONG: Final = (30_000_000, 20_000_000, " after 30 ms")
_SHORT: Final = (1_000_000, 5_000_000, " after 1 ms")
# Nanoseconds of a call for which a short pause is one.
_SMALL: Final = 1_000_000
# Seconds after a stall in which another one is the same: what stops a process makes several short calls late.
_SAME = 0.01


class Calls(NamedTuple):
    """Calls of one class of shapes, oldest first; times in nanoseconds of one clock.

    Attributes:
        of: Name of the class.
        before: End of the call before the first of these, None if there was none.
        ends, durations: Ends and durations of the calls, as many of each.
    """

    of: str
    before: int | None
    ends: Sequence[int]
    durations: Sequence[int]


class Pauses:
    """Pauses between the calls of one class of shapes.

    Args:
        of: Name of the class.
        known: Names for which there is a baseline, which say whether calls were short when it was learnt.
    """

    __slots__ = ("_kinds", "_until")

    def __init__(self, of: str, known: Container[str] = ()) -> None:
        # The kinds of pause, the longest last, and when calls are no longer cold by each.
        self._kinds: tuple[tuple[int, int, str], ...] = ()
        if of + _SHORT[2] in known:
            self._kinds = (_SHORT, _LONG)
        elif of in known:
            self._kinds = (_LONG,)
        self._until = [0] * 2

    def split(self, calls: Calls) -> list[tuple[str, list[float], list[float]]]:
        """Return name, ends and durations, in seconds, of the warm calls and of those after each kind of pause."""
        if not self._kinds and calls.durations:
            # Decided once: calls that become slower are not to change their class by it.
            small = min(calls.durations) < _SMALL
            self._kinds = (_SHORT, _LONG) if small else (_LONG,)
        found: dict[str, tuple[list[float], list[float]]] = {}
        before = calls.before
        for end, duration in zip(calls.ends, calls.durations, strict=True):
            # Calls of several threads overlap, and come in the order of their ends.
            start = end - duration
            after = ""
            for at, (least, cold, name) in enumerate(self._kinds):
                if before is not None and start - before >= least:
                    self._until[at] = start + cold
                if start < self._until[at]:
                    after = name
            before = end
            if after not in found:
                found[after] = [], []
            ends, durations = found[after]
            ends.append(end * 1e-9)
            durations.append(duration * 1e-9)
        return [(calls.of + after, ends, durations) for after, (ends, durations) in found.items()]


class Stalls:
    """Stalls of one model, of which several at about the same time are one."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = 0.0

    def single(self, ends: Sequence[float], stalled: Sequence[int]) -> tuple[int, list[int]]:
        """Return the number of calls, and those of ``stalled`` that count.

        Args:
            ends: Ends of calls in ascending order, in seconds.
            stalled: Indices of those that took too long, in ascending order.
        """
        events: list[int] = []
        for i in stalled:
            if ends[i] >= self._until:
                events.append(i)
                self._until = ends[i] + _SAME
        return len(ends), events
