"""One loaded model under observation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from otel_quantmon.hooks import NO_HOOKS, Hooks
from otel_quantmon.models.description import LoadedModel, Method
from otel_quantmon.models.graph_health import GraphHealth
from otel_quantmon.models.identity import Model
from otel_quantmon.models.names import Names
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.process.watchdog import Timeouts
from otel_quantmon.recording.pending import PendingCalls
from otel_quantmon.recording.recorder import Recorder
from otel_quantmon.recording.series import Series
from otel_quantmon.settings import Settings
from otel_quantmon.telemetry.providers import Providers

__all__ = ["Probe", "ProbeHost", "Replay"]

Replay: TypeAlias = Callable[["weakref.ref[Any]", Model], Callable[[Mapping[str, Any]], dict[str, Any]]]
"""From a reference to the runtime's object and its model to what runs that model again, see `Probe.replayer`."""


class ProbeHost(Protocol):
    """What the probes of one pair of providers have in common.

    Attributes:
        names: Names of all models.
        recorder: Recorder of all calls.
        providers: Where all is reported.
    """

    names: Names
    recorder: Recorder
    providers: Providers

    def series(self, model: Model) -> Series:
        """Return the series of ``model``."""
        ...

    def begin(self, probe: Probe, state: CallState) -> None:
        """Record and sample the calls of ``state``, which is new, of ``probe``."""
        ...

    def moved(self, model: Model, before: str) -> None:
        """Take note that ``model`` runs on another execution provider than ``before``."""
        ...


class Probe:
    """Is attached to the runtime's object, keeps nothing of it alive, and goes when it goes.

    Args:
        instance: The runtime's object.
        loaded: Description of the model, as the runtime gives it.
        host: What the probe belongs to.
        settings: Settings of the process.
        hooks: Hooks of the application.
        timeouts: What ends a call at its timeout, None where the runtime has no way to.
        replay: How the model is run again, None where it cannot be.

    Attributes:
        instance: Reference to the runtime's object.
        model: The loaded model.
        states: Call states by method; None for one that is not to be observed. A method that is not in it has not
            been called yet, see `state`.
        health: Health of the graph, None until that has been inspected.
        load_rss: Bytes by which the process grew while the model was loaded, None when that was not seen.
    """

    __slots__ = (
        "__weakref__",
        "_hooks",
        "_host",
        "_loading",
        "_replay",
        "_timeouts",
        "_to_warm_up",
        "health",
        "instance",
        "load_rss",
        "model",
        "states",
    )

    def __init__(
        self,
        instance: object,
        loaded: LoadedModel,
        host: ProbeHost,
        settings: Settings,
        hooks: Hooks = NO_HOOKS,
        timeouts: Timeouts | None = None,
        replay: Replay | None = None,
    ) -> None:
        self.instance = weakref.ref(instance)
        self.model = Model(loaded, settings, host.names)
        self.states: dict[Method, CallState | None] = {}
        self.load_rss: int | None = None
        self.health: GraphHealth | None = None
        self._loading = object()
        self._to_warm_up: dict[Method, int] = {}
        self._host = host
        self._replay = replay
        self._hooks = hooks
        self._timeouts = timeouts

    def state(self, method: Method) -> CallState | None:
        """Return the call state of ``method``, made at its first call."""
        state = None
        if self.model.settings.enabled:
            probe, loading = weakref.ref(self), self._loading

            def model_alive() -> bool:
                found = probe()
                return found is not None and found._loading is loading

            host = self._host
            state = CallState(
                self.model,
                method,
                host.series(self.model),
                host.recorder,
                host.providers,
                self._hooks,
                self._timeouts,
                model_alive,
            )
            state.to_warm_up = self._to_warm_up.get(method, state.to_warm_up)
        # Two threads may both come here first; what counts is that both go on with the same call state.
        kept = self.states.setdefault(method, state)
        if kept is state and state is not None:
            self._host.begin(self, state)
        return kept

    def calls(self) -> list[PendingCalls]:
        """Return the calls of each method that was called."""
        return [state for state in list(self.states.values()) if state is not None]

    def replayer(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Return what runs the model on inputs by name and gives its outputs by name.

        Raises:
            EngineError: The model cannot be run again.
        """
        if self._replay is None:
            from otel_quantmon.fidelity.engines import EngineError

            raise EngineError(f"a model of {self.model.loaded.runtime} cannot be run again here")
        return self._replay(self.instance, self.model)

    def reload(self, loaded: LoadedModel) -> bool:
        """Take over the description of a re-created session, such as the provider that it fell back to.

        True if its graph may run elsewhere than before.
        """
        # What was known from the construction alone is not in the new description.
        before = self.model.loaded
        loaded = self.model.as_known(replace(loaded, source=None, requested=before.requested))
        if loaded == before:
            return False
        self.model.loaded = loaded
        for state in self.calls():
            state.lingers = True
        # The old call states are to be forgotten, also by the recorder, or each change would add to them for ever.
        self._loading = object()
        # A resized input does not make a warm model cold, nor do two between which it was not called.
        self._to_warm_up.update(
            (method, state.to_warm_up) for method, state in self.states.items() if state is not None
        )
        self.states = {}
        if before.providers and loaded.provider != before.provider:
            self._host.moved(self.model, before.provider)
        return (loaded.provider, loaded.providers) != (before.provider, before.providers)
