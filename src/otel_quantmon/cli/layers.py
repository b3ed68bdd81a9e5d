"""Where in a graph the error enters: intermediate tensors of both models, matched and compared in graph order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

from otel_quantmon.engines import feed
from otel_quantmon.errors import ModelFormatError
from otel_quantmon.formats import read_facts
from otel_quantmon.formats.facts import TensorFacts
from otel_quantmon.monitors.comparison import compare

__all__ = ["Layer", "LayerReport", "LayersError", "Tapped", "break_down", "nearest"]


class LayersError(ValueError):
    """The layers of two models cannot be compared; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A tensor that both models have.

    Attributes:
        name: of the tensor, the same in both; the quantized model may give it dequantized.
        operator: that makes it.
        parents: the nearest layers it is computed from.
    """

    name: str
    operator: str
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What a layer gave, as means over the calls.

    Attributes:
        name, operator: see `Layer`.
        relative_error, cosine_similarity: against the float model's tensor.
        jump: ``relative_error`` less that of the worst of its parents: what entered here.
    """

    name: str
    operator: str
    relative_error: float
    cosine_similarity: float
    jump: float


class Tapped(Protocol):
    """A model whose intermediate tensors can be read."""

    @property
    def inputs(self) -> Sequence[TensorFacts]:
        """Of the model."""
        ...

    @property
    def facts(self) -> Mapping[str, TensorFacts]:
        """Of the layers, by name."""
        ...

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once, and give the layers' tensors by name."""
        ...


def break_down(
    original: str,
    quantized: str,
    calls: Sequence[Mapping[str, Any]],
    mapping: Mapping[str, str],
    progress: Callable[[int], object] = lambda _: None,
) -> list[LayerReport]:
    """Compare the layers of two models of one format, in the quantized graph's order.

    Args:
        original: path of the float model.
        quantized: path of the other.
        calls: inputs of the quantized model, at least one.
        mapping: names of its inputs to those of the original, where they differ.
        progress: called after each call with the number done so far.

    Raises:
        LayersError: the formats differ, or what reads the layers is not installed.
        EngineError: a model cannot be loaded or run.
    """
    try:
        formats = read_facts(original).format, read_facts(quantized).format
    except ModelFormatError as error:
        raise LayersError(str(error)) from error
    layers: Sequence[Layer]
    tapped_float: Tapped
    tapped_quantized: Tapped
    if formats == ("onnx", "onnx"):
        from otel_quantmon.cli import layers_onnx

        layers, tapped_float, tapped_quantized = layers_onnx.tap(original, quantized)
    elif formats == ("tflite", "tflite"):
        from otel_quantmon.cli import layers_tflite

        layers, tapped_float, tapped_quantized = layers_tflite.tap(original, quantized)
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


def nearest(names: Sequence[str], known: set[str], made_from: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The first of ``known`` that lie on each way back from ``names``.

    Args:
        names: tensors to begin with.
        known: tensors to end at.
        made_from: by each tensor, those that its operator reads.
    """
    found: list[str] = []
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in known:
            found.append(name)
        else:
            waiting.extend(made_from.get(name, ()))
    return tuple(sorted(found))


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
