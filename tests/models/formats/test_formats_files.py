"""What may happen to a model's file while it is read, and what is never opened."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import onnxruntime
import pytest
import real_models
from exported import Exported
from hypothesis import given
from hypothesis import strategies as st
from runtimes.models import doubling

from otel_quantmon.fidelity.baseline import BaselineError, read_baseline
from otel_quantmon.fidelity.engines import EngineError, open_engine
from otel_quantmon.models.description import LoadedModel
from otel_quantmon.models.formats import read_digest, read_facts, source
from otel_quantmon.models.formats.source import (
    FileSlice,
    RegularFile,
    identity_of,
    open_regular,
    read_regular,
)
from otel_quantmon.models.identity import Model
from otel_quantmon.settings import Settings

needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")


def loaded(path: Path) -> Model:
    """The model of the file ``path``, as when its loading was not seen."""
    return Model(
        LoadedModel(runtime="onnxruntime", runtime_version="1", provider="cpu", source=str(path)), Settings()
    )


# --- read piece by piece ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [real_models.magika_qdq, real_models.magika_float, real_models.wake_word],
    ids=lambda f: f.__name__,
)
def test_a_file_read_piece_by_piece_has_the_facts_of_its_bytes(
    model: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts do not depend on where the bytes come from, nor on what is kept of them."""
    monkeypatch.setattr(source, "_READ_WHOLE", 0)
    for blocks in (1, 32):
        monkeypatch.setattr(source, "_BLOCKS_KEPT", blocks)
        assert read_facts(model()) == read_facts(model().read_bytes())


@given(data=st.data())
def test_slices_of_a_file_are_those_of_its_bytes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any slice of any slice, over the edges of blocks and of what counts as small, gives the bytes that are there."""
    path = tmp_path_factory.getbasetemp() / "slices.bin"
    content = bytes(i * i % 251 for i in range(70_000))
    path.write_bytes(content)
    with open_regular(path) as file:
        view: memoryview | FileSlice = FileSlice(file, 0, file.size)
        expected = content
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(expected)))
            end = data.draw(st.integers(0, len(expected) + 10))
            view, expected = view[start:end], expected[start:end]
            assert len(view) == len(expected)
            assert view.tobytes() == expected
            if expected:
                place = data.draw(st.integers(0, len(expected) - 1))
                assert view[place] == expected[place]
        with pytest.raises(IndexError):
            _ = view[len(expected)]


# --- changed meanwhile --------------------------------------------------------------------------------------


def test_a_file_rewritten_in_place_while_it_is_read_does_not_end_the_process(tmp_path: Path) -> None:
    """Truncated and written anew by another process in the middle of the reading: an error, where a map is SIGBUS."""
    path = tmp_path / "model.onnx"
    shutil.copy(real_models.magika_float(), path)
    program = textwrap.dedent(
        """
        import os, sys
        from otel_quantmon.models.formats import protobuf, read_facts

        path, read, seen = sys.argv[1], protobuf.WireReader.fields, []

        def fields(self, message):
            for field in read(self, message):
                yield field
                seen.append(None)
                if len(seen) == 200:
                    # What `cp` does to a file that is there.
                    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))

        protobuf.WireReader.fields = fields
        try:
            read_facts(path)
        except OSError as error:
            print(error.strerror)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "it was changed while it was read\n"), done.stderr


@pytest.mark.parametrize("change", ["truncated", "grown", "same size", "same times"])
def test_a_file_that_changes_while_it_is_read_is_told_of_nothing(change: str, tmp_path: Path) -> None:
    """However it changes, an OSError: neither facts nor digest are put together from two states of a file."""
    path = tmp_path / "model.onnx"
    shutil.copy(real_models.magika_qdq(), path)
    before = os.stat(path)
    later = before.st_mtime_ns + (0 if change == "same times" else 1_000_000_000)

    def write() -> None:
        with open(path, "r+b") as other:
            if change == "truncated":
                other.truncate(1000)
            elif change == "grown":
                other.seek(0, os.SEEK_END)
                other.write(b"more")
            else:
                other.write(bytes(100))
        # The clock of a file system may be coarse: until it has moved on.
        while os.stat(path).st_ctime_ns == before.st_ctime_ns:
            os.utime(path, ns=(later, later))

    def read() -> None:
        with open_regular(path) as file:
            file.read(0, 100)
            write()

    with pytest.raises(OSError, match="changed while it was read"):
        read()


