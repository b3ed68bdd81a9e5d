"""Which calls may be compared by their durations: those after pauses alike.

A call after a pause is slower, and so are those right after it, since caches, clock rate and the sleep of the processor
are those of an idle host. So they are a class of their own, with a baseline: neither a load that becomes idle nor one
that becomes busy is an anomaly. For calls of less than a millisecond a pause of one is one already. For longer ones it
is not, since each class has to see 3,000 calls before it is watched.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final, NamedTuple

__all__ = ["FEWEST_DURATIONS", "Calls", "Pauses", "Stalls", "WaitingCalls", "shape_class"]

FEWEST_DURATIONS: Final = 16
"""Calls in a row that are ranked of a class, where it has so many: fewer do not show how much they are alike."""

# Nanoseconds of a pause and of what it makes cold, and what is added to the name of a class of shapes.
_AFTER: Final = " after "
_LONG: Final = (30_000_000, 20_000_000, f"{_AFTER}30 ms")
_SHORT: Final = (1_000_000, 5_000_000, f"{_AFTER}1 ms")
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
    """Calls of one model that wait to be ranked: of each class of shapes the first, in a row.

    Where more come than there is room for, each class has as much of it as the others, and they have what it leaves.
    Where that would be less than `FEWEST_DURATIONS`, those that were ranked longest ago come first.

    One thread adds, another one takes.

    Attributes:
        room: Calls that are taken at a time, at most; twice as many may wait.
    """

    __slots__ = ("_by_class", "_cut_in", "_given", "_last", "_ranked", "_taken", "_taken_in", "room")

    def __init__(self, room: int) -> None:
        self.room = room
        # By class, calls that were added, and those of them that were taken.
        self._given: dict[str, int] = {}
        self._ranked: dict[str, int] = {}
        self._by_class: dict[str, Calls] = {}
        # Of each class, the latest end of a call.
        self._last: dict[str, int] = {}
        # How often calls were taken. By class: when some of it were, and when some were left out, after which no more
        # of it are in a row.
        self._taken = 0
        self._taken_in: dict[str, int] = {}
        self._cut_in: dict[str, int] = {}

    def add(self, of: str, ends: Sequence[int], durations: Sequence[int]) -> None:
        """Take calls of one class, oldest first; they must not change any more.

        Those of one time may come in several parts, as those with a span and those without. They are put in order:
        what another part has in between is no pause.
        """
        if not ends:
            return
        self._given[of] = self._given.get(of, 0) + len(ends)
        before = self._last.get(of)
        self._last[of] = ends[-1] if before is None else max(before, ends[-1])
        cut = self._cut_in.get(of) == self._taken
        # In one step, and so is putting it back: the thread that takes may come at any time.
        known = self._by_class.pop(of, None)
        if known is None:
            if cut:
                return
            known = Calls(of, before, (), ())
        most = len(known.ends) if cut else max(0, self.room)
        kept = _joined(known, ends, durations, most)
        if kept.ends:
            self._by_class[of] = kept
        # After it was put back: if it was not there when calls were taken, it is cut for the next time.
        if len(known.ends) + len(ends) > most:
            self._cut_in[of] = self._taken
        self._make_room()

    def take(self) -> list[Calls]:
        """Return what waits, each class once, and keep nothing of it."""
        self._taken += 1
        found = [self._by_class.pop(of, None) for of in list(self._by_class)]
        taken = self._fitted([calls for calls in found if calls is not None])
        for calls in taken:
            self._taken_in[calls.of] = self._taken
            self._ranked[calls.of] = self._ranked.get(calls.of, 0) + len(calls.ends)
        return taken

    def share(self, of: str) -> float:
        """Return which share of the calls of a class was taken; 0 without any."""
        given = self._given.get(of)
        return min(1.0, self._ranked.get(of, 0) / given) if given else 0.0

    def _make_room(self) -> None:
        waiting = list(self._by_class.values())
        # At twice the room, so that it need not be made for each part that comes.
        if sum([len(calls.ends) for calls in waiting]) <= 2 * self.room:
            return
        fitted = {calls.of: calls for calls in self._fitted(waiting)}
        for calls in waiting:
            left = fitted.get(calls.of)
            if left is calls or self._by_class.pop(calls.of, None) is None:
                continue
            if left is not None:
                self._by_class[calls.of] = left
            self._cut_in[calls.of] = self._taken

    def _fitted(self, waiting: Sequence[Calls]) -> list[Calls]:
        """Return what there is room for; a class for which there is none is left out."""
        wanted = [len(calls.ends) for calls in waiting]
        left = self.room
        if sum(wanted) <= left:
            return list(waiting)
        share = max(FEWEST_DURATIONS, _even_share(wanted, left))
        found: list[Calls] = []
        for calls in sorted(waiting, key=self._turn):
            kept = min(len(calls.ends), share, left)
            left -= kept
            if kept == len(calls.ends):
                found.append(calls)
            elif kept:
                found.append(calls._replace(ends=calls.ends[:kept], durations=calls.durations[:kept]))
        return found

    def _turn(self, calls: Calls) -> tuple[int, int]:
        return self._taken_in.get(calls.of, 0), self._ranked.get(calls.of, 0)


def _even_share(wanted: Sequence[int], room: int) -> int:
    """Return the most that each may have of ``room``, where those who want less leave the rest to the others."""
    left = room
    for i, one in enumerate(sorted(wanted)):
        share = left // (len(wanted) - i)
        if one > share:
            return share
        left -= one
    return room


def _joined(calls: Calls, ends: Sequence[int], durations: Sequence[int], most: int) -> Calls:
    """Return ``calls`` and others of their class in the order of their ends, the first ``most`` of all."""
    if not calls.ends:
        return calls._replace(ends=ends[:most], durations=durations[:most])
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


def shape_class(of: str) -> str:
    """Return the class of shapes that a class of `Pauses.split` is a part of."""
    return of.partition(_AFTER)[0]


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
