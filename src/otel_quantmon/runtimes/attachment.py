"""What ties an instrumentor to the objects of a runtime: it patches their class, and finds or makes their probes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from time import perf_counter_ns
from typing import Any, Protocol, TypeVar

from otel_quantmon.guard import guarded, internal_error
from otel_quantmon.hooks import NO_HOOKS, Hooks
from otel_quantmon.monitors.graph import GraphHealth
from otel_quantmon.probe.ambient import current_context, suppressed
from otel_quantmon.probe.call import PROBE, observed
from otel_quantmon.probe.ending import error_type_of
from otel_quantmon.probe.lane import Lane
from otel_quantmon.probe.lifecycle import reset_in_children
from otel_quantmon.probe.loaded import LoadedModel, Method
from otel_quantmon.probe.model import Model
from otel_quantmon.probe.observer import Observer
from otel_quantmon.probe.probe import Probe
from otel_quantmon.probe.process import resident_memory
from otel_quantmon.probe.watchdog import Timeouts
from otel_quantmon.probe.worker import worker
from otel_quantmon.runtimes.patching import Patches
from otel_quantmon.settings import Settings

__all__ = ["Attachment", "Description"]

F = TypeVar("F", bound=Callable[..., Any])


class Description(Protocol):
    """Reads a model from the runtime's object."""

    def __call__(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> LoadedModel:
        """Describe ``instance``, which was constructed with these arguments.

        Without arguments if that was not seen. ``instance`` is None if the construction failed; then the
        arguments are all there is to tell.
        """
        ...


class _NoLanes(dict[Method, None]):
    def __missing__(self, _: Method) -> None:
        return None


class _NotObserved:
    """Takes the place of the probe on an object that could not be given one."""

    __slots__ = ()
    lanes = _NoLanes()


_NOT_OBSERVED = _NotObserved()


class Attachment:
    """Attaches probes to the objects of one class, for one instrumentor while it is on.

    Args:
        describe: reads a model from an object of the class.
        inspect: looks at the graph that the runtime made of it.
        in_background: True if `inspect` may, and for its cost should, run on another thread than the object's.
        observer, settings, hooks, timeouts: what the probes are made with.
    """

    def __init__(
        self,
        describe: Description,
        observer: Observer,
        settings: Settings,
        hooks: Hooks = NO_HOOKS,
        timeouts: Timeouts | None = None,
        inspect: Callable[[Any, Model], GraphHealth] | None = None,
        *,
        in_background: bool = True,
    ) -> None:
        self._describe = describe
        self._inspect = inspect
        self._in_background = in_background
        self._observer = observer
        self._settings = settings
        self._hooks = hooks
        self._timeouts = timeouts
        self._patches = Patches()
        self._holders: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._active = True
        if timeouts is not None:
            reset_in_children(timeouts)

    def patch_method(
        self,
        cls: type,
        method: Method,
        wrap: Callable[[Any, Method, Callable[[Any, Method], Lane | None]], Any] = observed,
    ) -> None:
        """Observe ``cls.<method.name>``, by the wrapper that ``wrap`` makes of it."""
        self._patches.apply(cls, method.name, lambda original: wrap(original, method, self.lane_of))

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
                        probe.reload(self._describe(instance, (), {}))
                        if self._inspect is not None and not self._in_background and probe.health is None:
                            probe.health = self._inspect(instance, probe.model)
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

    def lane_of(self, instance: Any, method: Method) -> Lane | None:
        """The lane of a method that is called on ``instance`` for the first time; None if it is not observed."""
        try:
            if not self._active or suppressed(current_context()):
                return None
            probe = getattr(instance, PROBE, None) or self._attach(instance, (), {})
            return probe.lane(method) if isinstance(probe, Probe) else None
        except Exception as error:  # noqa: BLE001  the guard of the project
            with guarded:
                # Or it would fail again at each call.
                self._hang(instance, _NOT_OBSERVED)
            internal_error(error)
            return None

    def share(self, instance: Any, holder: Any) -> None:
        """Let ``instance``, such as a signature runner, have the probe of ``holder``, which has the model."""
        if self._active and not suppressed(current_context()):
            self._hang(instance, getattr(holder, PROBE, None) or self._attach(holder, (), {}))

    def _attach(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Probe:
        try:
            loaded = self._describe(instance, args, kwargs)
            probe = Probe(instance, loaded, self._observer, self._settings, self._hooks, self._timeouts)
        except Exception:
            self._hang(instance, _NOT_OBSERVED)
            raise
        # Two threads may both come here with the first call; setdefault() is one step, and one probe counts both.
        attributes: dict[str, Any] = instance.__dict__
        kept: Probe = attributes.setdefault(PROBE, probe)
        if kept is not probe:
            return kept
        self._hang(instance, probe)
        self._observer.add(probe)
        if probe.model.settings.enabled:
            reference = weakref.ref(probe)
            worker.submit(lambda: self._look_at(reference))
        return probe

    def _look_at(self, reference: weakref.ref[Probe]) -> None:
        """Read what may be read in the background, unless the model has gone meanwhile."""
        probe = reference()
        if probe is None:
            return
        try:
            instance = probe.instance()
            if self._inspect is not None and self._in_background and instance is not None:
                probe.health = self._inspect(instance, probe.model)
            self._observer.inspected(probe.model)
        finally:
            probe.model.release_source()

    def _hang(self, instance: Any, probe: Probe | _NotObserved) -> None:
        setattr(instance, PROBE, probe)
        self._holders[id(instance)] = instance

    def _load(self, construct: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._active or suppressed(current_context()):
            return construct()
        entered = perf_counter_ns()
        resident = None
        with guarded:
            resident = resident_memory()
        start = perf_counter_ns()
        try:
            instance = construct()
        except BaseException as error:
            end = perf_counter_ns()
            with guarded:
                model = Model(self._describe(None, args, kwargs), self._settings)
                self._observer.loaded(model, (end - start) * 1e-9, error_type_of(error), 0)
            raise
        end = perf_counter_ns()
        with guarded:
            probe = self._attach(instance, args, kwargs)
            if probe.model.settings.enabled:
                if resident is not None:
                    probe.load_rss = max(0, resident_memory() - resident)
                overhead = start - entered + perf_counter_ns() - end
                self._observer.loaded(probe.model, (end - start) * 1e-9, None, overhead)
        return instance
