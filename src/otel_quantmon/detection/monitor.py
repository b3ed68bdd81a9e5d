"""The one place that judges: all streams of all models of a process, once in each judgement interval.

Who observes leaves numbers in `ModelStreams`. `Monitor.judge` takes what waits, gives it to the streams, and returns
what has become anomalous or well again. It belongs to one thread. So a metric reader changes nothing, however many
there are and however often they read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping

from otel_quantmon.detection.budget import Budget
from otel_quantmon.detection.durations import FEWEST_DURATIONS
from otel_quantmon.detection.life_cycle import Bulletin, News, Transition
from otel_quantmon.detection.model_streams import MOST_DURATIONS, Found, ModelStreams
from otel_quantmon.detection.process_memory import ProcessMemory
from otel_quantmon.guard import guarded

__all__ = ["Monitor"]


class Monitor:
    """Judges all models of one process. Observing and reading are for any thread, `judge` and `news` for one.

    Args:
        per_million: False alarms in 10^6 calls of the process, at most.
    """

    def __init__(self, per_million: float) -> None:
        self._budget = Budget(per_million)
        self._models: weakref.WeakValueDictionary[int, ModelStreams] = weakref.WeakValueDictionary()
        self.reset()

    def reset(self) -> None:
        """In a child after fork: what is on in the parent is the parent's to report, and memory is another's."""
        for streams in self._live():
            streams.after_fork()
        self._bulletin = Bulletin()
        self._memory = ProcessMemory(self._budget)

    def streams(
        self, model: str, *, kinds: Collection[str] | None = None, least: float = 0.0
    ) -> ModelStreams:
        """Streams of a model that is new here; see `ModelStreams`."""
        made = ModelStreams(model, self._budget, kinds=kinds, least=least)
        self._models[id(made)] = made
        return made

    def loaded(self) -> None:
        """Take note that a model is loaded: memory grows for that."""
        self._memory.loaded()

    def growths(self) -> dict[str, float]:
        """See `ProcessMemory.growths`."""
        return self._memory.growths()

    def growing(self) -> bool | None:
        """See `ProcessMemory.growing`; None where no model wants it to be looked for."""
        wanted = any("memory_growth" in streams.kinds for streams in self._live())
        return self._memory.growing if wanted else None

    def memory(self, calls: Mapping[str, int], resident: int, now: float) -> list[Found]:
        """Take ``resident`` bytes of the process, seen after so many calls of each model in all.

        Memory is that of all models, so its growth is looked for if any of them wants that. It is not told of a model
        that does not.
        """
        by_name = {streams.model: streams for streams in self._live()}
        unwanted = {name for name, streams in by_name.items() if "memory_growth" not in streams.kinds}
        found: list[Transition] = []
        with guarded:
            judge = len(unwanted) < len(by_name)
            found = self._memory.take(calls, resident, now, judge=judge, unwanted=unwanted)
        return [Found(by_name.get(one.model), one) for one in found]

    def judge(self, now: float) -> list[Found]:
        """Give all that waits to its streams; what has become anomalous or well again by ``now``, in seconds."""
        live = self._live()
        room = max(FEWEST_DURATIONS, MOST_DURATIONS // max(1, len(live)))
        found: list[Found] = []
        for streams in live:
            # What one model fails in takes nothing with it that others have found.
            with guarded:
                found += streams.judge(now, room)
        return found

    def announce(self, found: Found) -> None:
        """Add a transition to the bulletin, from which `news` takes it with those of other models."""
        self._bulletin.add(found.transition)

    def news(
        self,
        now: float,
        *,
        at_once: bool = False,
        held: Callable[[Transition], bool] = lambda _: False,
    ) -> list[News]:
        """What is to be reported by now: few events, each of which names all models that it concerns."""
        return self._bulletin.due(now, at_once=at_once, held=held)

    def _live(self) -> list[ModelStreams]:
        # The references are copied in one step; iterating the mapping would fail when a thread adds to it.
        return [streams for reference in self._models.valuerefs() if (streams := reference()) is not None]
