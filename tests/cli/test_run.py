"""``quantmon run`` around real programs: every call is counted once, and the program is as it is without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lifecycle.programs import SECONDS, environment

from cli.running import counted, facts, needed, program, quantmon

pytestmark = needed


ENDINGS = {
    "well": "call(load(), 1234)\nprint(sys.stdin.read().upper())\nsys.exit(7)",
    "with an exception": "call(load(), 1234)\nraise ValueError('no')",
    "with failed calls": """
session = load()
call(session, 1200)
for _ in range(34):
    try:
        session.run(None, {})
    except ValueError as error:
        print(type(error), file=sys.stderr)
""",
    # What has not been sent is lost, so the program sends it, where there is a provider.
    "by a signal": """
from opentelemetry import metrics
call(load(), 1234)
getattr(metrics.get_meter_provider(), "force_flush", lambda: None)()
os.kill(os.getpid(), 9)
""",
    # A child that was forked after onnxruntime had been imported hangs at its end, with and without quantmon.
    # From 3.12 on Python warns of a fork where there are threads, as those of the exporters are.
    "in a child": """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
for _ in range(3):
    if os.fork() == 0:
        call(load(), 78)
        sys.exit()
for _ in range(3):
    os.wait()
call(load(), 1000)
""",
    "in a pool": """
import multiprocessing
def work(times):
    call(load(), times)
    return times
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(sum(pool.map(work, [100, 200, 300, 634], 1)))
""",
    "in programs that it starts": """
import subprocess
call(load(), 34)
if len(sys.argv) == 1:
    for _ in range(2):
        subprocess.run([sys.executable, __file__, "again"], check=True)
    call(load(), 1234 - 3 * 34)
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_is_counted_and_left_as_it_is(folder: Path, ending: str) -> None:
    """1,234 calls, whatever comes of the program; status, both outputs and input are those of a run without."""
    command = program(folder, ENDINGS[ending])
    plain = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        input="input",
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    # A busy machine takes longer than the default for what the children of a pool have to deliver at their end.
    # And what is anomalous is a warning of a logger, which a program without logging has on its standard error.
    patience = {"QUANTMON_EXIT_TIMEOUT": "60s", "QUANTMON_JUDGEMENT_INTERVAL": "1h"}
    done = quantmon(folder, "run", "--db", "run.db", "--", *command, variables=patience, given="input")
    assert (done.stdout, done.stderr) == (plain.stdout, plain.stderr)
    assert done.returncode == (plain.returncode if plain.returncode >= 0 else 128 - plain.returncode)
    assert counted(folder / "run.db") == {"doubling": 1234}
    told = facts(folder / "run.db")
    assert told["command"] == command
    assert told["exit_status"] == done.returncode
    assert not any(told[f"rejected_{items}"] for items in ("spans", "points"))


def test_a_module_is_a_command(folder: Path) -> None:
    """`python -m`, with arguments that look like options of quantmon."""
    program(folder, "call(load(), int(sys.argv[2]))\nprint(sys.argv[1:])", "mod.py")
    done = quantmon(folder, "run", "--db", "run.db", "--", sys.executable, "-m", "mod", "--json", "12")
    assert done.stdout == "['--json', '12']\n"
    assert counted(folder / "run.db") == {"doubling": 12}


def test_a_program_without_a_model_is_left_as_it_is(folder: Path) -> None:
    """Any command: one that is no Python says and returns what it does."""
    done = quantmon(folder, "run", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)
    long = "a" * 90 + ".db"
    done = quantmon(folder, "run", "--summary", "--db", long, "--", "true")
    assert "No model was seen" in done.stderr
    assert f" kept in {long}: quantmon show {long}" in done.stderr.splitlines(), "to be copied"


def test_commands_that_cannot_be_run(folder: Path) -> None:
    """As a shell has it: 127 and 126, one line, and no file is left."""
    done = quantmon(folder, "run", "--db", "run.db", "--", "no-such-command")
    assert (done.returncode, done.stderr) == (127, "quantmon: error: no-such-command: no such command\n")
    done = quantmon(folder, "run", "--db", "run.db", "--", "./net.onnx")
    assert (done.returncode, done.stderr) == (
        126,
        "quantmon: error: ./net.onnx: cannot be executed: Permission denied\n",
    )
    assert not (folder / "run.db").exists()
    done = quantmon(folder, "run")
    assert done.returncode == 2
    assert "give a command" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no device that is always full")
def test_a_file_that_cannot_be_written_changes_no_status(folder: Path) -> None:
    """The application has ended: its status is passed on, and a warning names the file. A folder is refused before."""
    done = quantmon(folder, "run", "--json", "/dev/full", "--", "sh", "-c", "exit 3")
    assert (done.returncode, done.stderr) == (
        3,
        "quantmon: warning: /dev/full cannot be written: No space left on device\n",
    )
    done = quantmon(folder, "run", "--json", ".", "--", "touch", "started")
    assert (done.returncode, done.stderr) == (2, "quantmon: error: .: it is a folder\n")
    assert not (folder / "started").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="no process can take another one's disk here")
@pytest.mark.parametrize(
    ("room", "said"),
    [
        # Without any SQLite cannot read either, since it makes a file for that; 40 kB are enough.
        (1, "warning: run.db cannot be opened: disk I/O error"),
        (40_000, "No model is in the file. The run has not ended, or it could not be recorded to its end."),
    ],
)
def test_a_full_disk_is_not_the_programs_fault(folder: Path, room: int, said: str) -> None:
    """The program's status is passed on, and the summary does not ask whether it is instrumented. No JSON is left.

    The program takes the disk from quantmon: no file of that may become larger than ``room``, in bytes.
    """
    text = f"""
import resource
resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, ({room}, {room}))
call(load(), 5)
sys.exit(3)
"""
    done = quantmon(
        folder, "run", "--summary", "--db", "run.db", "--json", "run.jsonl", "--", *program(folder, text)
    )
    assert done.returncode == 3
    assert "run.db cannot be written any more" in done.stderr
    assert "No model was seen" not in done.stderr
    assert said in done.stderr
    assert (folder / "run.jsonl").exists() == (room > 1), "a whole one, or none"


def test_settings_and_json(folder: Path) -> None:
    """Options become settings of the application; every line of the JSON is an object of a known type."""
    (folder / "settings.toml").write_text("[models.doubling]\nname = 'renamed'\n")
    command = program(folder, "call(load(), 50)\nprint(os.environ['QUANTMON_TIMEOUT'])")
    done = quantmon(
        folder,
        *("run", "--timeout", "10s", "--config", "settings.toml", "--json", "run.jsonl", "--"),
        *command,
        variables={"QUANTMON_SPANS": "all"},
    )
    assert done.stdout == "10s\n"
    lines = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    assert {line["type"] for line in lines} == {"run", "model", "process", "series", "span"}
    (model,) = (line for line in lines if line["type"] == "model")
    assert (model["model"], model["calls"]) == ("renamed", 50)
    assert lines[0]["accepted_spans"] == sum(line["type"] == "span" for line in lines) > 0
