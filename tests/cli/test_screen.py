"""The view on a real terminal: the application's lines stay whole above it, and the terminal is given back."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from importlib.util import find_spec
from pathlib import Path

import pytest
from lifecycle.programs import SECONDS, environment
from runtimes.models import doubling

from otel_quantmon.cli.screen import Screen

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("starlette", "rich", "onnxruntime", "opentelemetry.distro")),
    reason="without the extras `cli` and `page`, or otlp",
)

# Calls until a line is typed.
_APP = """
import select, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
while not select.select([sys.stdin], [], [], 0.01)[0]:
    session.run(None, {"x": np.ones((2, 3), np.float32)})
print("a line of the application", sys.stdout.isatty())
"""


def on_terminal(
    folder: Path, rows: int, *arguments: str, awaited: bytes | None = None, **variables: str
) -> tuple[int, str]:
    """Run quantmon on a terminal of its own, where a line is typed once ``awaited`` is to be seen.

    Returns:
        Its status and all that was written there.
    """
    main, other = os.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "otel_quantmon.cli", "run", *arguments],
        cwd=folder,
        env=environment({"TERM": "xterm-256color", **variables}),
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
    )
    os.close(other)
    written = b""
    try:
        while piece := os.read(main, 65536):
            written += piece
            if awaited is not None and awaited in written:
                os.write(main, b"\n")
                awaited = None
    except OSError:
        # Linux has this for the end of what is written to a terminal that nobody has open any more.
        pass
    os.close(main)
    return process.wait(SECONDS), written.decode()


def test_the_view_is_below_the_application(tmp_path: Path) -> None:
    """A region is kept free, models are drawn into it, the region is given back, and the summary ends it all."""
    (tmp_path / "net.onnx").write_bytes(doubling())
    (tmp_path / "app.py").write_text(_APP)
    status, written = on_terminal(tmp_path, 30, "--", sys.executable, "app.py", awaited=b"doubling")
    assert status == 0
    assert "a line of the application True\r\n" in written
    assert re.search(r"\x1b\[1;\d+r", written), "the scrolling region is narrowed"
    view, _, rest = written.partition("\x1b[r")
    assert "doubling" in view
    assert "elapsed" in rest
    assert "doubling (onnxruntime" in rest
    # Cursor: what is saved is restored, so that the application writes on where it was.
    assert written.count("\x1b7") == written.count("\x1b8")


def sizes(main: int, rows: int) -> None:
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 60, 0, 0))


def test_a_terminal_of_another_size_gets_a_view_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old view is wiped, the new one and its region are within the screen, and a screen too small has none."""
    main, other = os.openpty()
    with open(other, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        screen = Screen()

        def drawn(rows: int, lines: int) -> str:
            sizes(main, rows)
            screen.draw("\n".join("line" for _ in range(lines)))
            return os.read(main, 65536).decode()

        wiped = "\x1b7\x1b[r\x1b8\x1b[J"
        assert not drawn(50, 20).startswith(wiped)
        assert "\x1b[1;29r" not in drawn(50, 5), "a view of the same size keeps its rows"
        for rows, lines, region in ((16, 9, 7), (40, 3, 36), (15, 20, 7)):
            written = drawn(rows, lines)
            assert written.startswith(wiped)
            assert re.findall(r"\x1b\[1;(-?\d+)r", written) == [str(region)]
            assert all(region < int(row) <= rows for row in re.findall(r"\x1b\[(\d+);1H", written))
        assert drawn(5, 3) == wiped
        assert "\x1b[1;26r" in drawn(30, 3)
    os.close(main)


@pytest.mark.parametrize(("rows", "variables"), [(10, {}), (30, {"TERM": "dumb"})])
def test_no_view_where_there_is_no_place(tmp_path: Path, rows: int, variables: dict[str, str]) -> None:
    """On a small or a dumb terminal nothing but the application writes."""
    status, written = on_terminal(tmp_path, rows, "--", "echo", "said", **variables)
    assert (status, written) == (0, "said\r\n")


def test_no_colours_where_they_are_not_wanted(tmp_path: Path) -> None:
    """NO_COLOR: no colour in the summary."""
    _, written = on_terminal(tmp_path, 30, "--no-view", "--summary", "--", "true", NO_COLOR="1")
    assert "No model was seen" in written
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", written)
