"""What ONNX Runtime made of a graph."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from otel_quantmon.formats import read_facts
from otel_quantmon.monitors.graph import GraphHealth, unfused_pairs
from otel_quantmon.probe.model import Model

__all__ = ["inspect"]

# A twin session is made for a moment, to see the optimized graph: not of a model whose copy would be felt.
_LARGEST_TWIN = 64 * 1024**2


def inspect(session: Any, model: Model) -> GraphHealth:
    """Look at the graph of ``session``. Not on a caller's thread: it takes about as long as loading the model."""
    unfused = None
    facts = model.facts
    if facts.scheme == "qdq" and model.source is not None and (facts.size or 0) <= _LARGEST_TWIN:
        # None while the application re-creates the session.
        options = session.get_session_options()
        unfused = None if options is None else _unfused(model.source, options.graph_optimization_level)
    return GraphHealth(_nodes(session, model), unfused)


def _nodes(session: Any, model: Model) -> dict[str, int]:
    # Not the session's own list, which is empty for a moment while the application re-creates it.
    providers = model.loaded.providers
    if len(providers) == 1 and model.facts.operators:
        return {providers[0]: sum(model.facts.operators.values())}
    nodes: dict[str, int] = {}
    try:
        subgraphs = session.get_provider_graph_assignment_info()
    except Exception:  # noqa: BLE001  ONNX Runtime's own errors have no common base
        # Before 1.24, a session that was not told to record it, or one that is being re-created.
        return nodes
    for subgraph in subgraphs:
        provider = str(subgraph.ep_name)
        nodes[provider] = nodes.get(provider, 0) + len(subgraph.get_nodes())
    return nodes


def _unfused(source: str | bytes, level: Any) -> int | None:
    onnxruntime: Any = sys.modules["onnxruntime"]
    with tempfile.TemporaryDirectory(prefix="otel-quantmon-") as folder:
        optimized = str(Path(folder) / "optimized.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.optimized_model_filepath = optimized
        try:
            onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001  a custom operator, or a fusion that cannot be written to a file
            return None
        return unfused_pairs(read_facts(optimized))
