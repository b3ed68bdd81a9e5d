"""What is known of a model before it runs: plain records, no runtime behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["ModelFacts", "QuantizationParameters", "TensorFacts", "distinct_names"]

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class QuantizationParameters:
    """``real = scale * (code - zero_point)``, per tensor (one element) or along ``axis``.

    Attributes:
        scales: One per tensor, or one per index of ``axis``.
        zero_points: Zero points, as many as ``scales``.
        dtype: Type of the codes, as numpy names it (``"int8"``), or ``"int4"`` and ``"uint4"``.
        axis: The quantized dimension, None when per tensor.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    dtype: str
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One input or output of a graph.

    Attributes:
        name: Name of the tensor, as the runtime names it.
        dtype: Element type as numpy names it (``"float32"``), as ml_dtypes does where numpy has none
            (``"bfloat16"``, ``"int4"``), ``"string"``, TFLite's ``"resource"`` and ``"variant"``, or
            ``"sequence"``, ``"map"``, ``"optional"``, ``"sparse"``, ``"opaque"`` for what is not a dense
            tensor; ``"undefined"`` when the file does not say or the type is newer than this reader.
        shape: None where a dimension is dynamic; None as a whole when the rank is unknown.
        quantization: The tensor's own parameters (TFLite), or those of the QuantizeLinear that
            reads a float input, the DequantizeLinear that writes a float output (ONNX), through
            operators that only move values. Of integer inputs and outputs, those of the operator there.
            Scales are positive and finite.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    quantization: QuantizationParameters | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model file says of itself.

    Attributes:
        format: ``"onnx"``, ``"ort"``, ``"tflite"`` or ``"unknown"``.
        scheme: A value of ``quantmon.quantization.scheme``; ``"unknown"`` when there is no file to read.
        weight_type: Type of most of the weights' elements (``"int8"``, ``"float16"``...), None if unknown.
        activation_type: Type in which the operators that hold weights compute, None if unknown. With dynamic
            quantization that of the codes made at run time: uint8 in ONNX, int8 in TFLite.
        weight_bits: 4, 8, 16, 32...; None if unknown.
        name: The model's name for itself; None when it has none that identifies it.
        version: The model's version, as text; None if it states none.
        size: Bytes of the file, external data included; or of the buffer.
        external: Files of external data, each by its path from the model's folder, within which they are; none where
            they are more than 10,000.
        inputs, outputs: Tensors of the main graph, constants excluded.
        metadata: The model's own key-value pairs.
        operators: How often each operator occurs, subgraphs included.
        arena: Bytes of tensors that live at once at the peak, for a runtime that plans one arena (TFLite);
            dynamic dimensions count as 1, and scratch memory and gaps come on top.
        stateful: True when state is kept inside the runtime between two calls (TFLite variables).
        unknown: Reasons by name of a fact that could not be read.
    """

    format: str
    scheme: str
    weight_type: str | None = None
    activation_type: str | None = None
    weight_bits: int | None = None
    name: str | None = None
    version: str | None = None
    size: int | None = None
    external: tuple[str, ...] = ()
    inputs: tuple[TensorFacts, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    operators: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    arena: int | None = None
    stateful: bool = False
    unknown: Mapping[str, str] = field(default_factory=lambda: _EMPTY)


def distinct_names(names: Iterable[str], kind: str) -> list[str]:
    """Return names by which tensors are told apart, whoever numbers them: a name that is empty or taken gets its place.

    Args:
        names: Names of all inputs or of all outputs of a graph, in its order. Tools that make models small empty them.
        kind: Name of those that have none, ``"input"`` or ``"output"``.
    """
    found: dict[str, None] = {}
    for place, name in enumerate(names):
        distinct = name or f"{kind}#{place}"
        while distinct in found:
            distinct = f"{distinct}#{place}"
        found[distinct] = None
    return list(found)
