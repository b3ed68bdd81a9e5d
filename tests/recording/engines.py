"""The smallest runtime there is, observed by pipelines of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exported import Exported

from otel_quantmon.hooks import NO_HOOKS
from otel_quantmon.models.description import LoadedModel, Method, declared_shapes
from otel_quantmon.pipeline import Pipeline
from otel_quantmon.probe.call_state import CallState
from otel_quantmon.probe.fast_path import observed
from otel_quantmon.probe.probe import Probe
from otel_quantmon.settings import Settings

INVOKE = Method("invoke", None, declared_shapes)


class Engine:
    """The smallest runtime there is: its models do nothing."""

    _quantmon_probe: Probe

    def invoke(self) -> None:
        return None


def state_of(engine: Engine, method: Method) -> CallState | None:
    return engine._quantmon_probe.state(method)


run: Callable[[Engine], None] = observed(Engine.invoke, INVOKE, state_of)


def loaded(name: str = "net", **facts: Any) -> LoadedModel:
    return LoadedModel(runtime="tflite", runtime_version="1", provider="CPU", label=name, **facts)


def observer_with(exported: Exported, **settings: Any) -> Pipeline:
    return Pipeline(
        exported.tracer_provider,
        exported.meter_provider,
        Settings(**({"judgement_interval": 3600.0} | settings)),
    )


def engine_of(pipeline: Pipeline, model: LoadedModel | None = None, **settings: Any) -> Engine:
    engine = Engine()
    chosen = Settings(**({"spans": "none", "warmup": 0} | settings))
    engine._quantmon_probe = Probe(engine, model or loaded(), pipeline, chosen, NO_HOOKS)
    pipeline.add(engine._quantmon_probe)
    return engine
