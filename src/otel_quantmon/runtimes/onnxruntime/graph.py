"""What ONNX Runtime made of a graph."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from otel_quantmon.guard import pass_on
from otel_quantmon.models.formats import read_facts
from otel_quantmon.models.graph_health import GraphHealth, unfused_pairs
from otel_quantmon.models.identity import Model
from otel_quantmon.runtimes.onnxruntime.reading import assigned_nodes, local_providers

__all__ = ["inspect"]

_REMOTE_OPERATORS = ("Azure", "OpenAI")

# A second session is made for a moment, to see the optimized graph: not of a model whose copy would be felt.
_LARGEST_SECOND_INSTANCE = 64 * 1024**2


def inspect(session: Any, model: Model) -> GraphHealth:
    """Inspect the graph of ``session``. Not on a caller's thread: it takes about as long as loading the model."""
    unfused = None
    facts = model.facts
    if facts.scheme == "qdq" and model.unchanged and (facts.size or 0) <= _LARGEST_SECOND_INSTANCE:
        # None while the application re-creates the session.
        options = session.get_session_options()
        source = model.source
        if options is not None and source is not None:
            unfused = _unfused(source, options.graph_optimization_level)
    return GraphHealth(_nodes(session, model), unfused)


def _nodes(session: Any, model: Model) -> dict[str, int]:
    # Not the session's own list, which is empty for a moment while the application re-creates it.
    providers = local_providers(model.loaded.providers)
    operators = model.facts.operators
    remote = any(operator.startswith(_REMOTE_OPERATORS) for operator in operators)
    if len(providers) == 1 and operators and not remote:
        return {providers[0]: sum(operators.values())}
    return assigned_nodes(session)


def _unfused(source: str | bytes, level: Any) -> int | None:
    try:
        with tempfile.TemporaryDirectory(prefix="otel-quantmon-", ignore_cleanup_errors=True) as folder:
            return _unfused_by_way_of(Path(folder) / "optimized.onnx", source, level)
    except OSError as error:
        pass_on(error)
        # There is nowhere to write to, as in a container with a read-only root.
        return None


def _unfused_by_way_of(optimized: Path, source: str | bytes, level: Any) -> int | None:
    onnxruntime: Any = sys.modules["onnxruntime"]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimized)
    try:
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  a custom operator, or a fusion that cannot be written to a file
        pass_on(error)
        return None
    return unfused_pairs(read_facts(optimized))
