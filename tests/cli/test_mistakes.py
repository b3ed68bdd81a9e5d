"""What the commands say and how they end, as processes: exit status, one line on the standard error, no traceback."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from models.formats.onnx_models import CONV_INPUT, quantized_conv_net
from onnx import helper
from runtimes.models import doubling, floats, model

import otel_quantmon
from otel_quantmon.cli import main
from otel_quantmon.cli.commands.inspect import InspectCommand


def quantmon(*arguments: object) -> subprocess.CompletedProcess[str]:
    source = os.path.dirname(os.path.dirname(otel_quantmon.__file__))
    command = [sys.executable, "-m", "otel_quantmon.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": source, "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A model, the same with an output of another shape, and inputs in numpy's own type."""
    paths = {name: tmp_path / name for name in ("model.onnx", "other.onnx", "x.npy")}
    paths["model.onnx"].write_bytes(doubling())
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    paths["other.onnx"].write_bytes(
        model([node], inputs=[floats("x", "n", 3)], outputs=[floats("y")], name="other")
    )
    np.save(paths["x.npy"], np.arange(6.0).reshape(2, 3))
    return paths


def test_nothing_to_compare_is_no_success(files: dict[str, Path]) -> None:
    """Outputs of other shapes: status 2, and the reason is in the report."""
    done = quantmon("compare", files["other.onnx"], files["model.onnx"], "--inputs", files["x.npy"])
    assert done.returncode == 2
    assert "gave no sample: shape" in done.stdout
    assert "no output could be compared" in done.stderr


def test_models_in_the_wrong_order(tmp_path: Path, files: dict[str, Path]) -> None:
    """The first is quantized and the second is not: told with the order that is meant, before any input is read."""
    quantized = quantized_conv_net(tmp_path, "QDQ")
    original = files["model.onnx"].rename(tmp_path / "the model.onnx")
    done = quantmon("compare", quantized, original, "--inputs", files["x.npy"])
    assert done.returncode == 2
    assert "in the other order" in done.stderr
    assert f"quantmon compare '{original}' {quantized} ..." in done.stderr, "to be copied"
    assert CONV_INPUT not in done.stderr


def test_inputs_in_the_types_that_numpy_makes_by_default(tmp_path: Path, files: dict[str, Path]) -> None:
    """float64 is given as float32, with a note; what float32 cannot hold is refused."""
    done = quantmon("compare", files["model.onnx"], files["model.onnx"], "--inputs", files["x.npy"])
    assert done.returncode == 0
    assert done.stderr == "quantmon: note: input 'x' is float64, given as float32\n"
    np.save(tmp_path / "large.npy", np.full((2, 3), 1e300))
    done = quantmon("compare", files["model.onnx"], files["model.onnx"], "--inputs", tmp_path / "large.npy")
    assert done.returncode == 2
    assert "do not fit" in done.stderr


def test_a_file_that_is_no_model_is_named_once(tmp_path: Path, files: dict[str, Path]) -> None:
    """One "cannot read", with the file's name."""
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    done = quantmon("compare", text, files["model.onnx"], "--inputs", files["x.npy"])
    assert done.returncode == 2
    assert done.stderr.count("cannot read") == 1
    assert repr(str(text)) in done.stderr


@pytest.mark.parametrize("place", ["missing/b.safetensors", "folder"])
def test_a_place_that_cannot_be_written_is_named_as_it_was_given(
    tmp_path: Path, files: dict[str, Path], place: str
) -> None:
    """A folder that is missing, or a folder itself: the message has the name that was given, and no temporary one."""
    (tmp_path / "folder").mkdir()
    out = tmp_path / place
    done = quantmon("baseline", "record", files["model.onnx"], "--inputs", files["x.npy"], "-o", out)
    assert done.returncode == 2
    assert str(out) in done.stderr
    assert ".tmp" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, "the note on the type may stand before it"


@pytest.mark.parametrize("command", [("compare",), ("baseline", "record"), ("baseline", "check")])
def test_help_tells_every_argument_and_the_exit_statuses(command: tuple[str, ...]) -> None:
    """Each positional argument has its line, and what the statuses mean is said."""
    done = quantmon(*command, "--help")
    assert done.returncode == 0
    assert "exit status:\n  0 " in done.stdout
    lines = done.stdout.split("positional arguments:")[1].split("options:")[0].strip().splitlines()
    assert all(len(line.split()) > 2 for line in lines)


def test_a_number_that_is_none(files: dict[str, Path]) -> None:
    """The message says what to give, and nothing of the program's insides."""
    done = quantmon("compare", "a", "b", "--inputs", files["x.npy"], "--cases", "few")
    assert done.returncode == 2
    assert "give a whole number from 1" in done.stderr


