"""The form in which a sample leaves: what comes back is what went in, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.fidelity.reference.messages import to_bytes
from otel_quantmon.fidelity.remote.record import LARGEST, SampleError, SampleRecord, decode, encode
from otel_quantmon.models.formats.facts import QuantizationParameters, TensorFacts


def framed(frame: bytes) -> bytes:
    """A sample of this version with any frame in it."""
    return encode(record())[:10] + zlib.crc32(frame).to_bytes(4, "little") + frame


def record(**changed: Any) -> SampleRecord:
    """A sample with a trace and quantized tensors."""
    values: dict[str, Any] = {
        "id": "0f6c1e9a5d7b4c32a1e8f90b7d2c4e65",
        "model": "ocr",
        "runtime": "onnxruntime",
        "scheme": "qdq",
        "provider": "CPUExecutionProvider",
        "digest": "sha256:12",
        "version": None,
        "host": "edge-7",
        "service": "ocr",
        "instructions": "x86_64+avx2",
        "golden": False,
        "time": 1_800_000_000_000_000_000,
        "trace_id": 2**128 - 1,
        "span_id": 2**64 - 1,
        "inputs": {"image": np.arange(12, dtype=np.uint8).reshape(1, 3, 4)},
        "outputs": {"scores": np.array([[-1, 5]], np.int8)},
        "facts": (
            TensorFacts("image", "uint8", (None, 3, 4)),
            TensorFacts("scores", "int8", (1, 2), QuantizationParameters((0.5,), (3,), "int8")),
        ),
    }
    return SampleRecord(**(values | changed))


@given(
    st.sampled_from(["float32", "float16", "float64", "int8", "uint8", "int64", "bool", "complex64"]),
    st.lists(st.integers(1, 4), max_size=3),
    st.binary(min_size=64 * 16, max_size=64 * 16),
)
def test_tensors_come_back_bit_for_bit(dtype: str, shape: list[int], data: bytes) -> None:
    """Any type and rank, NaN and infinities included; their order is that of the model."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int))
    tensor = np.frombuffer(data, np.uint8 if dtype == "bool" else kind, count).reshape(shape)
    tensor = tensor.astype(bool) if dtype == "bool" else tensor
    back = decode(encode(record(inputs={"b": tensor, "a": tensor})))
    assert list(back.inputs) == ["b", "a"]
    for array in back.inputs.values():
        assert (array.dtype, array.shape, array.tobytes()) == (tensor.dtype, tensor.shape, tensor.tobytes())


def test_all_else_comes_back_too() -> None:
    """Each field, with values at the end of its range; sequences, maps and strings as outputs."""
    outputs = {"labels": [{"cat": 0.5}, {"dog": 0.25}], "words": np.array(["a", "b"], dtype=object)}
    given_record = record(outputs=outputs, span_id=0, trace_id=0, digest=None, version="2")
    back = decode(encode(given_record))
    for field in dataclasses.fields(SampleRecord):
        if field.name not in {"inputs", "outputs"}:
            assert getattr(back, field.name) == getattr(given_record, field.name), field.name
    assert back.outputs["labels"] == outputs["labels"]
    assert back.outputs["words"].tolist() == ["a", "b"]


@given(st.binary(max_size=400) | st.binary(max_size=400).map(framed))
def test_bytes_that_are_no_sample_are_refused(data: bytes) -> None:
    """Whatever arrives, the only error is the one that a worker knows."""
    with pytest.raises(SampleError):
        decode(data)


@given(st.data())
def test_a_damaged_sample_is_refused(data: st.DataObject) -> None:
    """One bit that is another, or bytes that are missing, are found by the checksum, whatever they belong to."""
    whole = bytearray(encode(record()))
    if data.draw(st.booleans()):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    with pytest.raises(SampleError):
        decode(bytes(whole))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.sampled_from([field.name for field in dataclasses.fields(SampleRecord)]), _json)
def test_a_field_of_another_type_is_refused(name: str, value: Any) -> None:
    """A message with the right fields and any values is a sample whose fields have the right types, or is refused."""
    message = dataclasses.asdict(record()) | {name: value}
    frame = zstandard.ZstdCompressor().compress(to_bytes(message))
    try:
        back = decode(framed(frame))
    except SampleError:
        return
    assert isinstance(getattr(back, name), type(getattr(record(), name)) | type(value))


_FACTS = {
    "name": "scores",
    "dtype": "int8",
    "shape": [None, 2],
    "quantization": {"scales": [0.5], "zero_points": [3], "dtype": "int8", "axis": 1},
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ["scores"]},
        {"name": None},
        {"dtype": 8},
        {"shape": "12"},
        {"shape": [1.5]},
        {"shape": {}},
        {"quantization": []},
        {"quantization": {"scales": ["a"]}},
        {"quantization": {"scales": "1"}},
        {"quantization": {"scales": [True]}},
        {"quantization": {"zero_points": [0.5]}},
        {"quantization": {"zero_points": [1 << 70]}},
        {"quantization": {"dtype": None}},
        {"quantization": {"axis": "1"}},
        {"quantization": {"axis": True}},
    ],
)
def test_facts_of_other_types_are_refused(wrong: dict[str, Any]) -> None:
    """Within them too: whoever dequantizes by them would fail where nobody had thought of it."""

    def sample(facts: dict[str, Any]) -> bytes:
        message = {**dataclasses.asdict(record()), "facts": [facts]}
        return framed(zstandard.ZstdCompressor().compress(to_bytes(message)))

    assert decode(sample(_FACTS)).facts[0].quantization == QuantizationParameters((0.5,), (3,), "int8", 1)
    inner = wrong.get("quantization")
    facts = {**_FACTS, **wrong}
    if isinstance(inner, dict):
        facts["quantization"] = {**_FACTS["quantization"], **inner}  # type: ignore[dict-item]
    with pytest.raises(SampleError, match="facts of tensors cannot be read"):
        decode(sample(facts))


def test_texts_of_another_encoding_come_back_as_what_can_be_stored() -> None:
    """A lone surrogate, as of a byte of Latin-1 in an environment variable, would be refused by database and file."""
    back = decode(encode(record(service="caf\udce9", host="\ud800", version="\ud800", digest=None)))
    assert (back.service, back.host, back.version, back.digest) == ("caf?", "?", "?", None)


def test_another_version_is_told_from_damage() -> None:
    """A reader says which version it is and what to do: the sample is in order, for another release."""
    data = bytearray(encode(record()))
    data[8:10] = (7).to_bytes(2, "little")
    with pytest.raises(SampleError, match="of version 7, this release reads 1: evaluate it with the release"):
        decode(bytes(data))


def test_a_sample_that_would_fill_the_memory_is_refused() -> None:
    """A frame of a few kilobytes can stand for gigabytes: the size that it states is looked at before any of it."""
    compressor = zstandard.ZstdCompressor()
    with pytest.raises(SampleError, match="are read at most"):
        decode(framed(compressor.compress(bytes(LARGEST + 1))))


def test_what_cannot_be_sent_is_refused_before_it_leaves() -> None:
    """A sparse tensor or any other object of a runtime's is a TypeError, never pickled."""
    with pytest.raises(TypeError):
        encode(record(outputs={"sparse": object()}))
