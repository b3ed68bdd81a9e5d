"""TFLite models of one or two operators that no converter is needed for, in LiteRT's own object form."""

from __future__ import annotations

from typing import Any

import pytest

Tensor = tuple[str, str, list[int]]
"""Name, type as the schema calls it, and shape, a dynamic dimension as -1."""

Operator = tuple[str, list[int], list[int]]
"""Name as the schema has it, and the indices of its inputs and outputs."""


def model(
    tensors: list[Tensor],
    operators: list[Operator],
    *,
    inputs: list[int],
    outputs: list[int],
    signature: tuple[dict[str, int], dict[str, int]] | None = None,
) -> bytes:
    """A serialized model of one graph, and its signature: names by index, of the inputs and of the outputs."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    codes = [getattr(schema.BuiltinOperator, name) for name, _, _ in operators]
    graph = schema.SubGraphT(
        tensors=[
            schema.TensorT(
                name=name,
                type=getattr(schema.TensorType, dtype),
                shape=[abs(dimension) for dimension in shape],
                shapeSignature=shape if min(shape) < 0 else None,
            )
            for name, dtype, shape in tensors
        ],
        inputs=inputs,
        outputs=outputs,
        operators=[
            schema.OperatorT(opcodeIndex=number, inputs=read, outputs=written)
            for number, (_, read, written) in enumerate(operators)
        ],
    )
    built = schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(c, builtinCode=c, version=1) for c in codes],
        subgraphs=[graph],
        buffers=[schema.BufferT()],
    )
    if signature is not None:
        maps: list[Any] = [
            [schema.TensorMapT(name=name, tensorIndex=index) for name, index in side.items()]
            for side in signature
        ]
        built.signatureDefs = [
            schema.SignatureDefT(inputs=maps[0], outputs=maps[1], signatureKey="serving_default")
        ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(built.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def where() -> bytes:
    """``places``, int64 (n, 1), of what is true in ``chosen``, bool (8,): as many as there are."""
    tensors: list[Tensor] = [("chosen", "BOOL", [8]), ("places", "INT64", [-1, 1])]
    return model(tensors, [("WHERE", [0], [1])], inputs=[0], outputs=[1])


def scaled() -> bytes:
    """``scaled = rows * factors``, float32 (n, 4) and (4,), with a signature."""
    tensors: list[Tensor] = [
        ("in:0", "FLOAT32", [-1, 4]),
        ("in:1", "FLOAT32", [4]),
        ("out:0", "FLOAT32", [-1, 4]),
    ]
    names = {"factors": 1, "rows": 0}, {"scaled": 2}
    return model(tensors, [("MUL", [0, 1], [2])], inputs=[0, 1], outputs=[2], signature=names)


def unnamed() -> bytes:
    """The difference and the product of two inputs, float32 (1, 4), none of which has a name."""
    tensors: list[Tensor] = [("", "FLOAT32", [1, 4])] * 4
    operators: list[Operator] = [("SUB", [0, 1], [2]), ("MUL", [0, 1], [3])]
    return model(tensors, operators, inputs=[0, 1], outputs=[2, 3])
