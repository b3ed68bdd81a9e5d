"""Ways to give a model, what is told apart by content, and what damaged or hostile input does."""

from __future__ import annotations

import array
import hashlib
import math
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import real_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.models.formats import ModelFacts, read_digest, read_facts
from otel_quantmon.models.formats.flatbuffer import FlatBuffer
from otel_quantmon.models.formats.protobuf import WireReader, text, varints

from . import onnx_models
from .test_formats_onnx import REAL as ONNX
from .test_formats_tflite import REAL as TFLITE


@pytest.mark.parametrize("model", [real_models.magika_qdq, real_models.wake_word], ids=lambda f: f.__name__)
def test_paths_and_buffers_of_every_kind_give_one_result(model: Callable[[], Path]) -> None:
    """str, Path, bytes, bytearray and memoryviews, of other item types and strides too."""
    path = model()
    contents = path.read_bytes()
    contents += b"" if len(contents) % 2 == 0 else b"\0"
    twice = bytes(byte for byte in path.read_bytes() for _ in (0, 1))
    sources = [str(path), path, path.read_bytes(), bytearray(path.read_bytes()), memoryview(twice)[::2]]
    results = [read_facts(source) for source in sources]
    assert all(result == results[0] for result in results)
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert {read_digest(source) for source in sources} == {digest}
    wide = memoryview(array.array("H", path.read_bytes()[: len(path.read_bytes()) // 2 * 2]))
    assert read_digest(wide) == "sha256:" + hashlib.sha256(wide.cast("B")).hexdigest()


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    """A wrong extension misleads nobody."""
    for number, (model, form) in enumerate(
        [(real_models.one_op_onnx, "onnx"), (real_models.wake_word, "tflite")]
    ):
        path = tmp_path / f"model{number}.bin"
        shutil.copy(model(), path)
        assert read_facts(path).format == form


@pytest.mark.parametrize(
    ("contents", "advice"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"<!DOCTYPE html>", "downloaded"),
        (b"just some text that is no model at all", "export or download it again"),
    ],
    ids=["empty", "lfs", "zip", "hdf5", "html", "text"],
)
def test_what_is_no_model_is_refused_with_advice(tmp_path: Path, contents: bytes, advice: str) -> None:
    """The message names the file and says what to do."""
    path = tmp_path / "model.onnx"
    path.write_bytes(contents)
    with pytest.raises(ModelFormatError, match=advice) as raised:
        read_facts(path)
    assert "model.onnx" in str(raised.value)


def test_a_missing_file_is_an_oserror(tmp_path: Path) -> None:
    """Absent is not damaged."""
    for read in (read_facts, read_digest):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent.onnx")


def test_weights_are_not_read(tmp_path: Path) -> None:
    """Of a file with 4 GiB of weights, sparse on disk, no more than a little memory is ever used."""
    size = 1 << 32

    def varint(value: int) -> bytes:
        out = b""
        while value > 0x7F:
            out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
        return out + bytes([value])

    tensor_head = b"\x08" + varint(size) + b"\x10\x02" + b"\x42\x01w" + b"\x4a" + varint(size)
    graph_head = b"\x2a" + varint(len(tensor_head) + size)
    head = b"\x08\x08\x3a" + varint(len(graph_head) + len(tensor_head) + size) + graph_head + tensor_head
    path = tmp_path / "huge.onnx"
    with open(path, "wb") as file:
        file.write(head)
        os.truncate(file.fileno(), len(head) + size)
    tracemalloc.start()
    try:
        facts = read_facts(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (facts.weight_type, facts.size) == ("uint8", len(head) + size)
    assert peak < 1 << 20


# --- damaged and hostile ----------------------------------------------------------------------------------


def outcome(contents: bytes) -> ModelFacts | ModelFormatError:
    """The facts or the one documented error; anything else fails the test."""
    try:
        return read_facts(contents)
    except ModelFormatError as error:
        return error


@given(st.binary(max_size=400), st.sampled_from([b"", b"TFL3", b"ORTM", b"\x08\x08\x3a"]))
def test_arbitrary_bytes_are_read_or_refused(contents: bytes, identifier: bytes) -> None:
    """No input raises anything but ModelFormatError, whichever reader its first bytes choose."""
    if identifier in (b"TFL3", b"ORTM"):
        contents = contents[:4].ljust(4, b"\x08") + identifier + contents[4:]
    else:
        contents = identifier + contents
    outcome(contents)


@pytest.fixture(scope="module")
def real_contents(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The smaller real models of every format."""
    from onnxruntime import GraphOptimizationLevel

    from .test_formats_ort import saved_as_ort

    level = GraphOptimizationLevel.ORT_DISABLE_ALL
    ort = saved_as_ort(real_models.magika_qdq(), tmp_path_factory.mktemp("ort"), level)
    # What has a mark is a parameter set around the function.
    models = (getattr(model, "values", (model,))[0] for model in (*ONNX, *TFLITE))
    paths = [*(model() for model in models), ort]
    return [path.read_bytes() for path in paths if path.stat().st_size < 1_000_000]


damaged = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@damaged
@given(data=st.data())
def test_truncated_models_are_read_or_refused(data: st.DataObject, real_contents: list[bytes]) -> None:
    """A model cut off anywhere gives facts or ModelFormatError."""
    contents = data.draw(st.sampled_from(real_contents).map(memoryview), label="model")
    outcome(bytes(contents[: data.draw(st.integers(0, len(contents)))]))


@damaged
@given(data=st.data())
def test_models_with_flipped_bits_are_read_or_refused(
    data: st.DataObject, real_contents: list[bytes]
) -> None:
    """A model with up to twenty wrong bytes, most near its ends where the structure is, is no worse."""
    contents = bytearray(data.draw(st.sampled_from(real_contents).map(memoryview), label="model"))
    edge = min(2000, len(contents) // 2)
    places = st.one_of(
        st.integers(0, edge),
        st.integers(len(contents) - edge, len(contents) - 1),
        st.integers(0, len(contents) - 1),
    )
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=20)):
        contents[place] = value
    outcome(bytes(contents))


@given(data=st.data())
def test_attributes_and_zero_points_of_any_kind_are_read_or_refused(data: st.DataObject) -> None:
    """Where an operator takes an integer a file may have any integer or float, and so it may among its constants."""
    odd = st.sampled_from([math.nan, math.inf, -math.inf, 0.5])
    numbers = st.one_of(odd, st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-2, 30))
    names = ["axis", "block_size", "output_dtype", "bits", "expert_weight_bits"]

    def node(op_type: str, *tensors: str) -> onnx.NodeProto:
        made = helper.make_node(op_type, list(tensors[:-1]), [tensors[-1]])
        for name, value in data.draw(st.dictionaries(st.sampled_from(names), numbers), label=op_type).items():
            made.attribute.append(helper.make_attribute(name, value))
        return made

    nodes = [
        node("QuantizeLinear", "x", "s", "z", "q"),
        node("DequantizeLinear", "q", "s", "z", "d"),
        node("QuantizeLinear", "d", "s", "dq"),
        node("DequantizeLinear", "dq", "s", "y"),
        node("MatMulNBits", "y", "w", "s", "m"),
        node("QMoE", "y", "w", "w", "s", "", "w", "s", "n"),
    ]
    count = data.draw(st.integers(1, 3))
    lists = st.lists(st.one_of(odd, st.just(1.0)), min_size=count, max_size=count)
    constants = {
        "s": np.array(data.draw(st.one_of(lists, st.just([1.0] * count)), label="scales"), np.float32),
        "z": np.array(data.draw(lists, label="zero points"), np.float32),
        "w": np.zeros(4, np.uint8),
    }
    x, y = (onnx_models.floats(name, 3) for name in "xy")
    built = onnx_models.model(nodes, inputs=[x], outputs=[y], constants=constants)
    outcome(built.SerializeToString())


@pytest.mark.parametrize("identifier", [b"TFL3", b"ORTM"])
def test_offsets_cannot_lead_back(identifier: bytes) -> None:
    """Offsets are unsigned: one that would close a cycle by wrapping points past the end, and is refused."""
    # One vtable with 13 fields, all of which are one offset to a vector whose elements all are that same
    # table.
    fields, entries = 13, 5000
    vtable = struct.pack(f"<HH{fields}H", 4 + 2 * fields, 8, *([4] * fields))
    table_at = 8 + len(vtable) + len(vtable) % 4
    vector_at = table_at + 8
    table = struct.pack("<iI", table_at - 8, vector_at - table_at - 4)
    vector = struct.pack("<I", entries) + b"".join(
        struct.pack("<I", (table_at - vector_at - 4 - 4 * entry) & 0xFFFFFFFF) for entry in range(entries)
    )
    body = vtable.ljust(table_at - 8, b"\0") + table + vector
    with pytest.raises(ModelFormatError, match="offset points"):
        read_facts(struct.pack("<I", table_at) + identifier + body)


def test_shared_tables_are_charged_each_time() -> None:
    """Many references to one table cost as many visits, so small files cannot stand for enormous ones."""
    vtable = struct.pack("<HHH", 6, 8, 4)
    # root -> table at 16, vtable at 8; its field 0 points to a vector of 100 references to a table further
    # on.
    table = struct.pack("<iI", 8, 4)
    vector = struct.pack("<I", 100) + b"".join(struct.pack("<I", 400 - 4 * i) for i in range(100))
    target = struct.pack("<i", 0) + struct.pack("<HH", 4, 4)
    data = memoryview(struct.pack("<I", 16) + b"\0" * 4 + vtable + b"\0\0" + table + vector + target)
    assert len(list(FlatBuffer(data, visit_limit=101).root().tables(0))) == 100
    with pytest.raises(ModelFormatError, match="refers to more"):
        list(FlatBuffer(data, visit_limit=100).root().tables(0))


def test_messages_of_endless_small_fields_are_refused() -> None:
    """The number of fields is limited, whatever the size of the file."""
    with pytest.raises(ModelFormatError, match="more fields"):
        list(WireReader(field_limit=99).fields(memoryview(b"\x08\x01" * 100)))


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"\x0a\xff\xff\xff\xff\x7f", "claims"),
        (b"\x0a\x05abcd", "claims"),
        (b"\x08\x80", "cut off"),
        (b"\x08" + b"\xff" * 11, "cut off or longer"),
        (b"\x0b", "wire type 3"),
        (b"\x09\x01", "claims 8"),
    ],
)
def test_wire_format_faults_are_named(message: bytes, complaint: str) -> None:
    """Claims past the end, endless numbers and unknown wire types are each refused."""
    with pytest.raises(ModelFormatError, match=complaint):
        list(WireReader().fields(memoryview(message)))


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_int64_survives_the_wire(number: int) -> None:
    """Negative numbers take ten bytes, in two's complement."""
    rest, encoded = number & 0xFFFF_FFFF_FFFF_FFFF, bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    assert varints(memoryview(bytes(encoded) * 2), limit=2) == (number, number)
    with pytest.raises(ModelFormatError, match="longer than 1"):
        varints(memoryview(bytes(encoded) * 2), limit=1)


def test_names_past_64_kib_are_refused() -> None:
    """A name is copied, so its length is limited; bytes that are not UTF-8 are replaced."""
    assert text(memoryview(b"caf\xff")) == "caf�"
    with pytest.raises(ModelFormatError, match="bytes long"):
        text(memoryview(bytes((1 << 16) + 1)))


def test_readers_import_the_standard_library_alone() -> None:
    """They load inside any application, without numpy, onnx, protobuf, flatbuffers or a runtime."""
    code = (
        "import sys\n"
        "from otel_quantmon.models.formats import onnx, ort, tflite\n"
        "foreign = {m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(sorted(m for m in foreign if not m.startswith(('_', 'otel_quantmon', 'sitecustomize'))))"
    )
    # Without site-packages' .pth files, which import what they like; the package's own __init__ is not under
    # test.
    package = Path(sys.modules["otel_quantmon.models.formats"].__file__ or "").parents[2]
    stub = f"import sys, types; p = types.ModuleType('otel_quantmon'); p.__path__ = [{str(package)!r}]; "
    stub += "sys.modules['otel_quantmon'] = p\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", stub + code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
