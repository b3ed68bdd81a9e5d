"""The engine that a file or buffer needs."""

from __future__ import annotations

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.fidelity.engines.engine import Engine, EngineError
from otel_quantmon.models.formats import read_facts

__all__ = ["open_engine"]


def open_engine(
    source: str | bytes, *, threads: int = 1, keep_all_tensors: bool = False, accelerated: bool = False
) -> Engine:
    """Load a model in the runtime that its format asks for.

    Args:
        source: Path or buffer.
        threads: Threads that one run may use.
        keep_all_tensors: True to keep intermediate tensors readable (TFLite only).
        accelerated: True to run it on a GPU where ONNX Runtime has a provider for one.

    Raises:
        EngineError: The file cannot be read or loaded, or its runtime is not installed.
    """
    try:
        facts = read_facts(source)
    except ModelFormatError as error:
        # Its message says of which file.
        raise EngineError(str(error)) from error
    except OSError as error:
        raise EngineError(f"cannot read the model: {error}") from error
    if facts.format == "tflite":
        from otel_quantmon.fidelity.engines.tflite import TFLiteEngine

        return TFLiteEngine(source, facts, threads, keep_all_tensors=keep_all_tensors)
    from otel_quantmon.fidelity.engines.onnx import OnnxEngine

    return OnnxEngine(source, facts, threads, accelerated=accelerated)
