"""What ONNX Runtime made of a graph."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
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

# Entries of a session's configuration on which the pairs that are left depend; ONNX Runtime's header
# onnxruntime_session_options_config_keys.h explains them.
_DECISIVE = (
    "session.disable_quant_qdq",
    "session.disable_double_qdq_remover",
    "session.disable_qdq_constant_folding",
    "session.disable_aot_function_inlining",
    "session.enable_quant_qdq_cleanup",
    "session.enable_dq_matmulnbits_fusion",
    "session.graph_optimizations_loop_level",
    "session.qdq_matmulnbits_accuracy_level",
    "session.qdq_matmulnbits_block_size",
    "session.qdqisint8allowed",
    "session.x64quantprecision",
    "optimization.constant_folding_max_output_size_in_bytes",
    "optimization.disable_specified_optimizers",
)


def inspect(session: Any, model: Model) -> GraphHealth:
    """Inspect the graph of ``session``. Not on a caller's thread: it takes about as long as loading the model."""
    unfused = None
    facts = model.facts
    if facts.scheme == "qdq" and model.unchanged and (facts.size or 0) <= _LARGEST_SECOND_INSTANCE:
        # None while the application re-creates the session.
        options = session.get_session_options()
        source = model.source
        if options is not None and source is not None:
            unfused = _unfused(source, options, model.loaded.disabled_optimizers)
    return GraphHealth(_nodes(session, model), unfused)


def _nodes(session: Any, model: Model) -> dict[str, int]:
    # Not the session's own list, which is empty for a moment while the application re-creates it.
    providers = local_providers(model.loaded.providers)
    operators = model.facts.operators
    remote = any(operator.startswith(_REMOTE_OPERATORS) for operator in operators)
    if len(providers) == 1 and operators and not remote:
        return {providers[0]: sum(operators.values())}
    return assigned_nodes(session)


def _unfused(source: str | bytes, given: Any, disabled: frozenset[str]) -> int | None:
    try:
        with tempfile.TemporaryDirectory(prefix="otel-quantmon-", ignore_cleanup_errors=True) as folder:
            return _unfused_by_way_of(Path(folder) / "optimized.onnx", source, given, disabled)
    except OSError as error:
        pass_on(error)
        # There is nowhere to write to, as in a container with a read-only root.
        return None


def _unfused_by_way_of(
    optimized: Path, source: str | bytes, given: Any, disabled: frozenset[str]
) -> int | None:
    onnxruntime: Any = sys.modules["onnxruntime"]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = given.graph_optimization_level
    for key in _DECISIVE:
        # An entry that is not set is an error.
        with suppress(RuntimeError):
            options.add_session_config_entry(key, given.get_session_config_entry(key))
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimized)
    try:
        onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
    except Exception as error:  # noqa: BLE001  a custom operator, or a fusion that cannot be written to a file
        pass_on(error)
        return None
    return unfused_pairs(read_facts(optimized))
