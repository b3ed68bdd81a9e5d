"""Code of users, as mypy and pyright have to see it. It is checked, not run.

A line that ends in an ignore has to be an error, for both checkers report an ignore that is not needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span
from typing_extensions import assert_type

import otel_quantmon
from otel_quantmon import (
    Anomaly,
    InferenceCall,
    InferenceTimeoutError,
    ModelSettings,
    ONNXRuntimeInstrumentor,
    RequestHook,
    ResponseHook,
    Settings,
    TFLiteInstrumentor,
)

assert_type(otel_quantmon.__version__, str)


def on_request(span: Span, call: InferenceCall) -> None:
    assert_type(call.model, str)
    assert_type(call.operation, str)
    assert_type(call.args, tuple[Any, ...])
    assert_type(call.kwargs, Mapping[str, Any])
    span.set_attribute("app.tenant", call.operation)
    call.model = "other"  # type: ignore[misc]  # it is frozen


def on_response(span: Span, call: InferenceCall, result: Any, error: BaseException | None) -> None:
    span.set_attribute("app.ok", error is None)


def on_anomaly(anomaly: Anomaly) -> None:
    assert_type(anomaly.model, str)


def on_sample(model: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> bool:
    return bool(inputs)


class Hook:
    """An object with `__call__` is a hook too, whatever it calls its parameters."""

    def __call__(self, current: Span, inference: InferenceCall) -> None:
        current.set_attribute("app.model", inference.model)


def too_few(span: Span) -> None:
    span.end()


request_hooks: list[RequestHook] = [on_request, Hook()]
response_hook: ResponseHook = on_response
request_hook: RequestHook = too_few  # type: ignore[assignment]  # it takes the call


settings = Settings(spans="parent", models={"wake*": {"timeout": 0.2}})
assert_type(settings.max_models, int)
assert_type(settings.for_model("wake_word"), ModelSettings)
assert_type(settings.for_model("wake_word").timeout, "float | None")
unknown = Settings(spanz="all")  # type: ignore[call-arg]  # there is no such setting


def run() -> None:
    given: dict[str, Any] = {"request_hook": on_request, "response_hook": on_response}
    for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
        instrumentor.instrument(
            settings=settings,
            tracer_provider=TracerProvider(),
            meter_provider=MeterProvider(),
            on_anomaly=on_anomaly,
            sample_hook=on_sample,
            **given,
        )
        instrumentor.uninstrument()


def mistakes(instrumentor: TFLiteInstrumentor) -> None:
    instrumentor.instrument(setings=settings)  # type: ignore[arg-type]  # it is misspelt
    instrumentor.instrument(settings={"timeout": 1})  # type: ignore[arg-type]  # it is no Settings
    instrumentor.instrument(request_hook=too_few)  # type: ignore[arg-type]  # it takes the call
    instrumentor.instrument(tracer_provider=MeterProvider())  # type: ignore[arg-type]  # it is of metrics


def catch() -> float:
    try:
        run()
    except InferenceTimeoutError as error:
        caught: TimeoutError = error
        assert_type(error.model, str)
        assert_type(error.timeout, float)
        return error.timeout if caught.errno is None else 0.0
    return 0.0
