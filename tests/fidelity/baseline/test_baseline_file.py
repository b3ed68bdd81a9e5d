"""The golden baseline's file: what goes in comes out, or nothing does."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_quantmon.fidelity.baseline import (
    Baseline,
    BaselineError,
    Case,
    Environment,
    InputStatistics,
    LatencyStatistics,
    OutputStatistics,
    file,
    read_baseline,
    safetensors,
    write_baseline,
)

from .names import NAMES, SAME_DIRECTORY

DTYPES = [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64,
          np.float16, np.float32, np.float64, ">f4", ">i2"]  # fmt: skip


@st.composite
def tensors(draw, min_size=0):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return draw(
        st.dictionaries(NAMES, hnp.arrays(st.sampled_from(DTYPES), shapes), min_size=min_size, max_size=3)
    )


FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple)
OPTIONAL = st.none() | st.floats(-1e300, 1e300)
BASELINES = st.builds(
    Baseline,
    model=NAMES,
    digest=NAMES,
    reference_digest=st.none() | NAMES,
    environment=st.builds(
        Environment, NAMES, NAMES, st.lists(NAMES, max_size=2).map(tuple), st.just(("avx2",))
    ),
    cases=st.lists(st.builds(Case, tensors(), tensors(min_size=1), tensors()), max_size=3).map(tuple),
    output_statistics=st.dictionaries(
        NAMES, st.builds(OutputStatistics, FLOATS, FLOATS, FLOATS, FLOATS, OPTIONAL, OPTIONAL), max_size=2
    ),
    input_statistics=st.dictionaries(
        NAMES, st.builds(InputStatistics, FLOATS, FLOATS, OPTIONAL, OPTIONAL), max_size=2
    ),
    latency=st.none() | st.builds(LatencyStatistics, st.integers(1, 99), *[st.floats(0, 10)] * 4),
)


def example():
    """A small baseline whose every part is filled."""
    case = Case(
        {"x": np.arange(6, dtype=np.float32).reshape(2, 3)},
        {"y": np.array([1, 2], np.int8)},
        {"y": np.array([1.0, 2.5])},
    )
    return Baseline(
        model="net",
        digest="sha256:00",
        environment=Environment("onnxruntime", "1.32.0", ("CPUExecutionProvider",), ("avx2",)),
        cases=(case, case),
        reference_digest="sha256:01",
        output_statistics={"y": OutputStatistics((2.7,), (0.1,), (0.99,), (), 1.0, 2.5)},
        input_statistics={"x": InputStatistics((0.0,), (0.5,), 0.0, 5.0)},
        latency=LatencyStatistics(100, 1e-5, 1e-5, 2e-5, 3e-5),
    )


def assert_same(actual, expected):
    """Equal in every field, with arrays equal bit for bit, in shape, and in type but for its byte order."""
    assert dataclasses.replace(actual, cases=()) == dataclasses.replace(expected, cases=())
    assert len(actual.cases) == len(expected.cases)
    for one, other in zip(actual.cases, expected.cases, strict=True):
        for role in ("inputs", "outputs", "references"):
            arrays, others = getattr(one, role), getattr(other, role)
            assert arrays.keys() == others.keys()
            for name, array in arrays.items():
                little = others[name].astype(others[name].dtype.newbyteorder("<"))
                assert (array.dtype.name, array.shape) == (little.dtype.name, little.shape)
                assert array.tobytes() == little.tobytes()


@SAME_DIRECTORY
@given(baseline=BASELINES)
def test_what_was_written_is_read(tmp_path, baseline):
    """Every type, shape, name and number survives, NaN payloads and denormals included."""
    path = tmp_path / "model.baseline"
    write_baseline(path, baseline)
    assert_same(read_baseline(path), baseline)


CORRUPTIONS = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.just(0)),
    st.tuples(st.just("insert"), st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
    st.tuples(st.just("zero"), st.floats(0, 1, exclude_max=True), st.integers(1, 64)),
    st.tuples(st.just("append"), st.just(0.0), st.integers(0, 255)),
)


def corrupted(content, corruption):
    kind, share, amount = corruption
    at = int(share * len(content))
    match kind:
        case "flip":
            return content[:at] + bytes([content[at] ^ amount]) + content[at + 1 :]
        case "cut":
            return content[:at]
        case "insert":
            return content[:at] + bytes([amount]) + content[at:]
        case "zero":
            return content[:at] + bytes(len(content[at : at + amount])) + content[at + amount :]
        case _:
            return content + bytes([amount])


@settings(SAME_DIRECTORY, max_examples=500)
@given(changes=st.lists(CORRUPTIONS, min_size=1, max_size=3))
def test_damage_is_refused_or_changes_nothing(tmp_path, changes):
    """No flipped bit, cut or insertion is read as another baseline or raises another error."""
    path = tmp_path / "model.baseline"
    write_baseline(path, example())
    whole = content = path.read_bytes()
    for change in changes:
        if content:
            content = corrupted(content, change)
    path.write_bytes(content)
    if content == whole:
        assert_same(read_baseline(path), example())
    else:
        with pytest.raises(BaselineError, match=str(path)):
            read_baseline(path)


def write_safetensors(path, metadata):
    header, data = safetensors.encode({"w": np.ones(3, np.float32)}, metadata)
    path.write_bytes(b"".join([header, *data]))


def test_foreign_and_newer_files_are_refused_with_what_to_do(tmp_path):
    """Weights saved as safetensors are no baseline, and a newer version asks for an upgrade."""
    path = tmp_path / "model.baseline"
    for metadata in ({}, {"format": "pt"}):
        write_safetensors(path, metadata)
        with pytest.raises(BaselineError, match="no baseline; record one"):
            read_baseline(path)
    write_safetensors(path, {"format": file.FORMAT, "version": "2"})
    with pytest.raises(BaselineError, match="upgrade otel-quantmon"):
        read_baseline(path)


def test_what_is_no_readable_file_is_refused(tmp_path):
    """Missing, empty, a directory and a pipe give the same error, and a pipe does not block."""
    path = tmp_path / "model.baseline"
    with pytest.raises(BaselineError, match="give the path"):
        read_baseline(path)
    path.touch()
    with pytest.raises(BaselineError, match="truncated"):
        read_baseline(path)
    with pytest.raises(BaselineError, match="regular file"):
        read_baseline(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BaselineError, match="regular file"):
            read_baseline(tmp_path / "pipe")


def test_too_large_a_baseline_is_neither_written_nor_read(tmp_path, monkeypatch):
    """Both ends keep to the limit, and what was there before stays."""
    path = tmp_path / "model.baseline"
    write_baseline(path, example())
    size = path.stat().st_size
    monkeypatch.setattr(file, "MAX_BASELINE_BYTES", size - 1)
    with pytest.raises(BaselineError, match="record fewer"):
        write_baseline(path, example())
    with pytest.raises(BaselineError, match="record fewer"):
        read_baseline(path)
    assert path.stat().st_size == size


@pytest.mark.parametrize(
    "baseline",
    [
        dataclasses.replace(example(), cases=(Case({}, {"y": np.array(["a"])}),)),
        dataclasses.replace(example(), cases=(Case({}, {"y": np.array([{}])}),)),
        dataclasses.replace(example(), cases=(Case({}, {"y": np.ones(1, np.complex64)}),)),
        dataclasses.replace(example(), cases=(Case({"x": np.ones(1)}, {}),)),
        dataclasses.replace(example(), output_statistics={"y": OutputStatistics((float("nan"),))}),
    ],
)
def test_what_cannot_be_stored_is_refused_before_the_file_is_touched(tmp_path, baseline):
    """Strings, objects, complex numbers, cases without output, NaN statistics: nothing is pickled."""
    path = tmp_path / "model.baseline"
    with pytest.raises(BaselineError):
        write_baseline(path, baseline)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    """A disk that fails at the last moment costs nothing that was there; no real one fails on demand."""
    path = tmp_path / "model.baseline"
    write_baseline(path, example())
    before = path.read_bytes()

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_baseline(path, dataclasses.replace(example(), model="other"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="no pipe in a folder, and no link for everybody")
def test_a_baseline_takes_no_place_from_a_pipe_or_a_link(tmp_path):
    """What is no regular file is refused and stays; a link stays one, and its target has the baseline."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        write_baseline(pipe, example())
    assert pipe.is_fifo()
    link, target = tmp_path / "link.safetensors", tmp_path / "target.safetensors"
    link.symlink_to(target)
    write_baseline(link, example())
    assert link.is_symlink()
    assert read_baseline(target).model == example().model


