"""The exit status of ``quantmon run`` is the application's, whatever becomes of what quantmon writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from lifecycle.programs import SECONDS, environment

from cli.running import QUANTMON, facts, needed, quantmon

pytestmark = needed
with_page = pytest.mark.skipif(find_spec("plotly") is None, reason="without plotly")
LATIN = os.fsdecode(b"caf\xe9")


@with_page
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "options",
    [
        ("--page",),
        ("--summary",),
        ("--summary", "--db", "kept.db", "--report", "run.html", "--json", "no/run.jsonl"),
    ],
)
def test_a_standard_error_that_nobody_reads_harms_nothing(
    folder: Path, options: tuple[str, ...], unbuffered: str
) -> None:
    """Address, summary, warnings and notes cannot be written: the application goes on, and has its status."""
    (folder / "no").mkdir()
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        # The folder of the JSON is there at the start and not at the end.
        [
            *QUANTMON,
            "run",
            "--no-view",
            *options,
            "--",
            "sh",
            "-c",
            "read line; rmdir no; echo $line; exit 3",
        ],
        cwd=folder,
        env=environment({"PYTHONUNBUFFERED": unbuffered, "FORCE_COLOR": "1"}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
    )
    os.close(writer)
    assert process.communicate("done\n", timeout=SECONDS) == ("done\n", None)
    assert process.returncode == 3
    assert (folder / "run.html").exists() == ("--report" in options)


@with_page
def test_an_argument_that_is_no_utf_8(folder: Path) -> None:
    """The command gets it as it is; JSON, report, page and file of the run have a sign in its place."""
    command = ["sh", "-c", 'printf %s "$1"; exit 3', "sh", LATIN]
    done = subprocess.run(
        [*QUANTMON, "run", "--db", "run.db", "--json", "run.jsonl", "--report", "run.html", "--", *command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        check=False,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (3, b"caf\xe9")
    assert done.stderr == b"quantmon: the report is in run.html\n"
    shown = [*command[:-1], "caf�"]
    assert facts(folder / "run.db")["command"] == shown
    (line,) = (folder / "run.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["command"] == shown
    found = re.search(r'id="data">(.*?)</script>', (folder / "run.html").read_text("utf-8"), re.DOTALL)
    assert found is not None
    assert json.loads(found[1])["run"]["run"]["command"] == shown


@with_page
@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no device that is always full")
def test_each_file_is_written_for_itself(folder: Path) -> None:
    """A report that cannot be written is told, and what else was asked for is there."""
    done = quantmon(
        *(folder, "run", "--json", "run.jsonl", "--report", "/dev/full", "--summary"),
        *("--", "sh", "-c", "exit 3"),
    )
    assert done.returncode == 3
    assert "quantmon: warning: /dev/full cannot be written: No space left on device\n" in done.stderr
    assert "exit status 3" in done.stderr
    assert json.loads((folder / "run.jsonl").read_text())["exit_status"] == 3


@with_page
def test_a_signal_while_the_files_are_written_changes_no_status(folder: Path) -> None:
    """A second Ctrl-C comes after the application's end, here between two pipes that quantmon writes to."""
    for name in ("first", "second"):
        os.mkfifo(folder / name)
    process = subprocess.Popen(
        [*QUANTMON, "run", "--no-view", "--json", "first", "--report", "second", "--", "sh", "-c", "exit 7"],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    # It can be read once the application has ended, and the second not before it is.
    assert json.loads((folder / "first").read_text())["exit_status"] == 7
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert "</html>" in (folder / "second").read_text("utf-8")
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (7, "quantmon: the report is in second\n")


@with_page
def test_the_page_stays_on_a_terminal_until_ctrl_c(folder: Path) -> None:
    """Signals are taken again while it stays, also where one came before it did; the status is the application's."""
    os.mkfifo(folder / "run.jsonl")
    main, other = os.openpty()
    process = subprocess.Popen(
        [*QUANTMON, "run", "--no-view", "--page", "--json", "run.jsonl", "--", "sh", "-c", "exit 3"],
        cwd=folder,
        env=environment(),
        stdin=other,
        stderr=other,
    )
    os.close(other)
    with (folder / "run.jsonl").open() as lines:
        process.send_signal(signal.SIGINT)
        assert json.loads(lines.read())["exit_status"] == 3
    written = b""
    while b"until you press Ctrl-C" not in written:
        written += os.read(main, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 3
    os.close(main)


def test_a_working_directory_that_has_been_deleted(folder: Path) -> None:
    """As without quantmon: the command is there and is run; a file that has no place is told as such."""
    gone = folder / "gone"
    start = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    for options, expected in (
        ((), (3, "out\n", "")),
        (("--db", "run.db"), (2, "", "quantmon: error: run.db cannot be written: ")),
    ):
        done = subprocess.run(
            ["sh", "-c", start, "sh", *QUANTMON, "run", *options, "--", "sh", "-c", "echo out; exit 3"],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        # The shell itself may have a word about it.
        said = "".join(line for line in done.stderr.splitlines(True) if line.startswith("quantmon"))
        status, output, error = expected
        assert (done.returncode, done.stdout) == (status, output), done.stderr
        assert said.startswith(error)
        assert "Traceback" not in done.stderr
    assert not gone.exists()


def test_the_command_to_show_a_run_can_be_copied(folder: Path) -> None:
    """A path with a space is quoted as a shell wants it."""
    done = quantmon(folder, "run", "--summary", "--db", "my run.db", "--", "true")
    (line,) = (line for line in done.stderr.splitlines() if "quantmon show" in line)
    assert line == " kept in my run.db: quantmon show 'my run.db'"
