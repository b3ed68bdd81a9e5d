"""What is known of one number of one service on one host: its baseline, and whether it has left it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from otel_quantmon.detection.blocks import choose_blocks
from otel_quantmon.detection.detector import Judgement
from otel_quantmon.detection.placement import Subject, Witness
from otel_quantmon.detection.pooled import Counts, Evidence, PooledBaseline, Watch
from otel_quantmon.evaluator.fleet.pool import Pool

__all__ = ["LENGTH", "SubjectStream"]

LENGTH = 100
"""Observations of a first baseline."""

# While nothing is suspicious, a baseline of twice as many is made, up to so many.
_LONGEST = 800


class SubjectStream:
    """The stream of one service on one host.

    Args:
        subject: Who it is now; its version changes with a release.

    Attributes:
        subject: As given.
        last: Time of the last batch, seconds since the epoch.
        evidence: Evidence of a change.
    """

    __slots__ = (
        "_baseline",
        "_further",
        "_inflation",
        "_order",
        "_pool",
        "_wire",
        "evidence",
        "last",
        "subject",
    )

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.last = 0.0
        self.evidence = Evidence()
        self._pool: Pool | None = None
        self._wire: dict[str, Any] | None = None
        self._further: Pool | None = Pool()
        self._order: list[float] = []
        self._inflation = 1.0
        self._baseline: PooledBaseline | None = None

    @property
    def pool(self) -> Pool | None:
        """The baseline; None while there is none."""
        return self._pool

    def take(self, batch: Pool, watch: Watch, seed: int) -> Judgement | None:
        """Take a batch; a judgement if it was the one that decided.

        Args:
            batch: The batch.
            watch: What counts as a change.
            seed: Number of the batch, by which the order within it is drawn.
        """
        baseline = self.baseline(watch)
        if baseline is None:
            values = [value for value, count in batch.counts() for _ in range(count)]
            random.Random(seed).shuffle(values)  # noqa: S311  an order that is not known, the same each time
            self._order += values
            self._grow(batch, LENGTH)
            return None
        judgement = self.evidence.update(self.counts(batch), baseline, watch)
        if self.evidence.changed:
            self._further = None
        elif self._further is not None and self.evidence.calm:
            self._grow(batch, 2 * baseline.size)
        return judgement

    def counts(self, batch: Pool) -> Counts:
        """Return the counts of a batch, at the scale of the baseline."""
        return batch.counts() if self._pool is None else batch.at_scale_of(self._pool).counts()

    def baseline(self, watch: Watch) -> PooledBaseline | None:
        """Return what is paid against the baseline; None while there is none."""
        if self._baseline is None and self._pool is not None:
            self._baseline = PooledBaseline(self._pool.counts(), watch, self._inflation)
        return self._baseline

    def testimony(self, recent: Mapping[float, int], watch: Watch, winner: int, lead: int) -> Witness | None:
        """Return what ``recent`` counts say of a change; None without a baseline.

        Args:
            recent: Counts.
            watch: What counts as a change.
            winner, lead: See `Evidence`: the bet that has found the change, and the one for the way back.
        """
        baseline = self.baseline(watch)
        if baseline is None:
            return None
        counts = sorted(recent.items())
        return Witness(
            baseline.moved(counts, winner), baseline.came_back(counts, lead), self.evidence.changed
        )

    def state(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        who = self.subject
        return {
            "subject": [who.host, who.service, who.version, who.instructions],
            "last": self.last,
            "evidence": self.evidence.state(),
            "pool": self._wire,
            "further": None if self._further is None else self._further.to_wire(),
            "order": self._order,
            "inflation": self._inflation,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SubjectStream:
        """Return what `state` was of."""
        made = cls(Subject(*state["subject"]))
        made.last = state["last"]
        made.evidence = Evidence.from_state(state["evidence"])
        made._wire = state["pool"]
        made._pool = None if made._wire is None else Pool.from_wire(made._wire)
        made._further = None if state["further"] is None else Pool.from_wire(state["further"])
        made._order = list(state["order"])
        made._inflation = state["inflation"]
        return made

    def _grow(self, batch: Pool, until: int) -> None:
        if self._further is None:
            return
        self._further.merge(batch)
        if self._further.size < until:
            return
        if self._order:
            blocks = choose_blocks(self._order)
            self._inflation = max(1.0, blocks.size * blocks.inflation)
            self._order = []
        self._pool = Pool()
        self._pool.merge(self._further)
        self._wire = self._pool.to_wire()
        self._baseline = None
        if self._further.size >= _LONGEST:
            self._further = None
