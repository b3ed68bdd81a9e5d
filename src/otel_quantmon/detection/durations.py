"""Which calls may be compared by their durations: those after pauses alike.

A call after a pause is slower, and so are those right after it, since caches, clock rate and the sleep of the processor
are those of an idle host. So they are a class of their own, with a baseline: neither a load that becomes idle nor one
that becomes busy is an anomaly. For calls of less than a millisecond a pause of one is one already. For longer ones it
is not, since each class has to see 3,000 calls before it is watched.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final, NamedTuple

__all__ = ["Calls", "Pauses", "Stalls", "WaitingCalls"]

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


class WaitingCalls:
    """Calls of one model that wait to be ranked, the first of each class of shapes in a row.

    One thread adds, another one takes.

    Attributes:
        room: Calls that may still be added until the next time that they are taken.
    """

    __slots__ = ("_by_class", "_last", "room")

    def __init__(self, room: int) -> None:
        self.room = room
        self._by_class: dict[str, Calls] = {}
        # Of each class, the latest end of a call.
        self._last: dict[str, int] = {}

    def add(self, of: str, ends: Sequence[int], durations: Sequence[int]) -> None:
        """Take calls of one class, oldest first; they must not change any more.

        Those of one time may come in several parts, as those with a span and those without. They are put in order:
        what another part has in between is no pause.
        """
        if not ends:
            return
        before = self._last.get(of)
        self._last[of] = ends[-1] if before is None else max(before, ends[-1])
        room = max(0, self.room)
        # In one step, and so is putting it back: the thread that takes may come at any time.
        known = self._by_class.pop(of, None)
        if known is not None:
            kept = _joined(known, ends, durations, len(known.ends) + room)
            self.room = room - (len(kept.ends) - len(known.ends))
        elif room:
            kept = Calls(of, before, ends[:room], durations[:room])
            self.room = room - len(kept.ends)
        else:
            return
        self._by_class[of] = kept

    def take(self) -> list[Calls]:
        """Return what waits, each class once, and keep nothing of it."""
        found = [self._by_class.pop(of, None) for of in list(self._by_class)]
        return [calls for calls in found if calls is not None]

    def forget(self) -> None:
        """Drop what waits, and what was before."""
        self._by_class.clear()
        self._last.clear()


def _joined(calls: Calls, ends: Sequence[int], durations: Sequence[int], most: int) -> Calls:
    """Return ``calls`` and others of their class in the order of their ends, the first ``most`` of all."""
    in_order = ends[0] >= calls.ends[-1]
    if in_order and most <= len(calls.ends):
        return calls
    # No more can be among the first.
    both = [*calls.ends, *ends[:most]], [*calls.durations, *durations[:most]]
    if not in_order:
        # Two ascending runs, which sorting merges.
        order = sorted(range(len(both[0])), key=both[0].__getitem__)
        both = [both[0][i] for i in order], [both[1][i] for i in order]
    return Calls(calls.of, calls.before, both[0][:most], both[1][:most])


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
