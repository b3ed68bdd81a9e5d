"""Where in a graph the error enters: intermediate tensors of both models, matched and compared in graph order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.fidelity.engines import feed
from otel_quantmon.fidelity.layers.layer import Layer, LayersError, Tapped
from otel_quantmon.fidelity.numerics.comparison import compare
from otel_quantmon.models.formats import read_facts

__all__ = ["LayerReport", "break_down"]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What a layer gave, as means over the calls.

    Attributes:
        name, operator: See `Layer`.
        relative_error, cosine_similarity: Distance from the float model's tensor.
        jump: ``relative_error`` less that of the worst of its parents: what entered here.
    """

    name: str
    operator: str
    relative_error: float
    cosine_similarity: float
    jump: float


def break_down(
    original: str,
    quantized: str,
    calls: Sequence[Mapping[str, Any]],
    mapping: Mapping[str, str],
    progress: Callable[[int], object] = lambda _: None,
) -> list[LayerReport]:
    """Compare the layers of two models of one format, in the quantized graph's order.

    Args:
        original: Path of the float model.
        quantized: Path of the other.
        calls: Inputs of the quantized model, at least one.
        mapping: Names of its inputs to those of the original, where they differ.
        progress: A function that is called after each call with the number done so far.

    Raises:
        LayersError: The formats differ, or what reads the layers is not installed.
        EngineError: A model cannot be loaded or run.
    """
    try:
        formats = read_facts(original).format, read_facts(quantized).format
    except ModelFormatError as error:
        raise LayersError(str(error)) from error
    layers: Sequence[Layer]
    tapped_float: Tapped
    tapped_quantized: Tapped
    if formats == ("onnx", "onnx"):
        from otel_quantmon.fidelity.layers import onnx

        layers, tapped_float, tapped_quantized = onnx.tap(original, quantized)
    elif formats == ("tflite", "tflite"):
        from otel_quantmon.fidelity.layers import tflite

        layers, tapped_float, tapped_quantized = tflite.tap(original, quantized)
    else:
        raise LayersError(
            f"--layers needs two ONNX or two TFLite files, not {formats[0]} and {formats[1]}: convert the float model"
        )
    errors: dict[str, list[tuple[float, float]]] = {}
    by_name = {tensor.name: tensor for tensor in tapped_quantized.inputs}
    for done, inputs in enumerate(calls, start=1):
        given = tapped_quantized.run(inputs)
        wanted = tapped_float.run(feed(inputs, by_name, tapped_float.inputs, mapping))
        common = [layer.name for layer in layers if layer.name in given and layer.name in wanted]
        for one in compare(
            {name: given[name] for name in common},
            {name: wanted[name] for name in common},
            facts=tapped_quantized.facts,
            reference_facts=tapped_float.facts,
        ):
            # Shapes, indices and masks are no numbers, and have no error.
            if one.reason is None and one.measures is not None:
                found = one.measures.relative_error, one.measures.cosine_similarity
                errors.setdefault(one.output, []).append(found)
        progress(done)
    return _reports(layers, errors)


def _reports(
    layers: Sequence[Layer], errors: Mapping[str, Sequence[tuple[float, float]]]
) -> list[LayerReport]:
    means = {name: fmean(error for error, _ in found) for name, found in errors.items()}
    return [
        LayerReport(
            name=layer.name,
            operator=layer.operator,
            relative_error=means[layer.name],
            cosine_similarity=fmean(cosine for _, cosine in errors[layer.name]),
            jump=means[layer.name] - max((means.get(name, 0.0) for name in layer.parents), default=0.0),
        )
        for layer in layers
        if layer.name in means
    ]