def test_a_model_whose_file_changed_since_its_loading_began_is_unknown(tmp_path: Path) -> None:
    """Written to while the runtime read it, a file is not what runs: neither scheme nor digest are told."""
    path = tmp_path / "cat.onnx"
    shutil.copy(real_models.magika_qdq(), path)
    begun = identity_of(path)
    path.write_bytes(doubling())
    given = LoadedModel(
        runtime="onnxruntime", runtime_version="1", provider="cpu", source=str(path), identity=begun
    )
    model = Model(given, Settings())
    assert model.facts.scheme == "unknown"
    assert model.read_digest() is None


def test_a_file_that_is_written_while_the_runtime_loads_it_is_unknown(
    tmp_path: Path, instrument: Callable[..., None], exported: Exported
) -> None:
    """The application has its session; what it was loaded from is not guessed at."""
    path = tmp_path / "cat.onnx"
    shutil.copy(real_models.magika_qdq(), path)

    class Rewriting(list[str]):
        """Providers that the runtime reads, before the file."""

        def __iter__(self) -> Iterator[str]:
            path.write_bytes(doubling())
            os.utime(path, ns=(10**18, 10**18))
            return super().__iter__()

    instrument(baseline_calls=1_000_000)
    session = onnxruntime.InferenceSession(str(path), providers=Rewriting(["CPUExecutionProvider"]))
    assert session.run(None, {"x": [[1.0, 2.0, 3.0]]})[0].tolist() == [[2.0, 4.0, 6.0]]
    (info,) = exported.points("quantmon.model.info")
    assert info.attributes["quantmon.quantization.scheme"] == "unknown"
    assert "quantmon.model.digest" not in info.attributes


def test_a_file_exchanged_for_one_of_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    """A file moved into the place of the one that was loaded is told by its inode."""
    path, other = tmp_path / "cat.onnx", tmp_path / "other.onnx"
    for place in (path, other):
        place.write_bytes(doubling())
        os.utime(place, ns=(10**18, 10**18))
    model = loaded(path)
    other.replace(path)
    assert model.facts.scheme == "unknown"
    assert model.read_digest() is None


# --- only regular files -------------------------------------------------------------------------------------


@needs_fifo
def test_a_fifo_is_opened_by_no_reader(tmp_path: Path) -> None:
    """Facts, digest, baseline and reference alike: refused at once, and a writer goes on waiting."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    for read in (read_facts, read_digest, read_regular, RegularFile):
        with pytest.raises(OSError, match="not a regular file"):
            read(path)
    with pytest.raises(BaselineError, match="not a regular file"):
        read_baseline(path)
    with pytest.raises(EngineError, match="not a regular file"):
        open_engine(str(path))
    assert identity_of(path) is None
    # Nobody reads at the other end, not even for a moment: that would be no error.
    with pytest.raises(OSError, match=r"[Nn]o such device"):
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)


@needs_fifo
def test_a_fifo_that_takes_a_files_place_in_between_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the opening a file may be exchanged: the opening does not wait, and looks again."""
    path, fifo = tmp_path / "cat.onnx", tmp_path / "fifo"
    path.write_bytes(doubling())
    os.mkfifo(fifo)
    monkeypatch.setattr(source.os, "stat", lambda _: os.lstat(__file__))
    with pytest.raises(OSError, match="not a regular file"):
        RegularFile(fifo)


@needs_fifo
def test_a_model_loaded_through_a_fifo_is_observed(
    tmp_path: Path, instrument: Callable[..., None], exported: Exported
) -> None:
    """ONNX Runtime loads from a FIFO; the load returns, what the file would tell is unknown, and calls are counted."""
    path = tmp_path / "piped.onnx"
    os.mkfifo(path)
    source_file = tmp_path / "source.onnx"
    source_file.write_bytes(doubling("piped", rows=2))
    # Another process, since ONNX Runtime before 1.24 loads without giving other threads of this one a chance.
    copying = (
        "import pathlib, sys; pathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes())"
    )
    writer = subprocess.Popen([sys.executable, "-c", copying, str(source_file), str(path)])
    instrument(baseline_calls=1_000_000)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert writer.wait(60) == 0
    session.run(None, {"x": [[1.0, 2.0, 3.0]] * 2})
    assert exported.count(model_name="piped") == 1
    (info,) = exported.points("quantmon.model.info")
    assert info.attributes["quantmon.quantization.scheme"] == "unknown"
