"""What is in the bodies that KServe logs: both protocols, in text and in bytes, and whatever else may come."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_quantmon.evaluator.kserve_payload import PayloadError, read_payload


@given(st.binary(max_size=200), st.booleans(), st.none() | st.integers(0, 300))
def test_any_body_is_read_or_refused(body: bytes, response: bool, length: int | None) -> None:
    """The only error is the one that the source knows."""
    with pytest.raises(PayloadError):
        read_payload(body, length, response=response)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_tensor = st.fixed_dictionaries(
    {
        "name": _json,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | _json,
        "datatype": st.sampled_from(["FP32", "INT8", "BYTES", "BOOL", "FP99"]) | _json,
    },
    optional={
        "data": _json,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-2, 9) | _json}),
    },
)


@given(st.lists(_tensor, min_size=1, max_size=2) | _json, st.binary(max_size=12))
def test_any_tensors_are_read_or_refused(tensors: Any, binary: bytes) -> None:
    """What is nearly a request too: it has arrays of the shapes that it says, or is refused."""
    try:
        payload = read_payload(json.dumps({"inputs": tensors}).encode() + binary, response=False)
    except PayloadError:
        return
    assert all(isinstance(array, np.ndarray) for array in payload.tensors.values())


def test_bfloat16_is_read_as_float32() -> None:
    """The first halves of float32, in the text and as bytes: values exact, infinity among them."""
    values = np.array([1.0, -2.5, 2.0**100, np.inf], np.float32)
    tensor = {"name": "x", "shape": [2, 2], "datatype": "BF16"}
    in_bytes = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 8}}]}).encode()
    in_bytes += (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    in_text = json.dumps({"inputs": [tensor | {"data": values.tolist()}]}).encode()
    for body in (in_bytes, in_text):
        found = read_payload(body, response=False).tensors["x"]
        assert (found.dtype, found.ravel().tolist()) == (np.float32, values.tolist())


def test_other_forms_of_tensors() -> None:
    """Named instances and columns of the first protocol, texts, and texts as bytes."""
    rows = read_payload(b'{"instances": [{"a": [1, 2], "b": 0.5}, {"a": [3, 4], "b": 1}]}', response=False)
    assert {name: array.tolist() for name, array in rows.tensors.items()} == {
        "a": [[1, 2], [3, 4]],
        "b": [0.5, 1.0],
    }
    columns = read_payload(b'{"outputs": {"y": [[0.1]]}}', response=True)
    assert columns.tensors["y"].shape == (1, 1)
    words = read_payload(b'{"predictions": ["cat", "dog"]}', response=True)
    assert words.tensors["predictions"].tolist() == ["cat", "dog"]
    data = b"".join(struct.pack("<I", len(word)) + word for word in (b"ab", b"c"))
    head = {
        "inputs": [
            {"name": "t", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
        ]
    }
    texts = read_payload(json.dumps(head).encode() + data, response=False)
    assert texts.tensors["t"].tolist() == ["ab", "c"]


@pytest.mark.parametrize(
    "body",
    [
        {"instances": ["a"] * 20_000 + ["b" * 60_000]},
        {"inputs": {"x": ["a"] * 20_000 + ["b" * 60_000]}},
        {
            "inputs": [
                {"name": "x", "shape": [1], "datatype": "FP32", "data": ["1"] * 20_000 + ["1" * 60_000]}
            ]
        },
    ],
)
def test_texts_take_the_memory_that_they_have(body: dict[str, Any]) -> None:
    """And not as many times the longest as there are, four bytes a letter: 130 kB had taken 4.8 GB."""
    text = json.dumps(body).encode()
    tracemalloc.start()
    try:
        with contextlib.suppress(PayloadError):
            read_payload(text, response=False)
        assert tracemalloc.get_traced_memory()[1] < 20 * 1024**2
    finally:
        tracemalloc.stop()


def test_numbers_and_texts_keep_apart() -> None:
    """Both in one tensor, and numbers that no type holds, are refused; texts are no numbers of the second protocol."""
    short = {"name": "x", "shape": [], "datatype": "BYTES", "parameters": {"binary_data_size": 1}}
    with pytest.raises(PayloadError):
        read_payload(json.dumps({"inputs": [short]}).encode() + b"0", response=False)
    for value in ([1, "a"], [1 << 70], [None], [[1], 2], {"a": []}, []):
        with pytest.raises(PayloadError):
            read_payload(json.dumps({"instances": value}).encode(), response=False)
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": ["1"]}
    with pytest.raises(PayloadError):
        read_payload(json.dumps({"inputs": [tensor]}).encode(), response=False)