def test_a_reader_never_sees_half_a_file(tmp_path):
    """While one thread writes again and again, every read is one whole baseline or the other."""
    path = tmp_path / "model.baseline"
    baselines = [dataclasses.replace(example(), model=name) for name in ("a", "b")]
    write_baseline(path, baselines[0])

    def rewrite():
        for index in range(30):
            write_baseline(path, baselines[index % 2])

    writer = threading.Thread(target=rewrite)
    writer.start()
    while writer.is_alive():
        assert read_baseline(path).model in ("a", "b")
    writer.join()


def test_the_reference_implementation_reads_the_file(tmp_path):
    """It is a safetensors file like any other, aligned as the format asks."""
    reference = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.baseline"
    write_baseline(path, example())
    loaded = reference.load_file(path)
    assert sorted(loaded) == sorted(f"{role}/{case}/{name}" for case in "01" for role, name in
                                    (("inputs", "x"), ("outputs", "y"), ("references", "y")))  # fmt: skip
    np.testing.assert_array_equal(loaded["inputs/1/x"], example().cases[0].inputs["x"])
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0


def test_bfloat16_and_4_bit_integers_keep_their_types(tmp_path):
    """They come back as ml_dtypes' own types, so that they can be fed to a runtime again."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    arrays = {
        "b": np.array([[1.0, -3e38]], ml_dtypes.bfloat16),
        "i": np.array([-8, 7], ml_dtypes.int4),
        "u": np.array([0, 15], ml_dtypes.uint4),
    }
    path = tmp_path / "model.baseline"
    write_baseline(path, dataclasses.replace(example(), cases=(Case(arrays, arrays),)))
    (case,) = read_baseline(path).cases
    for name, array in case.inputs.items():
        assert array.dtype == arrays[name].dtype
        assert array.tolist() == arrays[name].tolist()


def test_without_ml_dtypes_the_same_values_are_read(tmp_path):
    """Then bfloat16 becomes float32, and 4-bit integers bytes of the same values."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    arrays = {"b": np.array([1.0, -2.5], ml_dtypes.bfloat16), "i": np.array([-8, 7], ml_dtypes.int4)}
    path = tmp_path / "model.baseline"
    write_baseline(path, dataclasses.replace(example(), cases=(Case({}, arrays),)))
    program = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "from pathlib import Path; from otel_quantmon.fidelity.baseline import read_baseline\n"
        "outputs = read_baseline(Path(sys.argv[1])).cases[0].outputs\n"
        "print([(a.dtype.name, a.tolist()) for _, a in sorted(outputs.items())])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert result.stdout.strip() == "[('float32', [1.0, -2.5]), ('int8', [-8, 7])]"


def test_a_baseline_does_not_change_under_its_user(tmp_path):
    """Arrays are read-only: a model that wrote into its inputs would alter every later replay."""
    path = Path(tmp_path / "model.baseline")
    write_baseline(path, example())
    array = read_baseline(path).cases[0].inputs["x"]
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 7
