"""Facts of TFLite models, against the interpreter and the schema that LiteRT ships."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from otel_quantmon.models.formats import read_facts
from otel_quantmon.models.formats.tflite_schema import BUILTIN_OPERATORS, CUSTOM, DTYPES

needs_quantizer = pytest.mark.skipif(
    find_spec("ai_edge_quantizer") is None,
    reason="needs ai-edge-quantizer (dependency group quantizer), which wants newer releases than the oldest",
)

REAL = [
    real_models.wake_word,
    real_models.basic_pitch_tflite,
    pytest.param(real_models.basic_pitch_tflite_int8, marks=needs_quantizer),
    real_models.face_detection_float16,
    real_models.digits_tflite_float,
    real_models.digits_tflite_full_integer,
    real_models.digits_tflite_float16,
    real_models.digits_tflite_dynamic,
]


@pytest.fixture(scope="module")
def interpreters() -> Callable[[Path], Any]:
    """Interpreters without delegates, so that operators are those of the file."""

    def made(path: Path) -> Any:
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return Interpreter(model_path=str(path), experimental_op_resolver_type=plain)

    return made


def described(detail: dict[str, Any]) -> tuple[Any, ...]:
    """Name, type, shape and quantization of a tensor as the interpreter gives them."""
    shape = tuple(int(dim) if dim >= 0 else None for dim in detail["shape_signature"])
    parameters = detail["quantization_parameters"]
    scales = tuple(float(scale) for scale in parameters["scales"])
    return (
        detail["name"],
        np.dtype(detail["dtype"]).name,
        shape,
        scales,
        tuple(parameters["zero_points"].tolist()),
    )


@pytest.mark.parametrize("path", REAL, ids=lambda f: f.__name__)
def test_inputs_outputs_and_operators_are_those_of_the_interpreter(
    path: Callable[[], Path], interpreters: Callable[[Path], Any]
) -> None:
    """Names, types, shapes, scales and zero points equal the interpreter's; so do the operators."""
    facts = read_facts(path())
    interpreter = interpreters(path())
    for found, details in (
        (facts.inputs, interpreter.get_input_details()),
        (facts.outputs, interpreter.get_output_details()),
    ):
        ours = [
            (t.name, t.dtype, t.shape, q.scales if q else (), q.zero_points if q else ())
            for t in found
            for q in [t.quantization]
        ]
        assert ours == [described(detail) for detail in details]
    main = Counter(op["op_name"] for op in interpreter._get_ops_details())
    assert all(facts.operators[name] >= count for name, count in main.items())
    if not facts.stateful:
        assert facts.operators == main
    assert facts.format == "tflite"
    assert facts.size == path().stat().st_size
    assert not facts.unknown


