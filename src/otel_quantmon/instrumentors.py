"""The two instrumentors, which patch nothing before the application imports a runtime."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import wrapt

from otel_quantmon.guard import guarded
from otel_quantmon.hooks import AnomalyHook, Hooks, RequestHook, ResponseHook, SampleHook
from otel_quantmon.runtimes import registry
from otel_quantmon.settings import Settings, load_settings
from otel_quantmon.telemetry.instrumentor import BaseInstrumentor

if TYPE_CHECKING:
    from otel_quantmon.pipeline import Pipeline
    from otel_quantmon.runtimes.attachment import Attachment
    from otel_quantmon.telemetry.api import MeterProvider, TracerProvider

__all__ = ["ONNXRuntimeInstrumentor", "TFLiteInstrumentor"]

_logger = logging.getLogger("otel_quantmon")


class _Instrumentor(BaseInstrumentor):  # type: ignore[misc]  # its module switches type checking off for itself
    """What the two have in common: waiting for imports, and undoing."""

    _modules: Mapping[str, str]
    _attachments: tuple[Attachment, ...] = ()
    # Takes hooks out of the lists that they are in while calls are observed.
    _unhook: Callable[[], None] | None = None
    # Held while classes are patched and put back, never over an import of the application's or a call.
    _patching = threading.RLock()
    _claims: dict[str, object]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._claims = {}

    def instrument(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: Any = None,
        settings: Settings | None = None,
        request_hook: RequestHook | None = None,
        response_hook: ResponseHook | None = None,
        on_anomaly: AnomalyHook | None = None,
        sample_hook: SampleHook | None = None,
        skip_dep_check: bool = False,
        **others: NoReturn,
    ) -> Any:
        """Observe models from now on; of threads that come at once, one does it.

        Args:
            tracer_provider, meter_provider, logger_provider: Providers of spans, metrics and events; the global ones by
                default, also when they are set later. Events of models with the same first two all go to the third that
                was given last.
            settings: Settings instead of those of the environment and the file it names.
            request_hook, response_hook: See `RequestHook` and `ResponseHook`.
            on_anomaly: See `AnomalyHook`.
            sample_hook: See `SampleHook`; it is asked of samples of all models that report to these providers.
            skip_dep_check: True if OpenTelemetry need not look whether a runtime is installed.
            others: What later releases of OpenTelemetry pass to every instrumentor. All else is warned of.
        """
        claim = object()
        if self._claims.setdefault("instrument", claim) is not claim:
            _logger.warning("%s is instrumented already", type(self).__name__)
            return None
        try:
            return super().instrument(
                tracer_provider=tracer_provider,
                meter_provider=meter_provider,
                logger_provider=logger_provider,
                settings=settings,
                request_hook=request_hook,
                response_hook=response_hook,
                on_anomaly=on_anomaly,
                sample_hook=sample_hook,
                skip_dep_check=skip_dep_check,
                **others,
            )
        finally:
            if not self.is_instrumented_by_opentelemetry:
                self._claims.clear()

    def uninstrument(self, **kwargs: Any) -> Any:
        """See `BaseInstrumentor.uninstrument`."""
        if not self.is_instrumented_by_opentelemetry:
            # Not to free the claim of a thread that is about to instrument.
            return super().uninstrument(**kwargs)
        try:
            return super().uninstrument(**kwargs)
        finally:
            if not self.is_instrumented_by_opentelemetry:
                self._claims.clear()

    def instrumentation_dependencies(self) -> Collection[str]:
        """None in particular: the runtimes come in many distributions, and any one of them will do.

        `opentelemetry-instrument` checks for one by the package's ``instruments-any``.
        """
        return ()

    def _attach(self, module: ModuleType, pipeline: Pipeline, settings: Settings, hooks: Hooks) -> Attachment:
        from otel_quantmon.runtimes.attachment import Attachment

        attach = import_module(f"otel_quantmon.runtimes.{self._modules[module.__name__]}.attach")
        return Attachment(attach.RUNTIME, module, pipeline, settings, hooks)

    def _instrument(self, **kwargs: Any) -> None:
        # Whatever goes wrong here must not keep the other instrumentors from being loaded.
        with guarded:
            self._attachments = ()
            providers = tuple(kwargs.pop(f"{signal}_provider") for signal in ("tracer", "meter", "logger"))
            hooks = Hooks(kwargs.pop("request_hook"), kwargs.pop("response_hook"))
            background = kwargs.pop("on_anomaly"), kwargs.pop("sample_hook")
            settings = kwargs.pop("settings")
            if kwargs:
                # What OpenTelemetry's own class knows it has taken out.
                _logger.warning(
                    "%s.instrument() has no %s and goes on without; what Settings has goes into settings=Settings(...)",
                    type(self).__name__,
                    ", ".join(kwargs),
                )
            if settings is not None and not isinstance(settings, Settings):
                _logger.warning(
                    "%s.instrument(settings=...) takes a Settings, such as Settings(timeout=0.2), and no %s: those "
                    "of the environment and its file hold",
                    type(self).__name__,
                    type(settings).__name__,
                )
                settings = None
            if settings is None:
                settings = load_settings()
            if not settings.enabled or _sdk_disabled():
                _logger.debug("otel-quantmon is switched off; nothing is patched")
                return
            if settings.exit_timeout is not None and _is_started_child():
                from otel_quantmon.process.leaving import expect_end

                expect_end()
            self._generation = generation = object()
            for name in self._modules:
                wrapt.register_post_import_hook(
                    self._post_import(generation, providers, settings, hooks, background), name
                )

    def _post_import(
        self,
        generation: object,
        providers: tuple[Any, ...],
        settings: Settings,
        hooks: Hooks,
        background: tuple[AnomalyHook | None, SampleHook | None],
    ) -> Callable[[ModuleType], None]:
        def patch(module: ModuleType) -> None:
            if self._generation is not generation:
                return
            # What is raised here would be raised by the application's own import statement.
            with guarded:
                from otel_quantmon.pipeline import pipeline_of
                from otel_quantmon.process.fork import follow_forks

                follow_forks()
                tracers, meters, loggers = providers
                pipeline = pipeline_of(tracers, meters, settings, loggers)
                with self._patching:
                    # A hook cannot be taken back, so one from before an uninstrument() has to know that it is stale.
                    if self._generation is generation:
                        # Each instrumentor waits for several modules.
                        if self._unhook is None:
                            self._unhook = pipeline.hook(*background)
                        self._attachments += (self._attach(module, pipeline, settings, hooks),)

        return patch

    def _uninstrument(self, **_: Any) -> None:
        with guarded, self._patching:
            self._generation = None
            attachments, self._attachments = self._attachments, ()
            for attachment in reversed(attachments):
                attachment.detach()
            unhook, self._unhook = self._unhook, None
            if unhook is not None:
                unhook()


class ONNXRuntimeInstrumentor(_Instrumentor):
    """Observes ONNX Runtime's `InferenceSession`."""

    _modules = registry.ONNXRUNTIME


class TFLiteInstrumentor(_Instrumentor):
    """Observes the TensorFlow Lite interpreter in TensorFlow, LiteRT and tflite-runtime, and LiteRT's models."""

    _modules = registry.TFLITE


def _is_started_child() -> bool:
    """True in a child of `multiprocessing` that runs an interpreter of its own, from that interpreter's start on."""
    # What multiprocessing.spawn puts on its command line: nothing else shows it before the child has read from its
    # parent what it is.
    return "--multiprocessing-fork" in sys.orig_argv


def _sdk_disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
