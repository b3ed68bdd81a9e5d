"""``quantmon run`` around Celery, and with a receiver at its other end that nobody here wrote."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.running import QUANTMON, counted, facts, needed, program, quantmon
from lifecycle.programs import SECONDS, environment
from runtimes.models import doubling

from .serving import QUEUE, WORKER, ask_worker, started

pytestmark = needed

TASKS = """
import numpy as np

def infer_once():
    import onnxruntime
    global session
    if "session" not in globals():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession("net.onnx", options, providers=["CPUExecutionProvider"])
    return str(session.run(None, {"x": np.ones((2, 3), np.float32)})[0].tolist())

@app.task
def infer():
    return infer_once()
"""


def test_a_celery_worker(tmp_path: Path) -> None:
    """60 tasks in two children are 60 calls, while it lasts; SIGTERM ends all of its processes."""
    pytest.importorskip("celery")
    (tmp_path / "net.onnx").write_bytes(doubling())
    (tmp_path / "tasks.py").write_text(QUEUE + TASKS)
    command = [*QUANTMON, "run", "--db", "run.db", "--", sys.executable, "-m", *WORKER]
    variables = environment({"PYTHONWARNINGS": "ignore::DeprecationWarning"})
    with started(command, tmp_path, variables) as worker:
        assert len(ask_worker(worker, "infer.delay()", tmp_path, environment())) == 60
        end = time.monotonic() + SECONDS
        while counted(tmp_path / "run.db") != {"doubling": 60}:
            assert time.monotonic() < end, (counted(tmp_path / "run.db"), worker.said)
            # Another process's file has no event.
            time.sleep(0.2)
        worker.stop()
        worker.assert_no_process_is_left()
    assert counted(tmp_path / "run.db") == {"doubling": 60}


def test_a_receiver_that_others_wrote_gets_the_same(tmp_path: Path) -> None:
    """At the application's own endpoint oteltap gets every span that is in the file, and every call."""
    pytest.importorskip("oteltap")
    (tmp_path / "net.onnx").write_bytes(doubling())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    heard = tmp_path / "heard"
    with heard.open("wb") as output:
        tap = subprocess.Popen([sys.executable, "-u", "-m", "oteltap", "--port", str(port)], stdout=output)
    try:
        end = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert time.monotonic() < end
            # There is no event of another program's port.
            time.sleep(0.1)
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
            "QUANTMON_SPANS": "all",
        }
        done = quantmon(
            tmp_path,
            *("run", "--db", "run.db", "--", *program(tmp_path, "call(load(), 777)")),
            variables=variables,
        )
        assert (done.returncode, done.stderr) == (0, "")
        spans = read_spans(tmp_path / "run.db")
        while True:
            lines = [json.loads(line) for line in heard.read_text().splitlines() if line[:1] == "{"]
            told = sorted(line["spanId"] for line in lines if "spanId" in line)
            if len(told) == len(spans):
                break
            assert time.monotonic() < end, (len(told), len(spans))
            # Nor of what another program has written.
            time.sleep(0.1)
    finally:
        tap.kill()
        tap.wait()
    assert told == spans
    assert len(spans) == facts(tmp_path / "run.db")["accepted_spans"] > 0
    durations = [
        line["histogram"]["dataPoints"] for line in lines if line["name"] == "quantmon.inference.duration"
    ]
    assert sum(int(point["count"]) for points in durations for point in points) == 777
    assert counted(tmp_path / "run.db") == {"doubling": 777}


def read_spans(path: Path) -> list[str]:
    """Ids of all spans in the file, in hexadecimal."""
    from otel_quantmon.desk.schema import open_reader

    database = open_reader(path)
    try:
        return sorted(row[0].hex() for row in database.execute("SELECT span_id FROM span"))
    finally:
        database.close()
