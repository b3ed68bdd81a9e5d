"""Facts of ONNX models, against the ``onnx`` package and ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import onnx
import onnxruntime
import pytest
import real_models
from onnx import AttributeProto, TensorProto, helper

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.models.formats import read_facts
from otel_quantmon.models.formats.graph import bits, dtype_name

from .onnx_models import CONV_INPUT, conv_net, facts_of, floats, model

REAL = [
    real_models.magika_float,
    real_models.magika_qdq,
    real_models.magika_qoperator,
    real_models.magika_dynamic,
    real_models.one_op_onnx,
    real_models.basic_pitch_onnx,
    real_models.basic_pitch_onnx_float16,
    real_models.silero_float,
    real_models.silero_half,
]


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


@pytest.mark.parametrize("path", REAL, ids=lambda f: f.__name__)
def test_operators_and_edges_are_those_that_onnx_and_onnxruntime_report(path: Callable[[], Path]) -> None:
    """Operator counts, subgraphs included, equal onnx's; names, types and shapes equal the session's."""
    facts = read_facts(path())
    loaded = onnx.load(str(path()))
    assert facts.operators == Counter(node.op_type for node in all_nodes(loaded.graph))
    assert facts.metadata == {entry.key: entry.value for entry in loaded.metadata_props}
    assert facts.size == path().stat().st_size
    session = onnxruntime.InferenceSession(str(path()), providers=["CPUExecutionProvider"])
    types = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(int64)": "int64"}
    for described, stated in ((facts.inputs, session.get_inputs()), (facts.outputs, session.get_outputs())):
        assert [(t.name, t.dtype) for t in described] == [(s.name, types[s.type]) for s in stated]
    for described, stated in ((facts.inputs, loaded.graph.input), (facts.outputs, loaded.graph.output)):
        shapes = [
            tuple(d.dim_value if d.HasField("dim_value") else None for d in s.type.tensor_type.shape.dim)
            for s in stated
        ]
        assert [t.shape for t in described] == shapes
    assert facts.format == "onnx"
    assert not facts.unknown
    assert facts.arena is None
    assert not facts.stateful


@pytest.mark.parametrize(
    ("path", "scheme", "weight", "activation"),
    [
        (real_models.magika_float, "none", "float32", "float32"),
        (real_models.magika_qdq, "qdq", "int8", "uint8"),
        (real_models.magika_qoperator, "qoperator", "int8", "uint8"),
        (real_models.magika_dynamic, "dynamic", "uint8", "uint8"),
        (real_models.basic_pitch_onnx_float16, "float16", "float16", "float16"),
        (real_models.silero_float, "none", "float32", "float32"),
        (real_models.one_op_onnx, "none", None, None),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_scheme_and_types_of_real_models(
    path: Callable[[], Path], scheme: str, weight: str | None, activation: str | None
) -> None:
    """What the vendors' quantizers make is recognised as what it was asked to be."""
    facts = read_facts(path())
    assert (facts.scheme, facts.weight_type, facts.activation_type) == (scheme, weight, activation)
    assert facts.weight_bits == (None if weight is None else bits(weight))


def test_every_element_type_has_the_name_and_width_of_onnx() -> None:
    """Types go by numpy's or ml_dtypes' names, so that they can be compared with arrays' dtypes."""
    for code in TensorProto.DataType.values():
        if code in (TensorProto.UNDEFINED, TensorProto.STRING):
            continue
        dtype = helper.tensor_dtype_to_np_dtype(code)
        assert dtype_name(code) == dtype.name
        if hasattr(ml_dtypes, dtype.name) and not dtype.name.startswith("float8"):
            info = ml_dtypes.iinfo if dtype.name.startswith(("int", "uint")) else ml_dtypes.finfo
            assert bits(dtype.name) == info(dtype).bits
        elif dtype.name != "bool":
            assert bits(dtype.name) == dtype.itemsize * 8
    assert dtype_name(10**6) == dtype_name(-1) == "undefined"


# --- identity ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "generic", ["", "main_graph", "torch_jit", "torch-jit-export", "tf2onnx", "Main", "graph"]
)
def test_names_that_exporters_give_to_all_are_no_name(generic: str) -> None:
    """A metric label that is the same for every model would be worse than none."""
    assert facts_of(model([], inputs=[], outputs=[], name=generic)).name is None
    assert facts_of(model([], inputs=[], outputs=[], name="resnet50")).name == "resnet50"


def test_version_is_model_version_or_metadata() -> None:
    """0 is what exporters leave there, so the metadata's version is asked next."""
    built = model([], inputs=[], outputs=[])
    assert facts_of(built).version is None
    helper.set_model_props(built, {"version": "2.1", "author": "someone"})
    assert facts_of(built).version == "2.1"
    built.model_version = 12
    assert facts_of(built).version == "12"