@pytest.mark.parametrize(
    ("path", "scheme", "weight", "activation", "stateful"),
    [
        (real_models.wake_word, "full_integer", "int8", "int8", True),
        (real_models.basic_pitch_tflite, "none", "float32", "float32", False),
        pytest.param(
            *(real_models.basic_pitch_tflite_int8, "dynamic", "int8", "int8", False), marks=needs_quantizer
        ),
        (real_models.face_detection_float16, "float16", "float16", "float32", False),
        (real_models.digits_tflite_float, "none", "float32", "float32", False),
        (real_models.digits_tflite_full_integer, "full_integer", "int8", "int8", False),
        (real_models.digits_tflite_float16, "float16", "float16", "float32", False),
        (real_models.digits_tflite_dynamic, "dynamic", "int8", "int8", False),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_scheme_types_and_state_of_real_models(
    path: Callable[[], Path], scheme: str, weight: str, activation: str, stateful: bool
) -> None:
    """What the converters make is recognised as what it was asked to be."""
    facts = read_facts(path())
    found = (facts.scheme, facts.weight_type, facts.activation_type, facts.stateful)
    assert found == (scheme, weight, activation, stateful)
    assert facts.weight_bits == {"int8": 8, "float16": 16, "float32": 32}[weight]


def test_names_of_operators_and_types_are_those_of_the_schema() -> None:
    """A new operator code in LiteRT's schema is noticed here first."""

    def codes(enumeration: type) -> dict[str, int]:
        # Python 3.13 put an integer of its own, the line of the definition, among a class's attributes.
        return {name: code for name, code in vars(enumeration).items() if not name.startswith("_")}

    operators = codes(schema.BuiltinOperator)
    assert {name: code for code, name in enumerate(BUILTIN_OPERATORS)} == operators
    assert operators["CUSTOM"] == CUSTOM
    types = {name.lower(): code for name, code in codes(schema.TensorType).items()}
    assert {name: code for code, name in enumerate(DTYPES)} == types


def test_arena_of_the_integer_net_is_what_its_layers_need() -> None:
    """At the peak the 8x8x1 input, which is kept, and two 8x8x16 activations live at once, in int8."""
    assert read_facts(real_models.digits_tflite_full_integer()).arena == 64 + 1024 + 1024
    # The same in float32, four bytes each.
    assert read_facts(real_models.digits_tflite_float()).arena == 4 * (64 + 1024 + 1024)


@pytest.mark.parametrize("path", REAL, ids=lambda f: f.__name__)
def test_arena_is_the_peak_of_live_tensors(path: Callable[[], Path]) -> None:
    """The sweep agrees with a table of operators by tensors made from LiteRT's own reading of the file."""
    model = schema.ModelT.InitFromPackedBuf(path().read_bytes(), 0)
    graph = model.subgraphs[0]
    steps = len(graph.operators)
    widths = {
        "float32": 4,
        "float16": 2,
        "int32": 4,
        "int64": 8,
        "int8": 1,
        "uint8": 1,
        "bool": 1,
        "resource": 0,
    }
    live = np.zeros(steps, np.int64)
    for index, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        uses = [step for step, op in enumerate(graph.operators) if index in {*op.inputs, *op.outputs}]
        if index in graph.inputs or tensor.isVariable:
            uses = [0, steps]
        elif index in graph.outputs:
            uses.append(steps)
        if uses and (data is None or not len(data)):
            shape = [] if tensor.shape is None else [abs(int(dim)) for dim in tensor.shape]
            size = widths[DTYPES[tensor.type]] * int(np.prod(shape))
            live[min(uses) : max(uses) + 1] += (size + 63) // 64 * 64
    peak = live.max()
    assert read_facts(path()).arena == peak


def built(
    change: Callable[[Any], None], path: Callable[[], Path] = real_models.digits_tflite_full_integer
) -> bytes:
    """The digits net, in integers if not said otherwise, after a change to LiteRT's own object form of it."""
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(path().read_bytes(), 0)
    change(model)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_names_and_versions_come_from_what_people_wrote() -> None:
    """A converter's description is no name, and the oldest runtime that would do is no version."""
    assert read_facts(real_models.digits_tflite_full_integer()).name is None
    assert read_facts(real_models.digits_tflite_full_integer()).version is None
    assert "min_runtime_version" in read_facts(real_models.digits_tflite_full_integer()).metadata

    def describe(model: Any) -> None:
        model.description = b"digits_v2"

    assert read_facts(built(describe)).name == "digits_v2"
    assert read_facts(real_models.face_detection_float16()).name == "Short Range Face Detection"


def metadata_buffer(*fields: str | None) -> bytes:
    """A ModelMetadata table of the TFLite Support library: name, description, version."""
    import flatbuffers

    builder = flatbuffers.Builder(64)
    texts = [builder.CreateString(text) if text else None for text in fields]
    builder.StartObject(len(fields))
    for slot, text in enumerate(texts):
        if text is not None:
            builder.PrependUOffsetTRelativeSlot(slot, text, 0)
    builder.Finish(builder.EndObject(), b"M001")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("contents", "name", "version", "complaint"),
    [
        (metadata_buffer("Digits", None, "2.3"), "Digits", "2.3", False),
        (metadata_buffer("main", None, None), None, None, False),
        (b"\xff\xff\xff\x7f" * 4, None, None, True),
    ],
    ids=["named", "generic", "damaged"],
)
def test_model_metadata_tells_name_and_version(
    contents: bytes, name: str | None, version: str | None, complaint: bool
) -> None:
    """The standard metadata buffer is read; a damaged one is noted, as the model runs without it."""

    def attach(model: Any) -> None:
        model.metadata.append(schema.MetadataT(name="TFLITE_METADATA", buffer=len(model.buffers)))
        model.buffers.append(schema.BufferT(data=np.frombuffer(contents, np.uint8)))

    facts = read_facts(built(attach))
    assert (facts.name, facts.version, "metadata" in facts.unknown) == (name, version, complaint)


def test_parameters_per_axis_are_read() -> None:
    """Scales along an axis come with the axis; a zero point given once holds for all."""

    def quantize_input(model: Any) -> None:
        graph = model.subgraphs[0]
        parameters = graph.tensors[graph.inputs[0]].quantization
        parameters.scale, parameters.zeroPoint, parameters.quantizedDimension = ([0.5, 0.25], [3], 1)

    read = read_facts(built(quantize_input)).inputs[0].quantization
    assert read is not None
    assert (read.scales, read.zero_points, read.axis) == ((0.5, 0.25), (3, 3), 1)


def test_custom_operators_go_by_their_own_name() -> None:
    """An operator outside the builtin list is named as its kernel is registered."""

    def rename(model: Any) -> None:
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = CUSTOM
        code.customCode = "MyKernel"

    assert read_facts(built(rename)).operators["MyKernel"] >= 1


@pytest.mark.parametrize("operator", ["VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"])
def test_resource_variables_make_a_model_stateful(operator: str) -> None:
    """State need not be in variable tensors: operators on resources keep it too."""

    def replace(model: Any) -> None:
        model.operatorCodes[0].builtinCode = BUILTIN_OPERATORS.index(operator)
        model.operatorCodes[0].deprecatedBuiltinCode = 127

    assert not read_facts(built(lambda model: None)).stateful
    assert read_facts(built(replace)).stateful


def test_integers_dequantized_before_use_are_weight_only() -> None:
    """DEQUANTIZE on a constant, with float arithmetic after it, is weight-only quantization."""
    facts = read_facts(real_models.digits_tflite_float16())
    assert facts.scheme == "float16"

    def to_integers(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.type == schema.TensorType.FLOAT16:
                tensor.type = schema.TensorType.INT4
                tensor.quantization = schema.QuantizationParametersT(scale=[0.1], zeroPoint=[0])

    facts = read_facts(built(to_integers, real_models.digits_tflite_float16))
    found = (facts.scheme, facts.weight_type, facts.weight_bits, facts.activation_type)
    assert found == ("weight_only", "int4", 4, "float32")


@pytest.mark.skipif(
    not hasattr(schema, "BlockwiseQuantizationT"),
    reason="this release of LiteRT has no blockwise quantization",
)
@pytest.mark.parametrize("dtype", ["int8", "int4", "int2", "uint4"])
def test_weights_quantized_by_blocks_are_quantized(dtype: str) -> None:
    """The scales of blocks are in a tensor of their own, as ai-edge-quantizer's recipes of 4 bits make it; without any
    word of scales, weights of under a byte are quantized all the same, and whole bytes are not.
    """

    def by_blocks(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.type == schema.TensorType.INT8:
                tensor.type = DTYPES.index(dtype)
                details = schema.BlockwiseQuantizationT(scales=0, zeroPoints=-1, blockSize=32)
                kind = schema.QuantizationDetails.BlockwiseQuantization
                # Scales beside those of the blocks mean nothing.
                tensor.quantization = schema.QuantizationParametersT(
                    scale=[0.5, 0.25], zeroPoint=[0], detailsType=kind, details=details
                )

    def silent(model: Any) -> None:
        by_blocks(model)
        for tensor in model.subgraphs[0].tensors:
            tensor.quantization = None

    facts = read_facts(built(by_blocks, real_models.digits_tflite_dynamic))
    assert (facts.scheme, facts.weight_type, facts.activation_type) == ("dynamic", dtype, "int8")
    facts = read_facts(built(silent, real_models.digits_tflite_dynamic))
    assert facts.scheme == ("none" if dtype == "int8" else "dynamic")
    facts = read_facts(built(by_blocks))
    assert [tensor.quantization for tensor in (*facts.inputs, *facts.outputs)] == [None, None]
