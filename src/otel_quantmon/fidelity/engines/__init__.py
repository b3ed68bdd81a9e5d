"""Models that this project runs itself: references, second instances for a replay, both sides of an offline comparison.

Unlike `otel_quantmon.runtimes`, nothing here is the application's: a runtime is imported if it has to be, and runs
with one thread by default.
"""

from __future__ import annotations

from otel_quantmon.fidelity.engines.engine import Engine, EngineError, ModelGoneError
from otel_quantmon.fidelity.engines.feeding import feed
from otel_quantmon.fidelity.engines.opening import open_engine

__all__ = ["Engine", "EngineError", "ModelGoneError", "feed", "open_engine"]
