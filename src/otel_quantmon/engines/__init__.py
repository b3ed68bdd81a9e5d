"""Models that this project runs itself: references, twins for a replay, both sides of an offline comparison.

Unlike `otel_quantmon.runtimes`, nothing here is the application's: a runtime is imported if it has to be, and runs
with one thread unless told otherwise.
"""

from __future__ import annotations

from otel_quantmon.engines.engine import Engine, EngineError, open_engine
from otel_quantmon.engines.feeding import feed

__all__ = ["Engine", "EngineError", "feed", "open_engine"]
