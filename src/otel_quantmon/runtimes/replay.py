"""How the model of a runtime's object is run again, for a golden baseline."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from otel_quantmon.models.identity import Model
from otel_quantmon.runtimes.tflite.reading import buffer_of

__all__ = ["on_second_instance", "on_session"]


def on_session(instance: weakref.ref[Any], model: Model) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what runs the session itself, which takes any number of callers."""
    from otel_quantmon.fidelity.engines import ModelGoneError

    names = [output.name for output in model.loaded.outputs]

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        session = instance()
        if session is None:
            raise ModelGoneError("the session has gone")
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def on_second_instance(
    instance: weakref.ref[Any], model: Model
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what runs a second instance of the model: an interpreter is for one caller at a time.

    Raises:
        EngineError: There can be no second instance.
    """
    from otel_quantmon.fidelity.engines import EngineError, open_engine
    from otel_quantmon.models.formats import read_digest
    from otel_quantmon.models.formats.source import read_regular

    # An interpreter that was loaded from a buffer keeps it for its own use. A file is read once: the content that is
    # checked has to be the one that is loaded.
    content: Any = read_regular(model.path) if model.path else buffer_of(instance())
    if not isinstance(content, bytes):
        raise EngineError(
            "what the model was loaded from is not known, so there is no second instance to replay it on"
        )
    if model.digest != read_digest(content):
        raise EngineError(
            f"{model.path!r} has changed since the model was loaded, so there is no second instance to replay it on"
        )
    return open_engine(content).run
