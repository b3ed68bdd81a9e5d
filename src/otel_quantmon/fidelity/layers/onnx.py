"""Layers of ONNX models: intermediate tensors made outputs of copies of both graphs.

A tensor that is an output cannot be fused away, so a quantized operator may be computed in parts here that runs
as one otherwise; what its codes stand for is the same to rounding.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from otel_quantmon.fidelity.engines import Engine, open_engine
from otel_quantmon.fidelity.layers.layer import Layer, LayersError, nearest
from otel_quantmon.models.formats.facts import TensorFacts

__all__ = ["TappedOnnx", "tap"]


class TappedOnnx:
    """See `otel_quantmon.fidelity.layers.layer.Tapped`."""

    def __init__(self, engine: Engine, tensors: Mapping[str, str]) -> None:
        self._engine = engine
        self._tensors = tensors
        self.inputs = engine.inputs
        outputs = {tensor.name: tensor for tensor in engine.outputs}
        self.facts: dict[str, TensorFacts] = {layer: outputs[name] for layer, name in tensors.items()}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `otel_quantmon.fidelity.layers.layer.Tapped.run`."""
        outputs = self._engine.run(inputs)
        return {layer: outputs[name] for layer, name in self._tensors.items()}


def tap(original: str, quantized: str) -> tuple[list[Layer], TappedOnnx, TappedOnnx]:
    """Match the layers of two models, and make them readable.

    A tensor of the float graph is matched with the DequantizeLinear that undoes its QuantizeLinear in the other
    one, else with the tensor of its name.

    Raises:
        LayersError: The ``onnx`` package is not installed, or a file is no ONNX model to it.
        EngineError: A graph cannot be loaded with its tensors as outputs.
    """
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError as error:
        raise LayersError("--layers of an ONNX model needs the onnx package: pip install onnx") from error
    try:
        float_model: Any = onnx.load(original)
        quantized_model: Any = onnx.load(quantized)
    except Exception as error:  # the package raises whatever protobuf does
        raise LayersError(f"the onnx package cannot read the models: {error}") from error
    operators: dict[str, str] = {
        name: node.op_type for node in float_model.graph.node for name in node.output if name
    }
    made_from: dict[str, list[str]] = {
        name: list(node.input) for node in float_model.graph.node for name in node.output
    }
    dequantized = _dequantized(quantized_model.graph)
    tensors: dict[str, str] = {}
    for node in quantized_model.graph.node:
        for name in node.output:
            if name in operators:
                tensors[str(name)] = dequantized.get(name, str(name))
    layers = [
        Layer(name, operators[name], nearest(made_from[name], set(tensors), made_from)) for name in tensors
    ]
    tapped_float = TappedOnnx(
        _with_outputs(onnx, float_model, list(tensors)), {name: name for name in tensors}
    )
    return (
        layers,
        tapped_float,
        TappedOnnx(_with_outputs(onnx, quantized_model, list(tensors.values())), tensors),
    )


def _dequantized(graph: Any) -> dict[str, str]:
    """By float tensor, the output of the DequantizeLinear behind its QuantizeLinear."""
    codes: dict[str, str] = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"
    }
    found: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in codes:
            found.setdefault(codes[node.input[0]], node.output[0])
    return found


def _with_outputs(onnx: Any, model: Any, names: list[str]) -> Engine:
    present = {output.name for output in model.graph.output}
    # ONNX Runtime infers the types that are not stated.
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return open_engine(model.SerializeToString())