def test_long_metadata_is_left_out_and_said_so() -> None:
    """A tokenizer in the metadata is not copied into every telemetry resource."""
    built = model([], inputs=[], outputs=[])
    helper.set_model_props(built, {"tokenizer": "x" * 100_000, "author": "someone"})
    facts = facts_of(built)
    assert dict(facts.metadata) == {"author": "someone"}
    assert "100000 bytes" in facts.unknown["metadata.tokenizer"]


def test_initializers_listed_as_inputs_are_not_inputs() -> None:
    """Before IR version 4 each initializer was an input too; a caller never feeds it."""
    built = conv_net()
    built.graph.input.append(floats("matrix", 256, 10))
    assert [tensor.name for tensor in facts_of(built).inputs] == [CONV_INPUT]


def test_values_that_are_not_tensors_are_named_by_their_kind() -> None:
    """Sequences, optionals and sparse tensors are told from tensors; an unknown rank is None, a scalar ()."""
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    inputs = [
        helper.make_value_info("sequence", helper.make_sequence_type_proto(inner)),
        helper.make_value_info("optional", helper.make_optional_type_proto(inner)),
        helper.make_value_info("map", helper.make_map_type_proto(TensorProto.INT64, inner)),
        helper.make_sparse_tensor_value_info("sparse", TensorProto.FLOAT, [2, 2]),
        helper.make_tensor_value_info("ranked", TensorProto.STRING, []),
        helper.make_tensor_value_info("unranked", TensorProto.FLOAT, None),
    ]
    facts = facts_of(model([], inputs=inputs, outputs=[]))
    assert [(tensor.dtype, tensor.shape) for tensor in facts.inputs] == [
        ("sequence", None),
        ("optional", None),
        ("map", None),
        ("sparse", (2, 2)),
        ("string", ()),
        ("float32", None),
    ]


# --- external data ----------------------------------------------------------------------------------------


def test_external_data_counts_towards_the_size(tmp_path: Path) -> None:
    """Weights beside the model count; when they are missing, or only bytes are given, that is noted, not
    raised.
    """
    path = tmp_path / "net.onnx"
    onnx.save_model(conv_net(), str(path), save_as_external_data=True, location="net.data", size_threshold=0)
    data = tmp_path / "net.data"
    facts = read_facts(path)
    assert facts.size == path.stat().st_size + data.stat().st_size
    assert facts.weight_type == "float32"
    assert "size" in read_facts(path.read_bytes()).unknown
    data.unlink()
    facts = read_facts(path)
    assert facts.size == path.stat().st_size
    assert "net.data" in facts.unknown["size"]


def test_files_of_external_data_are_looked_for_up_to_a_limit(tmp_path: Path) -> None:
    """A small file may refer to hundreds of thousands, each a system call: then their size is unknown."""
    built = conv_net()
    for number in range(10_001):
        tensor = built.graph.initializer.add(name=f"w{number}", data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=f"w{number}.data")
    path = tmp_path / "net.onnx"
    path.write_bytes(built.SerializeToString())
    facts = read_facts(path)
    assert (facts.size, facts.external) == (path.stat().st_size, ())
    assert facts.unknown["size"] == "its external data is in more than 10000 files"
    del built.graph.initializer[-1]
    path.write_bytes(built.SerializeToString())
    assert len(read_facts(path).external) == 10_000


@pytest.mark.parametrize("location", ["/etc/hostname", "../outside.data", "a/../../outside.data", "a\0b"])
def test_external_data_outside_the_folder_is_not_looked_at(tmp_path: Path, location: str) -> None:
    """A model's text cannot make this process look at files elsewhere, as ONNX Runtime would not."""
    (tmp_path / "outside.data").write_bytes(b"x" * 1000)
    folder = tmp_path / "models"
    folder.mkdir()
    built = conv_net()
    tensor = built.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = folder / "net.onnx"
    path.write_bytes(built.SerializeToString())
    facts = read_facts(path)
    assert facts.size == path.stat().st_size
    assert "size" in facts.unknown


def test_graphs_nested_without_end_are_refused() -> None:
    """Three hundred graphs inside one another end in the documented error, not in RecursionError."""

    def field(number: int, body: bytes) -> bytes:
        size, length = len(body), b""
        while size > 0x7F:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + body

    graph = b""
    for _ in range(300):
        graph = field(1, field(4, b"If") + field(5, field(6, graph)))
    with pytest.raises(ModelFormatError, match="nested"):
        read_facts(b"\x08\x08" + field(7, graph))
