"""Memory of the process: one stream, laid to a model only where the growth follows its calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace

from otel_quantmon.detection.budget import Budget
from otel_quantmon.detection.leak import CALLS_OF_INCREMENT, Envelope, Increment, attribute, slope
from otel_quantmon.detection.life_cycle import Transition
from otel_quantmon.detection.stream import Stream

__all__ = ["ProcessMemory"]


# Increments that are kept, for who it is that grows, and how many it takes to say how much, and who.
_MOST_INCREMENTS = 64
_FEWEST_INCREMENTS = 5
_FEWEST_ATTRIBUTED = 8

# Blocks that a growth waits for a model that it can be laid to.
_MOST_BLOCKS_TO_LAY = 32


class ProcessMemory:
    """Watches resident memory against the calls of all models. One thread takes, others may read.

    Args:
        budget: Budget of false alarms.
    """

    def __init__(self, budget: Budget) -> None:
        self._envelope = Envelope(calls=CALLS_OF_INCREMENT)
        self._increments: deque[Increment] = deque(maxlen=_MOST_INCREMENTS)
        self._called = 0
        self._unlaid: Transition | None = None
        self._patience = 0
        self._laid_to: str | None = None
        self._unwanted = False
        self._growth = Stream("memory_growth", "", "", level=lambda stream: budget.sole_level(stream.kind))

    def loaded(self) -> None:
        """Take note that a model is loaded: memory grows for that."""
        self._envelope.skip()

    def growths(self) -> dict[str, float]:
        """Bytes a call by which memory grows, of the models that it can be laid to. Reading changes nothing."""
        # One step, so that the thread that takes may add meanwhile.
        increments = list(self._increments)
        if len(increments) < _FEWEST_INCREMENTS:
            return {}
        called = _called(increments)
        of = called.pop() if len(called) == 1 else attribute(increments) or self._laid_to
        return {} if of is None else {of: slope(increments)}

    @property
    def growing(self) -> bool | None:
        """Whether there is an anomaly of memory that is to be told; None while the baseline is learnt."""
        if not self._growth.watching:
            return None
        return self._growth.active is not None and not self._unwanted

    def take(
        self,
        calls: Mapping[str, int],
        resident: int,
        now: float,
        *,
        judge: bool = True,
        unwanted: Collection[str] = (),
    ) -> list[Transition]:
        """Take ``resident`` bytes, seen after so many calls of each model in all; what has changed, and for whom.

        Args:
            calls, resident: As said.
            now: Seconds.
            judge: False if growth is to be measured alone.
            unwanted: Models of which nobody wants to be told that memory follows their calls.
        """
        total = sum(calls.values())
        if total == self._called:
            return []
        self._called = total
        increment = self._envelope.add(calls, resident)
        if increment is None:
            return []
        self._increments.append(increment)
        if not judge:
            return []
        changes: list[Transition] = []
        for transition in self._growth.take((increment.growth,), (now,), now):
            if transition.what == "left":
                changes += self._lay(unwanted, force=True)
            self._unlaid = transition
            self._patience = _MOST_BLOCKS_TO_LAY
        return changes + self._lay(unwanted, force=False)

    def _lay(self, unwanted: Collection[str], *, force: bool) -> list[Transition]:
        """What has been found, once it can be laid to a model, or it is too late for that."""
        transition = self._unlaid
        if transition is None:
            return []
        if transition.what == "left":
            of = self._laid_to
        else:
            increments = list(self._increments)
            # Those since the change say most; those before it only that calls were, and memory was not.
            since = max(_FEWEST_ATTRIBUTED, transition.judgement.observations // CALLS_OF_INCREMENT)
            since += _MOST_BLOCKS_TO_LAY - self._patience
            of = attribute(increments[-since:]) or attribute(increments)
            self._patience -= 1
            if of is None and not (force or len(_called(increments)) < 2 or self._patience < 0):
                return []
        self._unlaid = None
        entered = transition.what == "entered"
        told = of not in unwanted if entered else not self._unwanted
        self._laid_to = of if entered else None
        self._unwanted = entered and not told
        return [] if not told else [replace(transition, model=of or "", baseline=self._growth.source)]


def _called(increments: list[Increment]) -> set[str]:
    return {model for one in increments for model, calls in one.calls.items() if calls}
