"""What ``quantmon doctor -- COMMAND`` has in each Python process of the command: it looks, and tells at exit.

A copy of this file is ``sitecustomize``, first on ``PYTHONPATH``, and may be run by a Python that has no otel-quantmon:
it imports the standard library alone. Where ``opentelemetry-instrument`` puts its own ``sitecustomize`` before it, the
entry point ``opentelemetry_pre_instrument`` of the same folder begins it.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import json
import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_RUNTIMES = ("onnxruntime", "tensorflow", "ai_edge_litert", "tflite_runtime")
_begun: list[int] = []


def begin() -> None:
    """Look at this process when it ends; once."""
    if os.environ.get("_QUANTMON_WITNESS") and os.getpid() not in _begun:
        _begun.append(os.getpid())
        _write({"argv": sys.orig_argv, "ended": False})
        atexit.register(_tell)


def _tell() -> None:
    modules = sys.modules
    instrumentors = modules.get("otel_quantmon.instrumentors")
    names = ("ONNXRuntimeInstrumentor", "TFLiteInstrumentor")
    instrumented = instrumentors is not None and any(
        getattr(instrumentors, name)().is_instrumented_by_opentelemetry for name in names
    )
    _write(
        {
            "argv": sys.orig_argv,
            "ended": True,
            "python": sys.executable,
            "installed": importlib.util.find_spec("otel_quantmon") is not None,
            "runtimes": [name for name in _RUNTIMES if name in modules],
            "instrumented": instrumented,
            "providers": {
                "traces": _provider("opentelemetry.trace", "_TRACER_PROVIDER"),
                "metrics": _provider("opentelemetry.metrics._internal", "_METER_PROVIDER"),
                "logs": _provider("opentelemetry._logs._internal", "_LOGGER_PROVIDER"),
            },
        }
    )


def _provider(module: str, name: str) -> str | None:
    found = getattr(sys.modules.get(module), name, None)
    return None if found is None else type(found).__module__ + "." + type(found).__qualname__


def _write(told: dict[str, object]) -> None:
    path = os.path.join(os.environ["_QUANTMON_WITNESS"], f"{os.getpid()}.json")
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(told, file)
    except OSError:
        # Nothing of this is to disturb the application.
        pass


def _go_on() -> None:
    """Import the ``sitecustomize`` that this one has hidden, if there is one."""
    kept = list(sys.path)
    sys.path[:] = [path for path in kept if os.path.abspath(path) != _FOLDER]
    own = sys.modules.pop("sitecustomize", None)
    try:
        if importlib.util.find_spec("sitecustomize") is not None:
            # Whatever it does is the application's.
            importlib.import_module("sitecustomize")
        elif own is not None:
            sys.modules["sitecustomize"] = own
    finally:
        sys.path[:] = kept


if __name__ == "sitecustomize":
    begin()
    _go_on()
