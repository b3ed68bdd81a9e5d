"""What all commands have in common: help with examples that hold, exit statuses that are documented, completion."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from lifecycle.programs import environment

from otel_quantmon.cli.command import STATUSES, make_parser
from otel_quantmon.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_a_command_are_accepted_by_it(name: str) -> None:
    """Each command has examples, each of which its parser takes, up to a pipe or a redirection."""
    command = COMMANDS[name]
    assert command.examples
    for example in command.examples:
        words = shlex.split(re.split(r" [|>] ", example)[0])
        assert words[: 1 + len(name.split())] == ["quantmon", *name.split()]
        assert make_parser().parse_args(words[1:]).command is command


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_what_it_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every example and status is in ``--help``, and every status is one of the documented ones."""
    command = COMMANDS[name]
    with pytest.raises(SystemExit, match="0"):
        make_parser().parse_args([*name.split(), "--help"])
    shown = capsys.readouterr().out
    for example in command.examples:
        assert f"\n  {example}\n" in shown
    for status, _ in command.statuses:
        assert re.search(rf"^  {status} ", shown, re.MULTILINE)
        assert status in STATUSES or (name, status) == ("run", "n")


def test_the_documentation_has_all_commands_and_statuses() -> None:
    """docs/cli.md has a row for each command, and the table of statuses word for word."""
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    assert {int(row[0]): row[1] for row in rows if row[0].isdecimal()} == STATUSES
    named = {match[1] for row in rows if (match := re.match(r"`quantmon ([a-z]+(?: [a-z]+)?)", row[0]))}
    assert named == set(COMMANDS)


def test_the_documentation_says_what_each_command_needs() -> None:
    """The table of needs in docs/cli.md has every command once, and names extras that there are."""
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    table = text.split("| command | needs |")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")] for line in table]
    assert sorted(name for names, _ in rows for name in names) == sorted(
        {name.split()[0] for name in COMMANDS}
    )
    extras = set(re.findall(r"^([a-z]+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE))
    assert {name for _, names in rows for name in names if " " not in name} <= extras


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("completion", "bash"), ("run", "--help")])
def test_a_reader_that_goes_ends_the_command_quietly(arguments: tuple[str, ...], unbuffered: str) -> None:
    """As in a pipe to ``head``: status 141, and nothing on the standard error."""
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    assert reader.stdin is not None
    command = [sys.executable, "-m", "otel_quantmon.cli", *arguments]
    pytest.importorskip("shtab")
    done = subprocess.run(
        command,
        stdout=reader.stdin,
        stderr=subprocess.PIPE,
        env=environment({"PYTHONUNBUFFERED": unbuffered}),
        check=False,
    )
    assert (done.returncode, done.stderr) == (141, b"")


def completion(shell: str, folder: Path) -> Path:
    """The script for a shell, as a file."""
    command = [sys.executable, "-m", "otel_quantmon.cli", "completion", shell]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    path = folder / f"quantmon.{shell}"
    path.write_text(done.stdout)
    return path


_COMPLETE = """
source "$1"
shift
name=$(complete -p quantmon)
name=${name##*-F }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
${name%% *}
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(
    find_spec("shtab") is None or shutil.which("bash") is None, reason="without the extra `cli`, or bash"
)
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["quantmon", "c"], {"compare", "certify", "completion"}),
        (["quantmon", "baseline", ""], {"record", "check"}),
        (["quantmon", "run", "--re"], {"--reference", "--report"}),
        (["quantmon", "completion", "f"], {"fish"}),
        (["quantmon", "show", "ru"], {"run.db"}),
    ],
)
def test_bash_completes(tmp_path: Path, typed: list[str], offered: set[str]) -> None:
    """In a real bash: commands, those of a group, options, choices, and files where a file is wanted."""
    (tmp_path / "run.db").touch()
    script = completion("bash", tmp_path)
    done = subprocess.run(
        ["bash", "-c", _COMPLETE, "bash", script, *typed],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (set(done.stdout.split()), done.stderr) == (offered, "")


@pytest.mark.skipif(find_spec("shtab") is None, reason="without the extra `cli`")
@pytest.mark.parametrize(("shell", "check"), [("zsh", "-n"), ("fish", "--no-execute")])
def test_other_shells_have_every_command(tmp_path: Path, shell: str, check: str) -> None:
    """The script names each command and option, and the shell finds no mistake in it, where there is that shell."""
    script = completion(shell, tmp_path)
    text = script.read_text()
    for word in (*(word for name in COMMANDS for word in name.split()), "worse-by", "report"):
        assert word in text
    if shutil.which(shell):
        subprocess.run([shell, check, str(script)], check=True)
