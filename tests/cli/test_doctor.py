"""``quantmon doctor`` around real programs: it says whether models are instrumented, and what is in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from lifecycle.programs import environment
from lifecycle.sink import Sink

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnxruntime", "opentelemetry.distro")), reason="without otlp"
)

INSTRUMENT = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable]


def doctor(
    folder: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "otel_quantmon.cli", "doctor", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(variables),
        capture_output=True,
        text=True,
        check=False,
    )


def examined(
    folder: Path, program: str, *start: str, variables: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[str], int]:
    """The one process of a program, what is in the way, and the exit status; its endpoint answers."""
    (folder / "app.py").write_text(program)
    with Sink() as sink:
        done = doctor(
            folder, "--json", "--", *start, "app.py", variables={**sink.variables(), **(variables or {})}
        )
    told = json.loads(done.stdout)
    (process,) = told["command"]["processes"]
    return process, told["problems"], done.returncode


def test_a_program_that_is_instrumented(tmp_path: Path) -> None:
    """Nothing is in the way: status 0, and the providers are the SDK's."""
    process, problems, status = examined(tmp_path, "import onnxruntime", *INSTRUMENT)
    assert (problems, status) == ([], 0)
    assert process["runtimes"] == ["onnxruntime"]
    assert process["instrumented"] is True
    for signal in ("traces", "metrics"):
        assert process["providers"][signal].startswith("opentelemetry.sdk.")


def test_a_program_that_was_started_without_the_command(tmp_path: Path) -> None:
    """It is said how to start it."""
    process, (problem,), status = examined(tmp_path, "import onnxruntime", sys.executable)
    assert status == 1
    assert process["instrumented"] is False
    assert "start it by opentelemetry-instrument" in problem


def test_a_program_that_sets_no_provider(tmp_path: Path) -> None:
    """Instrumented in code, and nowhere to report to."""
    program = """
from otel_quantmon import ONNXRuntimeInstrumentor
ONNXRuntimeInstrumentor().instrument()
import onnxruntime
"""
    _, (problem,), status = examined(tmp_path, program, sys.executable)
    assert status == 1
    assert "no provider was ever set" in problem


def test_a_program_without_a_runtime_and_one_that_leaves_no_word(tmp_path: Path) -> None:
    """That no runtime was imported is the answer; of `os._exit` it is said that nothing is known."""
    _, (problem,), _ = examined(tmp_path, "pass", *INSTRUMENT)
    assert "no process of the command imported" in problem
    process, problems, _ = examined(tmp_path, "import os; os._exit(0)", sys.executable)
    assert process["ended"] is False
    assert "without Python's exit handlers" in problems[-1]


def test_the_command_is_left_as_it_is(tmp_path: Path) -> None:
    """Its own ``sitecustomize`` is run, its output is its own, and its status is told."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import builtins\nbuiltins.was_run = 1")
    (tmp_path / "app.py").write_text("print(was_run)\nraise SystemExit(5)")
    paths = [str(tmp_path / "site"), environment()["PYTHONPATH"]]
    done = doctor(tmp_path, "--", sys.executable, "app.py", variables={"PYTHONPATH": ":".join(paths)})
    assert done.stdout.startswith("1\n")
    assert "ended with status 5" in done.stdout
    done = doctor(tmp_path, "--", "no-such-command")
    assert (done.returncode, done.stderr) == (
        2,
        "quantmon: error: no-such-command: No such file or directory\n",
    )


def test_json_has_the_standard_output_for_itself(tmp_path: Path) -> None:
    """What the command writes there is to be seen, and goes to the standard error."""
    (tmp_path / "app.py").write_text("print('said')")
    done = doctor(tmp_path, "--json", "--", sys.executable, "app.py")
    assert json.loads(done.stdout)["command"]["status"] == 0
    assert done.stderr == "said\n"


def test_settings_and_where_they_come_from(tmp_path: Path) -> None:
    """The file, a variable over it, and a flag over that; what is not accepted is a problem."""
    (tmp_path / "q.toml").write_text(
        "warmup = 3\ntimeout = '1s'\nspans = 'all'\n[models.a]\nspans = 'none'\n"
    )
    variables = {
        "QUANTMON_CONFIG": "q.toml",
        "QUANTMON_TIMEOUT": "2s",
        "OTEL_PYTHON_QUANTMON_SPANS": "parent",
        "QUANTMON_WINDOW_SIZE": "few",
    }
    done = doctor(tmp_path, "--json", variables=variables)
    told = json.loads(done.stdout)
    assert done.returncode == 1
    found = {one["name"]: (one["value"], one["source"]) for one in told["settings"]}
    assert found["warmup"] == (3, str(tmp_path / "q.toml"))
    assert found["timeout"] == (2.0, "QUANTMON_TIMEOUT")
    assert found["spans"] == ("parent", "OTEL_PYTHON_QUANTMON_SPANS")
    assert found['models."a"'] == ({"spans": "none"}, str(tmp_path / "q.toml"))
    assert any("QUANTMON_WINDOW_SIZE" in problem for problem in told["problems"])


def test_what_switches_it_off(tmp_path: Path) -> None:
    """Each of the three ways is named."""
    variables = {
        "OTEL_SDK_DISABLED": "true",
        "QUANTMON_ENABLED": "false",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask, onnxruntime",
    }
    problems = json.loads(doctor(tmp_path, "--json", variables=variables).stdout)["problems"]
    for word in ("OTEL_SDK_DISABLED=true", "QUANTMON_ENABLED", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"):
        assert any(word in problem for problem in problems)


def test_an_endpoint_that_does_not_answer(tmp_path: Path) -> None:
    """It is named, with the signals that go there; a console needs none."""
    sink = Sink()
    variables = {**sink.variables(), "OTEL_LOGS_EXPORTER": "console"}
    sink.stop()
    told = json.loads(doctor(tmp_path, "--json", variables=variables).stdout)
    (problem,) = [problem for problem in told["problems"] if "does not answer" in problem]
    assert problem.startswith("traces, metrics: 127.0.0.1:")


@pytest.mark.parametrize("address", ["http://localhost:43l7", "http://[::1:4317", f"http://{'a' * 70}:4317"])
def test_an_endpoint_that_is_none(tmp_path: Path, address: str) -> None:
    """A slip in the address is a problem that is named with the others, and ends nothing."""
    done = doctor(tmp_path, "--json", variables={"OTEL_EXPORTER_OTLP_ENDPOINT": address})
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    (problem,) = [
        one for one in json.loads(done.stdout)["problems"] if one.startswith("traces, metrics, logs: ")
    ]
    assert " is no " in problem
