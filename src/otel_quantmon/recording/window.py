"""The last calls of a model as one distribution, in memory that does not grow with their number."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain

from otel_quantmon.recording.sketch import Sketch

__all__ = ["SlidingWindow"]

_PARTS = 4

# Values of one kind that wait in a part to be counted. Many are counted for less than few, and none at all in a part
# that leaves before anybody has read it, as most do of a model that is called thousands of times a second.
_MOST_WAITING = 2048


class _Part:
    """A stretch of the window.

    Attributes:
        count: Number of its values.
        until: Latest time at which a value may join.
        last: Time of the last value.
    """

    __slots__ = ("_sketches", "_waiting", "count", "last", "until")

    def __init__(self, until: int) -> None:
        self._sketches: dict[int, Sketch] = {}
        # Not in lists: they would keep each number as an object, and to let go of 512 costs as much as to sort them.
        self._waiting: dict[int, array[int]] = {}
        self.count = 0
        self.until = until
        self.last = 0

    def add(self, kind: int, ordered: Sequence[int]) -> None:
        waiting = self._waiting.get(kind)
        if waiting is None:
            self._waiting[kind] = array("q", ordered)
        else:
            waiting.extend(ordered)
            if len(waiting) > _MOST_WAITING:
                self._count()

    def sketches(self) -> dict[int, Sketch]:
        if self._waiting:
            self._count()
        return self._sketches

    def _count(self) -> None:
        for kind, waiting in self._waiting.items():
            sketch = self._sketches.get(kind)
            if sketch is None:
                sketch = self._sketches[kind] = Sketch()
            sketch.add(waiting)
        self._waiting = {}


class SlidingWindow:
    """Holds the last ``size`` values that are not older than ``age``, and up to a quarter more of both.

    A sketch forgets nothing, so the window is made of parts, each of at most a quarter of ``size`` and of ``age``; a
    part leaves as a whole, once the window is full without it or its last value is too old. Values are of a kind each,
    and a part has a sketch for each kind.

    Not thread-safe.

    Args:
        size: Values that the window holds once there were so many, at least 1.
        age: Nanoseconds for which a value stays, at least.
    """

    __slots__ = ("_age", "_count", "_merged", "_most", "_others", "_parts", "_size", "_span")

    def __init__(self, size: int, age: int) -> None:
        self._size = size
        self._age = age
        self._most = -(-size // _PARTS)
        self._span = age // _PARTS
        self._parts: deque[_Part] = deque()
        self._count = 0
        # Of all parts, and of all but the last.
        self._merged: dict[int, Sketch] | None = None
        self._others: dict[int, Sketch] | None = None

    def add(self, times: Sequence[int], values: Sequence[int], kinds: Sequence[int] | int) -> list[int]:
        """Take ``values``, oldest first.

        Args:
            times: Times of the values, in nanoseconds of one clock.
            values: Values from 0 to below 2**63.
            kinds: Kinds of the values, one for each or one for all.

        Returns:
            The values in ascending runs, of which to sort them all is quickly made.
        """
        runs: list[int] = []
        done = 0
        while done < len(values):
            part = self._parts[-1] if self._parts else None
            if part is None or part.count >= self._most or times[done] > part.until:
                part = _Part(times[done] + self._span)
                self._parts.append(part)
                self._others = None
            upto = min(len(values), done + self._most - part.count)
            if times[upto - 1] > part.until:
                # Times of threads may be slightly out of order, so the search may end early, but it has to go on.
                upto = max(done + 1, bisect_right(times, part.until, done, upto))
            piece = values[done:upto]
            for kind, alike in (
                ((kinds, piece),) if isinstance(kinds, int) else _by_kind(piece, kinds[done:upto])
            ):
                ordered = sorted(alike)
                part.add(kind, ordered)
                runs += ordered
            part.last = max(part.last, times[upto - 1])
            part.count += upto - done
            self._count += upto - done
            done = upto
            self._merged = None
            while self._count - self._parts[0].count >= self._size:
                self._drop()
            self._age_to(part.last)
        return runs

    def read(self, now: int) -> dict[int, Sketch]:
        """Return what the window holds at ``now``, by the clock of the times, by kind. It is not to be changed."""
        self._age_to(now)
        if self._merged is None:
            # Mostly only the last part has changed.
            if self._others is None:
                self._others = _merged(part.sketches() for part in list(self._parts)[:-1])
            last = (part.sketches() for part in list(self._parts)[-1:])
            self._merged = _merged(chain((self._others,), last))
        return self._merged

    def _age_to(self, now: int) -> None:
        while self._parts and self._parts[0].last < now - self._age:
            self._drop()

    def _drop(self) -> None:
        self._count -= self._parts.popleft().count
        self._merged = self._others = None


def _merged(several: Iterable[dict[int, Sketch]]) -> dict[int, Sketch]:
    found: dict[int, Sketch] = {}
    for sketches in several:
        for kind, sketch in sketches.items():
            into = found.get(kind)
            if into is None:
                into = found[kind] = Sketch()
            into.merge(sketch)
    return found


def _by_kind(values: Sequence[int], kinds: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
    found: dict[int, list[int]] = {}
    for kind, value in zip(kinds, values, strict=True):
        found.setdefault(kind, []).append(value)
    return found.items()
