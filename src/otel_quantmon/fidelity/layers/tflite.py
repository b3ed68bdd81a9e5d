"""Layers of TFLite models: interpreters that keep their intermediate tensors, matched by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from otel_quantmon.fidelity.engines import open_engine
from otel_quantmon.fidelity.engines.tflite import TFLiteEngine
from otel_quantmon.fidelity.layers.layer import Layer, LayersError, nearest
from otel_quantmon.models.formats.facts import TensorFacts
from otel_quantmon.runtimes.tflite.reading import tensor

__all__ = ["TappedTFLite", "tap"]


class TappedTFLite:
    """See `otel_quantmon.fidelity.layers.layer.Tapped`.

    Attributes:
        operators: Operators in the graph's order, by the name of the tensor that each makes.
        made_from: The tensors that an operator reads, by the tensor that it makes.
    """

    def __init__(self, path: str) -> None:
        with warnings.catch_warnings():
            # Of the memory that this takes, which is what it is for.
            warnings.simplefilter("ignore")
            engine = open_engine(path, keep_all_tensors=True)
        if not isinstance(engine, TFLiteEngine) or not hasattr(engine.interpreter, "_get_ops_details"):
            raise LayersError("this interpreter does not list its operators: install a newer ai-edge-litert")
        self._engine = engine
        self.inputs = engine.inputs
        details = {int(one["index"]): one for one in engine.interpreter.get_tensor_details()}
        self._indices: dict[str, int] = {}
        self.facts: dict[str, TensorFacts] = {}
        self.operators: dict[str, str] = {}
        self.made_from: dict[str, list[str]] = {}
        for operator in engine.interpreter._get_ops_details():
            # Those that a delegate has taken over are listed themselves as well.
            if operator["op_name"] == "DELEGATE":
                continue
            for index in map(int, operator["outputs"]):
                name = str(details[index]["name"]) if index in details else ""
                if name and name not in self._indices:
                    self._indices[name] = index
                    self.operators[name] = str(operator["op_name"])
                    self.facts[name] = tensor(details[index])
                    read = [int(one) for one in operator["inputs"]]
                    self.made_from[name] = [str(details[one]["name"]) for one in read if one in details]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `otel_quantmon.fidelity.layers.layer.Tapped.run`."""
        self._engine.run(inputs)
        tensors: dict[str, Any] = {}
        for name, index in self._indices.items():
            # What a delegate keeps to itself cannot be read.
            with suppress(ValueError):
                tensors[name] = self._engine.interpreter.get_tensor(index)
        return tensors


def tap(original: str, quantized: str) -> tuple[list[Layer], TappedTFLite, TappedTFLite]:
    """Match the layers of two models by the names of their tensors, and make them readable.

    Raises:
        LayersError: The interpreter does not list its operators.
        EngineError: A model cannot be loaded.
    """
    tapped_float, tapped_quantized = TappedTFLite(original), TappedTFLite(quantized)
    names = [name for name in tapped_quantized.operators if name in tapped_float.operators]
    made_from = tapped_quantized.made_from
    layers = [
        Layer(name, tapped_quantized.operators[name], nearest(made_from[name], set(names), made_from))
        for name in names
    ]
    return layers, tapped_float, tapped_quantized
