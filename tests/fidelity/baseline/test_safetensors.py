"""The format of the golden baseline's file: what others write is read, and what is false is refused before it costs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_quantmon.fidelity.baseline import safetensors

from .names import NAMES, SAME_DIRECTORY

KEYS = st.sampled_from(["__metadata__", "a", "dtype", "shape", "data_offsets", "format"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**70) | st.text(max_size=4) | st.just("F32"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(SAME_DIRECTORY, max_examples=150)
@given(header=JSON, data=st.binary(max_size=16))
def test_any_json_for_a_header_is_an_error_of_the_format(header, data):
    """Whatever the header claims, the answer is tensors that fit the bytes there are, or SafetensorsError."""
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + data
    try:
        arrays, _ = safetensors.decode(content)
    except safetensors.SafetensorsError:
        return
    assert sum(array.nbytes for array in arrays.values()) == len(data)


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(shape=(2**62, 2**62), offsets=(0, 4))},
        {"a": entry(shape=(2**40,), offsets=(0, 2**42))},
        {"a": entry(shape=(-1, -1))},
        {"a": entry(shape=(True,))},
        {"a": entry(shape=(1.0,))},
        {"a": entry(offsets=(4, 0), shape=(0,))},
        {"a": entry(), "b": entry()},
        {"a": entry(dtype="F128")},
        {"a": entry(dtype=["F32"])},
        {"a": entry(shape=(1,) * 200)},
        {"a": entry(shape=(0, 2**70), offsets=(0, 0))},
        {"a": 1},
        {},
        [],
    ],
)
def test_false_claims_are_refused_before_anything_is_allocated(header):
    """Sizes are compared with the four bytes there are; petabytes claimed cost nothing."""
    text = json.dumps(header).encode()
    with pytest.raises(safetensors.SafetensorsError):
        safetensors.decode(len(text).to_bytes(8, "little") + text + bytes(4))


def test_deeply_nested_json_is_refused():
    """A header that would exhaust the parser's stack is damage like any other."""
    text = b"[" * 200_000
    with pytest.raises(safetensors.SafetensorsError):
        safetensors.decode(len(text).to_bytes(8, "little") + text)


def test_a_header_over_the_limit_is_refused_unread():
    """The length is checked against the limit and the file, not believed."""
    content = (safetensors.MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b" " * (
        safetensors.MAX_HEADER_BYTES + 1
    )
    with pytest.raises(safetensors.SafetensorsError, match="cannot hold"):
        safetensors.decode(content)


COMMON_ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.bool_, np.uint8]), hnp.array_shapes(min_dims=0, min_side=0)
)


@settings(deadline=None, max_examples=50)
# Not without arrays: with metadata alone, safetensors 0.4.0 writes a header that is not JSON.
@given(arrays=st.dictionaries(NAMES, COMMON_ARRAYS, min_size=1, max_size=4))
def test_files_of_the_reference_implementation_are_read(arrays):
    """What others write with the safetensors package is understood."""
    reference = pytest.importorskip("safetensors.numpy")
    decoded, metadata = safetensors.decode(reference.save(arrays, metadata={"made": "there"}))
    assert metadata == {"made": "there"}
    assert decoded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(decoded[name], array)
