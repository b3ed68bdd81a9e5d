"""Signals and ends under ``quantmon run``: who is told what, and what outlives whom."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from lifecycle.programs import SECONDS, environment

from cli.running import QUANTMON, WAITS, Running, counted, facts, needed, program, quantmon

pytestmark = needed


def test_signals_go_to_the_program(folder: Path) -> None:
    """Those that it handles reach it, each once; SIGINT ends it as Ctrl-C does, with all that it has counted."""
    running = Running(folder, WAITS)
    running.line()
    running.process.send_signal(signal.SIGHUP)
    assert running.line() == "SIGHUP"
    running.process.send_signal(signal.SIGUSR1)
    assert running.line() == "SIGUSR1"
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 128 + signal.SIGINT
    assert running.rest == ""
    assert counted(running.path) == {"doubling": 321}
    assert facts(running.path)["exit_status"] == 130


# Python writes the number of a signal there each time that one comes.
TAKES = """
import signal, socket
call(load(), 321)
taken, written = socket.socketpair()
written.setblocking(False)
signal.set_wakeup_fd(written.fileno())
for number in (signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda *_: None)
print("ready", flush=True)
number = 0
while number != signal.SIGUSR1:
    (number,) = taken.recv(1)
    print(signal.Signals(number).name, flush=True)
"""


def test_a_terminal_interrupts_both_once(folder: Path) -> None:
    """Ctrl-C on a terminal goes to both; the program gets it once, and quantmon outlives it to count."""
    command = program(folder, TAKES)
    main, other = os.openpty()
    process = subprocess.Popen(
        [*QUANTMON, "run", "--no-view", "--db", "run.db", "--", *command],
        cwd=folder,
        env=environment(),
        stdin=other,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no other thread is there
    )
    assert process.stdout is not None
    process.stdout.readline()
    os.write(main, b"\x03")
    assert process.stdout.readline() == "SIGINT\n"
    # It is passed on after whatever else has been.
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.read() == "SIGUSR1\n"
    assert process.wait(SECONDS) == 0
    process.stdout.close()
    os.close(main)
    os.close(other)
    assert counted(folder / "run.db") == {"doubling": 321}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_kill_of_quantmon_leaves_no_orphan_and_a_whole_file(folder: Path) -> None:
    """SIGKILL: the program is asked to end, and what was accepted can be read."""
    running = Running(folder, WAITS)
    ended = os.pidfd_open(int(running.line()))
    end = time.monotonic() + SECONDS
    while counted(running.path) != {"doubling": 321}:
        assert time.monotonic() < end
        # Another program's file has no event.
        time.sleep(0.1)
    running.process.kill()
    running.end()
    assert select.select([ended], [], [], SECONDS)[0]
    os.close(ended)
    assert counted(running.path) == {"doubling": 321}
    done = quantmon(folder, "show", "run.db", "--json")
    assert done.returncode == 0
