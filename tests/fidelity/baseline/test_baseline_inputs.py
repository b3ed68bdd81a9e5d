"""Inputs from files."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_quantmon.fidelity.baseline import InputFileError, load_inputs, safetensors

IMAGE, MASK = np.arange(6.0).reshape(2, 3), np.array([True, False])


def save(path, arrays):
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        header, data = safetensors.encode(arrays, {})
        path.write_bytes(b"".join([header, *data]))
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_one_call_is_named_by_its_inputs(tmp_path, suffix):
    """Arrays under the model's own names are one call, in the model's order."""
    path = save(tmp_path / f"inputs{suffix}", {"mask": MASK, "image": IMAGE})
    (call,) = load_inputs(path, ["image", "mask"])
    assert list(call) == ["image", "mask"]
    np.testing.assert_array_equal(call["image"], IMAGE)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_several_calls_are_numbered(tmp_path, suffix):
    """Calls come in the order of their numbers, 10 after 9; a name may hold slashes itself."""
    arrays = {f"{number}/in/image": np.full(2, number) for number in (10, 9, 0)}
    calls = load_inputs(save(tmp_path / f"inputs{suffix}", arrays), ["in/image"])
    assert [int(call["in/image"][0]) for call in calls] == [0, 9, 10]


def test_a_single_array_is_the_single_input(tmp_path):
    """.npy has no names, so it fits a model with one input and no other."""
    np.save(tmp_path / "image.npy", IMAGE)
    np.testing.assert_array_equal(load_inputs(tmp_path / "image.npy", ["x"])[0]["x"], IMAGE)
    with pytest.raises(InputFileError, match=r"use \.npz"):
        load_inputs(tmp_path / "image.npy", ["x", "y"])


@pytest.mark.parametrize(
    "arrays",
    [{"other": IMAGE}, {"image": IMAGE}, {}, {"0/image": IMAGE}, {"0/image": IMAGE, "mask": MASK}],
)
def test_names_that_are_not_the_models_are_refused(tmp_path, arrays):
    """The message tells both sides' names."""
    path = save(tmp_path / "inputs.npz", arrays)
    with pytest.raises(InputFileError, match=r"\['image', 'mask'\]"):
        load_inputs(path, ["image", "mask"])


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickled_objects_are_never_loaded(tmp_path, suffix):
    """A file that could run code when unpickled is refused."""
    path = tmp_path / f"inputs{suffix}"
    objects = np.array([{"a": 1}], object)
    if suffix == ".npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, x=objects)
    with pytest.raises(InputFileError, match="objects"):
        load_inputs(path, ["x"])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".csv"])
def test_missing_unknown_and_foreign_files_are_refused(tmp_path, suffix):
    """Each gives the one error that names the file."""
    path = tmp_path / f"inputs{suffix}"
    if suffix != ".csv":
        with pytest.raises(InputFileError, match="cannot be read"):
            load_inputs(path, ["x"])
    path.write_text("not what its name says")
    with pytest.raises(InputFileError, match="inputs"):
        load_inputs(path, ["x"])


def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path):
    """The sizes after decompression count, so a small archive cannot fill the memory."""
    path = save(tmp_path / "inputs.npz", {"x": np.zeros(1 << 20)})
    assert path.stat().st_size < 1 << 16
    with pytest.raises(InputFileError, match="over the limit"):
        load_inputs(path, ["x"], max_bytes=1 << 16)
    np.save(tmp_path / "x.npy", np.zeros(1 << 14))
    with pytest.raises(InputFileError, match="over the limit"):
        load_inputs(tmp_path / "x.npy", ["x"], max_bytes=1 << 16)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from([".npy", ".npz", ".safetensors"]), at=st.floats(0, 1, exclude_max=True),
       flip=st.integers(1, 255), cut=st.booleans())  # fmt: skip
def test_damage_gives_arrays_or_the_one_error(tmp_path, suffix, at, flip, cut):
    """No damage to a file of inputs ends in an error that a caller does not expect."""
    path = tmp_path / f"inputs{suffix}"
    if suffix == ".npy":
        np.save(path, IMAGE)
    else:
        save(path, {"x": IMAGE})
    content = bytearray(path.read_bytes())
    index = int(at * len(content))
    content[index] ^= flip
    path.write_bytes(content[:index] if cut else content)
    try:
        (call,) = load_inputs(path, ["x"])
    except InputFileError:
        return
    assert isinstance(call["x"], np.ndarray)


def test_a_member_that_claims_more_than_it_holds_is_refused(tmp_path):
    """A header of terabytes in an archive of bytes is damage, not a reason to allocate."""
    path = tmp_path / "inputs.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputFileError, match="damaged"):
        load_inputs(path, ["x"])
