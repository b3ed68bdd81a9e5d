"""Under `opentelemetry-instrument`, with the SDK's own exporter: what was run is what arrives."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lifecycle.programs import SECONDS, ZERO_CODE, run_zero_code, zero_code
from lifecycle.sink import Sink

# The guard is the one of production: a failure of ours is to change nothing, and would show in the counts.
_VARIABLES = {"QUANTMON_TEST_GUARD": "swallow", "QUANTMON_SPANS": "all"}

_APPLICATION = """
import sys
from lifecycle.models import runner

def main():
    call = runner(sys.argv[1])
    for _ in range(1000):
        call()

if __name__ == "__main__":
    main()
    print("done", flush=True)
    if sys.argv[2] == "sys.exit":
        sys.exit(3)
    elif sys.argv[2] == "exception":
        raise ValueError("the application's own")
    elif sys.argv[2] == "sigterm":
        import os, signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        os.kill(os.getpid(), signal.SIGTERM)
    elif sys.argv[2] == "thread":
        import threading
        threading.Thread(target=main).start()  # still running when the main thread ends
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    file = tmp_path / "application.py"
    file.write_text(_APPLICATION)
    return file


@pytest.mark.parametrize(
    ("kind", "way", "code", "calls"),
    [
        ("onnxruntime", "end", 0, 1000),
        ("litert", "end", 0, 1000),
        ("onnxruntime", "sys.exit", 3, 1000),
        ("onnxruntime", "exception", 1, 1000),
        ("onnxruntime", "sigterm", 0, 1000),
        ("onnxruntime", "thread", 0, 2000),
    ],
)
def test_nothing_is_lost_at_exit(
    kind: str, way: str, code: int, calls: int, sink: Sink, application: Path
) -> None:
    """However an interpreter ends that runs its exit handlers, each inference has been exported once, as a number
    and as a span, and the exit code is the application's.
    """
    done = run_zero_code(application, kind, way, variables=sink.variables(**_VARIABLES), check=False)
    assert (done.returncode, done.stdout) == (code, "done\n"), done.stderr
    assert sink.calls() == sink.spans == calls
    assert "steps aside" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "calls", "spans"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, 0, 0),
        ({"QUANTMON_ENABLED": "false"}, 0, 0),
        ({"OTEL_TRACES_EXPORTER": "none"}, 1000, 0),
        ({"OTEL_METRICS_EXPORTER": "none"}, 0, 1000),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "onnxruntime,tflite"}, 0, 0),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, 1000, 0),
        ({"QUANTMON_SPANS": "none"}, 1000, 0),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_what_is_switched_off(
    variables: dict[str, str], calls: int, spans: int, sink: Sink, application: Path
) -> None:
    """Each switch takes away what it names and nothing else: metrics without traces, traces without metrics."""
    run_zero_code(application, "onnxruntime", "end", variables=sink.variables(**_VARIABLES | variables))
    assert (sink.calls(), sink.spans) == (calls, spans)


_PATIENT = {
    "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
}


@pytest.mark.parametrize("kind", ["onnxruntime", "litert"])
def test_no_collector_at_all(kind: str, application: Path) -> None:
    """With nobody listening the application runs to its end and does not hang there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_LOGS_EXPORTER": "none",
        }
        done = run_zero_code(application, kind, "end", variables=variables | _PATIENT | _VARIABLES)
    assert done.stdout == "done\n"
    assert "steps aside" not in done.stderr


# Runs until its standard input ends, and says how often it has run.
_LONG_RUNNING = """
import sys, threading
from lifecycle.models import runner

call, over, count = runner("onnxruntime"), threading.Event(), 0
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
while not over.is_set():
    call()
    count += 1
    over.wait(0.002)
print(count, flush=True)
"""


@pytest.mark.parametrize("down_at_exit", [False, True], ids=["back at the exit", "down at the exit"])
def test_a_collector_that_goes_away(down_at_exit: bool, sink: Sink, tmp_path: Path) -> None:
    """The collector comes after the start, goes, and comes back: the application goes on meanwhile, and the totals
    that arrive at its end are right to the call. If it is gone at the end, the exit does not wait for it.
    """
    sink.stop()
    file = tmp_path / "application.py"
    file.write_text(_LONG_RUNNING)
    process = subprocess.Popen(
        [str(ZERO_CODE), sys.executable, str(file)],
        env=zero_code(tmp_path, sink.variables(**_VARIABLES) | _PATIENT),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(2):
            sink.restart()
            seen = sink.calls()
            assert sink.wait(lambda seen=seen: sink.calls() > seen)
            sink.stop()
        if not down_at_exit:
            sink.restart()
        output, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.communicate()
        if down_at_exit:
            sink.restart()
    assert process.returncode == 0, errors
    if not down_at_exit:
        assert sink.calls() == int(output)
    assert "steps aside" not in errors
