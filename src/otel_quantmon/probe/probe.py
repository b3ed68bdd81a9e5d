"""One loaded model under observation."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from otel_quantmon.hooks import NO_HOOKS, Hooks
from otel_quantmon.monitors.graph import GraphHealth
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.loaded import LoadedModel, Method
from otel_quantmon.probe.model import Model
from otel_quantmon.probe.watchdog import Timeouts
from otel_quantmon.settings import Settings

if TYPE_CHECKING:
    from otel_quantmon.probe.observer import Observer

__all__ = ["Probe"]


class Probe:
    """Hangs on the runtime's object, keeps nothing of it alive, and goes when it goes.

    Attributes:
        instance: the runtime's object.
        model: the loaded model.
        lanes: by method; None for one that is not to be observed. A method that is not in it
            has not been called yet, see `lane`.
        health: of the graph, None until it has been looked at.
        load_rss: bytes by which the process grew while the model was loaded, None when that was not seen.
    """

    __slots__ = (
        "__weakref__",
        "_hooks",
        "_loading",
        "_observer",
        "_timeouts",
        "_to_warm_up",
        "health",
        "instance",
        "lanes",
        "load_rss",
        "model",
    )

    def __init__(
        self,
        instance: object,
        loaded: LoadedModel,
        observer: Observer,
        settings: Settings,
        hooks: Hooks = NO_HOOKS,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.instance = weakref.ref(instance)
        self.model = Model(loaded, settings)
        self.lanes: dict[Method, Lane | None] = {}
        self.load_rss: int | None = None
        self.health: GraphHealth | None = None
        self._loading = object()
        self._to_warm_up: dict[Method, int] = {}
        self._observer = observer
        self._hooks = hooks
        self._timeouts = timeouts

    def lane(self, method: Method) -> Lane | None:
        """The lane of ``method``, made at its first call."""
        lane = None
        if self.model.settings.enabled:
            probe, loading = weakref.ref(self), self._loading

            def model_alive() -> bool:
                found = probe()
                return found is not None and found._loading is loading

            lane = Lane(self.model, method, self._observer, self._hooks, self._timeouts, model_alive)
            lane.to_warm_up = self._to_warm_up.get(method, lane.to_warm_up)
        # Two threads may both come here first; what counts is that both go on with the same lane.
        kept = self.lanes.setdefault(method, lane)
        if kept is lane and lane is not None:
            self._observer.recorder.add(lane)
            self._observer.sample(lane)
            if lane.series.fidelity is not None:
                lane.series.fidelity.replay(self)
        return kept

    def reload(self, loaded: LoadedModel) -> None:
        """Take over what a re-created session tells, such as the provider that it fell back to."""
        # What only the construction told, it does not tell again.
        before = self.model.loaded
        loaded = replace(loaded, source=None, requested=before.requested)
        if loaded == before:
            return
        self.model.loaded = loaded
        # The lanes of before are to be forgotten, also by the recorder, or each change would add to them for ever.
        self._loading = object()
        # A resized input does not make a warm model cold.
        self._to_warm_up = {
            method: lane.to_warm_up for method, lane in self.lanes.items() if lane is not None
        }
        self.lanes = {}
        if before.providers and loaded.providers != before.providers:
            self._observer.fell_back(self.model, before.provider, loaded.provider)