@pytest.fixture
def models(tmp_path: Path, files: dict[str, Path]) -> Path:
    """The file that names the float model of an evaluation."""
    path = tmp_path / "models.toml"
    path.write_text('[models."m"]\nreference = "model.onnx"\n')
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--source", "kserve://127.0.0.1:99999/x"), "give one up to 65535"),
        (("--source", "otlp://127.0.0.1:99999/x"), "give one up to 65535"),
        (("--source", "kserve://a..b:8080/x"), "'a..b' is no name of a host"),
        (("--source", "otlp://127.0.0.1:0/x", "--store", "foo://b"), "--store foo://b: Protocol not known"),
        (("--source", "otlp://127.0.0.1:0/x", "--store", "s3://b/c"), "--store s3://b/c: "),
    ],
)
def test_an_address_that_is_none(models: Path, arguments: tuple[str, ...], said: str) -> None:
    """Of a source or a store: one line, with what to give or what to install."""
    pytest.importorskip("zstandard")
    if "s3://b/c" in arguments and find_spec("s3fs") is not None:
        pytest.skip("s3fs is here")
    done = quantmon("evaluate", "--models", models, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("quantmon: error: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_state_that_cannot_be_written_any_more(tmp_path: Path, models: Path) -> None:
    """SQLite ends the transaction by itself, as where the disk is full: one line, and what it says of it."""
    pytest.importorskip("zstandard")
    samples, state = tmp_path / "samples", tmp_path / "state.sqlite"
    command = (
        "evaluate",
        "--models",
        models,
        "--source",
        f"dir:{samples}",
        "--state",
        state,
        "--until-empty",
    )
    assert quantmon(*command).returncode == 0
    with closing(sqlite3.connect(state)) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON sample BEGIN SELECT RAISE(ROLLBACK, 'no room is left'); END"
        )
    (samples / "new" / "noise.sample").write_bytes(b"noise")
    done = quantmon(*command)
    assert done.returncode == 2
    assert "--state or of --fleet cannot be used any more: no room is left\n" in done.stderr


def test_a_mistake_of_ours_is_no_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody has thought of: its traceback to report, and the status of what was not carried out."""

    def failing(*_: object) -> int:
        raise RuntimeError("a fault")

    monkeypatch.setattr(InspectCommand, "run", failing)
    assert main(["inspect", "a.onnx"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("quantmon: error: RuntimeError, a mistake of ours: please report it\n")


def test_nothing_is_given() -> None:
    """The commands there are, and a status that is no success."""
    done = quantmon()
    assert (done.returncode, done.stdout) == (2, "")
    assert all(f"\n    {name} " in done.stderr for name in ("demo", "run", "inspect", "doctor"))


@pytest.mark.skipif(os.name != "posix", reason="quantmon run needs Linux or macOS")
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--timeout", "soon", "--timeout: 'soon' is not accepted; give a duration"),
        ("--reference", "float.onnx", "--reference: 'float.onnx' is not accepted; give paths by model"),
        ("--config", "missing.toml", "--config: "),
        ("--config", "wrong.toml", "'soon' is not accepted"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_before_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, said: str
) -> None:
    """The application would be started, and would leave the setting out with a warning."""
    pytest.importorskip("starlette")
    pytest.importorskip("opentelemetry.distro")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.toml").write_text('timeout = "soon"')
    done = quantmon("run", option, value, "--", "touch", "started")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("quantmon: error: ")
    assert not (tmp_path / "started").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [("inspect", "--no-load"), ("inspect", "--no-load", "--json"), ("run", "--help"), ("--version",)],
)
def test_a_full_disk_is_an_error_that_says_so(
    files: dict[str, Path], arguments: tuple[str, ...], unbuffered: str
) -> None:
    """And not half a table or a help that is missing with status 0; Python's own complaint and its 120 do not come."""
    given = (*arguments, str(files["model.onnx"])) if "inspect" in arguments else arguments
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "otel_quantmon.cli", *given],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, "quantmon: error: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [(), ("no-such-command",), ("show", "missing.db")])
def test_a_mistake_keeps_its_status_where_it_cannot_be_told(
    arguments: tuple[str, ...], unbuffered: str
) -> None:
    """The standard error is full: status 2, as for anybody who reads it."""
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "otel_quantmon.cli", *arguments]
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, env=environment, stderr=full, check=False).returncode == 2


def test_an_encoding_without_the_signs(files: dict[str, Path]) -> None:
    """As under LC_ALL=C: microseconds are written with a plain u."""
    command = [sys.executable, "-m", "otel_quantmon.cli", "inspect", files["model.onnx"]]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(rb"a call, of zeros +[\d.]+ [mun]?s\n", done.stdout)


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, files: dict[str, Path], closed: str) -> None:
    """Nobody reads what is written, and that is no error; no other file stands in for the stream."""
    line = f'"{sys.executable}" -m otel_quantmon.cli inspect --no-load "{files["model.onnx"]}" {closed}'
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 0
    look = tmp_path / "look.py"
    look.write_text(_LOOK)
    numbers = " ".join(str("<>2".index(part[0])) for part in closed.split())
    line = f'"{sys.executable}" "{look}" {numbers} {closed}'
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 0


_LOOK = """
import os, sys
from otel_quantmon.cli.streams import prepare_streams
prepare_streams()
null = os.stat(os.devnull).st_rdev
sys.exit(any(os.fstat(int(number)).st_rdev != null for number in sys.argv[1:]))
"""
