"""The command without its extras: it says what to install, and nothing else of the package needs them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lifecycle.programs import environment

_WITHOUT = """
import importlib.util, sys
left_out = sys.argv[1].split(",")
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in left_out else find(name, *rest)
class Nowhere:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in left_out:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nowhere())
from otel_quantmon.cli import main
sys.exit(main(sys.argv[2:]))
"""


def quantmon(left_out: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT, left_out, *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("left_out", "arguments", "extra"),
    [
        ("starlette", ("run", "--", "true"), "page"),
        ("rich", ("show", "run.db"), "cli"),
        ("shtab", ("completion", "bash"), "cli"),
        ("magika", ("demo",), "demo"),
    ],
)
def test_what_is_missing_is_named(left_out: str, arguments: tuple[str, ...], extra: str) -> None:
    """Status 2, one line, with what to install."""
    done = quantmon(left_out, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("quantmon: error: ")
    assert done.stderr.endswith(f"pip install 'otel-quantmon[{extra}]'\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "a.onnx", "b.onnx", "--inputs", "x.npy"),
        ("baseline", "record", "a.onnx", "--inputs", "x.npy", "-o", "b.safetensors"),
        ("baseline", "check", "b.safetensors", "a.onnx"),
        ("certify", "a.onnx", "--baseline", "b.safetensors"),
        ("inspect", "a.onnx", "--no-load"),
        ("evaluate", "--models", "models.toml", "--source", "dir:samples"),
    ],
)
def test_without_numpy_a_runtime_is_named(arguments: tuple[str, ...]) -> None:
    """Status 2, one line: numpy comes with a runtime, and not with an extra of the command."""
    done = quantmon("numpy", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("quantmon: error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "needs numpy, which comes with a runtime: pip install 'otel-quantmon[onnxruntime]'" in done.stderr


def test_importing_the_package_imports_no_extra() -> None:
    """Neither the package in an application nor the command's help brings in what the extras have."""
    code = """
import contextlib, sys
import otel_quantmon, otel_quantmon.instrumentors
from otel_quantmon.cli import main
with contextlib.suppress(SystemExit):
    main(["run", "--help"])
extras = {"rich", "shtab", "starlette", "uvicorn", "anyio", "google.protobuf", "opentelemetry.proto", "sqlite3"}
print(sorted(extras & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
