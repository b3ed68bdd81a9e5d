"""The two instrumentors, which patch nothing before the application imports a runtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_quantmon.guard import guarded
from otel_quantmon.hooks import Hooks
from otel_quantmon.settings import Settings, load_settings

if TYPE_CHECKING:
    from otel_quantmon.probe.observer import Observer
    from otel_quantmon.runtimes.attachment import Attachment

__all__ = ["ONNXRuntimeInstrumentor", "TFLiteInstrumentor"]

_logger = logging.getLogger("otel_quantmon")

_Attach = "Callable[[ModuleType, Observer, Settings, Hooks], Attachment]"


class _Instrumentor(BaseInstrumentor):  # type: ignore[misc]  # its module switches type checking off for itself
    """What the two have in common: waiting for imports, and undoing.

    ``instrument`` takes these keyword arguments, all optional:

    Args:
        tracer_provider, meter_provider: where spans and metrics go; the global providers by default, also
            when they are set later.
        settings: a `Settings` instead of the environment and the file it names.
        request_hook, response_hook: see `RequestHook` and `ResponseHook`.
    """

    _modules: tuple[str, ...] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """None in particular: the runtimes come in many distributions, and any one of them will do.

        `opentelemetry-instrument` checks for one by the package's ``instruments-any``.
        """
        return ()

    def _attach(self, module: ModuleType, observer: Observer, settings: Settings, hooks: Hooks) -> Attachment:
        raise NotImplementedError

    def _instrument(self, **kwargs: Any) -> None:
        # Whatever goes wrong here must not keep the other instrumentors from being loaded.
        with guarded:
            self._attachments: list[Attachment] = []
            settings = kwargs.get("settings")
            if settings is None:
                settings = load_settings()
            if not settings.enabled or _sdk_disabled():
                _logger.debug("otel-quantmon is switched off; nothing is patched")
                return
            hooks = Hooks(kwargs.get("request_hook"), kwargs.get("response_hook"))
            providers = kwargs.get("tracer_provider"), kwargs.get("meter_provider")
            self._generation = generation = object()
            for name in self._modules:
                wrapt.register_post_import_hook(
                    self._post_import(generation, providers, settings, hooks), name
                )

    def _post_import(
        self, generation: object, providers: tuple[Any, Any], settings: Settings, hooks: Hooks
    ) -> Callable[[ModuleType], None]:
        def patch(module: ModuleType) -> None:
            # A hook cannot be taken back, so one from before an uninstrument() has to know that it is stale.
            if self._generation is not generation:
                return
            # What is raised here would be raised by the application's own import statement.
            with guarded:
                from otel_quantmon.probe.lifecycle import follow_forks
                from otel_quantmon.probe.observer import observer_of

                follow_forks()
                observer = observer_of(*providers, settings)
                self._attachments.append(self._attach(module, observer, settings, hooks))

        return patch

    def _uninstrument(self, **_: Any) -> None:
        with guarded:
            self._generation = None
            while self._attachments:
                self._attachments.pop().detach()


class ONNXRuntimeInstrumentor(_Instrumentor):
    """Observes ONNX Runtime's `InferenceSession`."""

    _modules = ("onnxruntime.capi.onnxruntime_inference_collection",)

    def _attach(self, module: ModuleType, observer: Observer, settings: Settings, hooks: Hooks) -> Attachment:
        from otel_quantmon.runtimes import onnxruntime

        return onnxruntime.attach(module, observer, settings, hooks)


class TFLiteInstrumentor(_Instrumentor):
    """Observes the TensorFlow Lite interpreter in TensorFlow, LiteRT and tflite-runtime, and LiteRT's models."""

    _modules = (
        "tensorflow.lite.python.interpreter",
        "ai_edge_litert.interpreter",
        "tflite_runtime.interpreter",
        "ai_edge_litert.compiled_model",
    )

    def _attach(self, module: ModuleType, observer: Observer, settings: Settings, hooks: Hooks) -> Attachment:
        from otel_quantmon.runtimes import litert, tflite

        attach = litert.attach if module.__name__ == litert.MODULE else tflite.attach
        return attach(module, observer, settings, hooks)


def _sdk_disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
