"""Numbers of any sign in two sketches, which merge by OpenTelemetry's rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from otel_quantmon.recording.sketch import Sketch

__all__ = ["Pool"]


class Pool:
    """Counts finite numbers. Merging is commutative and associative, and gives what one pool of all would be."""

    __slots__ = ("_minus", "_plus")

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._plus, self._minus = Sketch(), Sketch()
        known = list(values)
        self._plus.add(value for value in known if value >= 0)
        self._minus.add(-value for value in known if value < 0)

    @property
    def size(self) -> int:
        """Number of the numbers."""
        return self._plus.count + self._minus.count

    def merge(self, other: Pool) -> None:
        """Count what ``other`` has counted, at the coarser of both scales."""
        self._plus.merge(other._plus)
        self._minus.merge(other._minus)

    def at_scale_of(self, other: Pool) -> Pool:
        """Return a copy that is scaled down to where ``other`` is, if that is coarser."""
        copy = Pool()
        copy.merge(self)
        copy._plus.coarsen(other._plus.scale)
        copy._minus.coarsen(other._minus.scale)
        return copy

    def counts(self) -> list[tuple[float, int]]:
        """Return the numbers in ascending order, one for each bucket, and how many they are."""
        below = [(-value, count) for value, count in reversed(self._minus.buckets())]
        return below + self._plus.buckets()

    def to_wire(self) -> dict[str, Any]:
        """Return plain JSON values: the points of two of OpenTelemetry's exponential histograms."""
        wire = {"plus": self._plus.to_wire()}
        return wire | {"minus": self._minus.to_wire()} if self._minus.count else wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Pool:
        """Read what `to_wire` wrote.

        Raises:
            ValueError: The value is no pool.
        """
        pool = cls()
        pool._plus = Sketch.from_wire(wire["plus"])
        if "minus" in wire:
            pool._minus = Sketch.from_wire(wire["minus"])
        return pool
