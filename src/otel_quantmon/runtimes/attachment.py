"""What ties an instrumentor to the objects of a runtime: it patches their class, and finds or makes their probes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from time import perf_counter_ns
from types import ModuleType
from typing import Any, Protocol, TypeVar

from otel_quantmon.guard import guarded, internal_error, pass_on
from otel_quantmon.hooks import NO_HOOKS, Hooks
from otel_quantmon.models.description import LoadedModel, Method
from otel_quantmon.models.formats.source import Identity, identity_of
from otel_quantmon.models.graph_health import GraphHealth
from otel_quantmon.models.identity import Model
from otel_quantmon.pipeline import Pipeline
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.probe.fast_path import PROBE, Idle, StateOf, observed
from otel_quantmon.probe.probe import Probe, Replay
from otel_quantmon.process.fork import reset_in_children
from otel_quantmon.process.host import resident_memory
from otel_quantmon.process.native import native_calls
from otel_quantmon.process.watchdog import Timeouts
from otel_quantmon.process.worker import worker
from otel_quantmon.recording.outcome import error_type_of
from otel_quantmon.runtimes.patching import Patches
from otel_quantmon.settings import Settings
from otel_quantmon.telemetry.context import current_context, suppress_instrumentation, suppressed

__all__ = ["Attachment", "Describe", "Runtime"]

F = TypeVar("F", bound=Callable[..., Any])


class Describe(Protocol):
    """Reads a model from the runtime's object."""

    def __call__(
        self, package: str, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any], /
    ) -> LoadedModel:
        """Describe ``instance``, which was constructed with these arguments by a class of ``package``.

        Without arguments if that was not seen. ``instance`` is None if the construction failed; then the
        arguments are all that is known.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Runtime:
    """How one runtime is observed; `otel_quantmon.runtimes.registry` lists them.

    Attributes:
        patch: Patches the classes of a module of the runtime, by the attachment's methods.
        describe: Reads a model from an object of these classes.
        replay: Runs a loaded model again, for a golden baseline; None where that cannot be.
        inspect: Looks at the graph that the runtime made of a model; None where it does not show it.
        in_background: True if `inspect` may, and for its cost should, run on another thread than the object's.
        timeouts: Makes what ends a call that takes too long; None where a call cannot be ended.
    """

    patch: Callable[[Attachment, ModuleType], None]
    describe: Describe
    replay: Replay | None = None
    inspect: Callable[[Any, Model], GraphHealth] | None = None
    in_background: bool = True
    timeouts: Callable[[], Timeouts] | None = None


class _NoStates(dict[Method, None]):
    def __missing__(self, _: Method) -> None:
        return None


class _NotObserved:
    """Takes the place of the probe on an object that could not be given one."""

    __slots__ = ()
    states = _NoStates()


_NOT_OBSERVED = _NotObserved()


class Attachment:
    """Attaches probes to the objects of a runtime's classes, for one instrumentor while it is on.

    Args:
        runtime: How the runtime is observed.
        module: The runtime's module, whose classes are patched.
        pipeline, settings, hooks: What the probes are made with.
    """

    def __init__(
        self,
        runtime: Runtime,
        module: ModuleType,
        pipeline: Pipeline,
        settings: Settings,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._describe = partial(runtime.describe, module.__name__.partition(".")[0])
        self._inspect = runtime.inspect
        self._in_background = runtime.in_background
        self._pipeline = pipeline
        self._settings = settings
        self._hooks = hooks
        self._timeouts = timeouts = None if runtime.timeouts is None else runtime.timeouts()
        self._replay = runtime.replay
        self._patches = Patches()
        self._holders: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._active = True
        self._classes: tuple[type, ...] = ()
        if timeouts is not None:
            reset_in_children(timeouts)
        runtime.patch(self, module)

    def patch_method(
        self,
        cls: type,
        method: Method,
        wrap: Callable[[Any, Method, StateOf, Idle], Any] = observed,
    ) -> None:
        """Observe ``cls.<method.name>``, by the wrapper that ``wrap`` makes of it."""
        self._classes += (cls,)
        idle = self._pipeline.providers.idle
        self._patches.apply(cls, method.name, lambda original: wrap(original, method, self.state_of, idle))

    def patch_construction(self, cls: type) -> None:
        """Observe ``cls.__init__``."""

        def wrap(original: F) -> F:
            @wraps(original)
            def construct(instance: Any, /, *args: Any, **kwargs: Any) -> None:
                self._load(lambda: (original(instance, *args, **kwargs), instance)[1], args, kwargs)

            return construct  # type: ignore[return-value]  # as in `observed`

        self._patches.apply(cls, "__init__", wrap)

    def patch_factory(self, cls: type, name: str) -> None:
        """Observe ``cls.<name>``, a classmethod that constructs."""

        def wrap(original: Callable[..., Any]) -> Any:
            @wraps(original)
            def construct(owner: type, /, *args: Any, **kwargs: Any) -> Any:
                return self._load(lambda: original(owner, *args, **kwargs), args, kwargs)

            found: Any = classmethod(construct)  # pyright: ignore[reportUnknownVariableType]  not subscriptable at run time
            return found

        self._patches.apply(cls, name, wrap)

    def patch_change(self, cls: type, name: str) -> None:
        """Observe ``cls.<name>``, after which a model may have to be described anew."""

        def wrap(original: F) -> F:
            @wraps(original)
            def change(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
                result = original(instance, *args, **kwargs)
                probe = getattr(instance, PROBE, None)
                if self._active and isinstance(probe, Probe):
                    with guarded:
                        moved = probe.reload(self._describe(instance, (), {}))
                        if not self._in_background and (moved or probe.health is None):
                            self._inspect_graph(probe)
                        elif moved:
                            self._inspect_later(weakref.ref(probe))
                return result

            return change  # type: ignore[return-value]  # as in `observed`

        self._patches.apply(cls, name, wrap)

    def detach(self) -> None:
        """Put the classes back as they were, and take the probes off their objects."""
        self._active = False
        self._patches.undo()
        # The references are copied in one step: other threads may go on loading.
        for reference in self._holders.valuerefs():
            with guarded:
                vars(reference()).pop(PROBE, None)

    def state_of(self, instance: Any, method: Method) -> CallState | None:
        """Return the call state of a method at its first call on ``instance``; None if it is not observed."""
        try:
            if not self._active or suppressed(current_context()):
                return None
            if not self.is_of(instance):
                return None
            # Not by `getattr`, for which a subclass may have a method that raises.
            attributes: dict[str, Any] = instance.__dict__
            probe = attributes.get(PROBE) or self._attach(instance, (), {})
            return probe.state(method) if isinstance(probe, Probe) else None
        except Exception as error:  # noqa: BLE001  the guard of the project
            pass_on(error)
            with guarded:
                # Or it would fail again at each call.
                self._set_probe(instance, _NOT_OBSERVED)
            internal_error(error)
            return None

    def is_of(self, instance: Any) -> bool:
        """Return True if the class of ``instance`` is patched; a caller may give anything for ``self``."""
        return issubclass(type(instance), self._classes)

    def share(self, instance: Any, holder: Any) -> None:
        """Let ``instance``, such as a signature runner, have the probe of ``holder``, which has the model."""
        if self._active and not suppressed(current_context()):
            self._set_probe(instance, getattr(holder, PROBE, None) or self._attach(holder, (), {}))

    def _attach(
        self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any], identity: Identity | None = None
    ) -> Probe:
        try:
            loaded = replace(self._describe(instance, args, kwargs), identity=identity)
            probe = Probe(
                instance, loaded, self._pipeline, self._settings, self._hooks, self._timeouts, self._replay
            )
        except Exception as error:
            # What the application raises in the midst of this is no reason never to observe the model.
            pass_on(error)
            self._set_probe(instance, _NOT_OBSERVED)
            raise
        # Two threads may both come here with the first call; setdefault() is one step, and one probe counts both.
        attributes: dict[str, Any] = instance.__dict__
        kept: Probe = attributes.setdefault(PROBE, probe)
        if kept is not probe:
            return kept
        self._set_probe(instance, probe)
        self._pipeline.add(probe)
        if probe.model.settings.enabled:
            reference = weakref.ref(probe)
            worker.submit(lambda: self._read(reference))
        return probe

    def _read(self, reference: weakref.ref[Probe]) -> None:
        """Read what may be read in the background, unless the model has gone meanwhile."""
        probe = reference()
        if probe is None:
            return
        try:
            # Before the graph, which takes longer: a short run is not to end without it.
            probe.model.read_digest()
            if self._in_background:
                self._inspect_graph(probe)
            self._pipeline.inspected(probe.model)
        finally:
            probe.model.release_source()

    def _inspect_later(self, reference: weakref.ref[Probe]) -> None:
        def job() -> None:
            probe = reference()
            if probe is not None:
                self._inspect_graph(probe)

        worker.submit(job)

    def _inspect_graph(self, probe: Probe) -> None:
        instance = probe.instance()
        if self._inspect is None or instance is None:
            return
        before = probe.health
        with native_calls.allowed() as allowed, suppress_instrumentation():
            if not allowed:
                return
            health = self._inspect(instance, probe.model)
        if before is not None and health.unfused is None:
            # Known of the file, or of a buffer that is no longer there to be looked at.
            health = replace(health, unfused=before.unfused)
        probe.health = health

    def _set_probe(self, instance: Any, probe: Probe | _NotObserved) -> None:
        vars(instance)[PROBE] = probe
        self._holders[id(instance)] = instance

    def _load(self, construct: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._active or suppressed(current_context()):
            return construct()
        entered = perf_counter_ns()
        resident = identity = None
        with guarded:
            # Before: a file that is written to while the runtime reads it is not what the runtime has read.
            source = self._describe(None, args, kwargs).source
            identity = identity_of(source) if isinstance(source, str) else None
            resident = resident_memory()
        start = perf_counter_ns()
        try:
            instance = construct()
        except BaseException as error:
            end = perf_counter_ns()
            with guarded:
                model = Model(
                    self._describe(None, args, kwargs), self._settings, self._pipeline.names, failed=True
                )
                self._pipeline.loaded(model, (end - start) * 1e-9, error_type_of(error), 0)
            raise
        end = perf_counter_ns()
        with guarded:
            probe = self._attach(instance, args, kwargs, identity)
            if probe.model.settings.enabled:
                if resident is not None:
                    probe.load_rss = max(0, resident_memory() - resident)
                overhead = start - entered + perf_counter_ns() - end
                self._pipeline.loaded(probe.model, (end - start) * 1e-9, None, overhead)
        return instance
