"""``quantmon run`` around programs that nobody here wrote: a server, and a package that carries its model."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from lifecycle.programs import SECONDS, environment
from source_texts import source_texts

from cli.running import QUANTMON, counted, needed, program, quantmon

pytestmark = needed


GUNICORN = """
session = load()
def app(request, start):
    call(session, 11)
    start("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.skipif(find_spec("gunicorn") is None, reason="without gunicorn")
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["loaded by each", "preloaded"])
def test_a_service_of_four_workers(folder: Path, preload: list[str]) -> None:
    """200 requests of 11 calls, answered by several processes: 2,200 calls."""
    program(folder, GUNICORN, "service.py")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-w",
        "4",
        "-b",
        f"127.0.0.1:{port}",
        *preload,
        "service:app",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*QUANTMON, "run", "--db", "run.db", "--", *command],
            cwd=folder,
            env=environment(),
            stderr=log,
            stdout=log,
        )
    answered: dict[bytes, int] = {}
    try:
        end = time.monotonic() + SECONDS
        while sum(answered.values()) < 200:
            assert time.monotonic() < end, (folder / "log").read_text()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
            try:
                connection.request("GET", "/")
                pid = connection.getresponse().read()
                answered[pid] = answered.get(pid, 0) + 1
            except ConnectionRefusedError:
                # There is no event of another program's port.
                time.sleep(0.1)
            finally:
                connection.close()
        process.terminate()
        assert process.wait(SECONDS) == 0
    finally:
        if process.poll() is None:
            process.kill()
    assert counted(folder / "run.db") == {"doubling": 2200}
    assert len(answered) > 1
    assert "Traceback" not in (folder / "log").read_text()


_COUNTS = """
import sys
import onnxruntime
calls, run = [], onnxruntime.InferenceSession.run
def counted(*args, **kwargs):
    calls.append(1)
    return run(*args, **kwargs)
onnxruntime.InferenceSession.run = counted
sys.argv = ["magika", *sys.argv[1:]]
from magika.cli.magika_client import main
try:
    main()
finally:
    print(len(calls), file=sys.stderr)
"""


@pytest.mark.skipif(find_spec("magika") is None, reason="without magika")
def test_a_package_that_carries_its_model(folder: Path) -> None:
    """Magika's own command, by ``python -m``: what it says is the same, and its calls are those that it makes."""
    pytest.importorskip("click")
    files = [folder / f"{number}.txt" for number in range(70)]
    for file, text in zip(files, source_texts(70, 4096), strict=True):
        file.write_bytes(text)
    (folder / "counts.py").write_text(_COUNTS)
    names = [file.name for file in files]
    plain = subprocess.run(
        [sys.executable, "counts.py", "--label", *names],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    module = [sys.executable, "-m", "magika.cli.magika_client", "--label", *names]
    done = quantmon(folder, "run", "--db", "run.db", "--", *module)
    assert (done.stdout, done.returncode) == (plain.stdout, 0)
    calls = int(plain.stderr.splitlines()[-1])
    assert calls > 1
    assert sum(counted(folder / "run.db").values()) == calls
