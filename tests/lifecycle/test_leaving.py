"""How children of `multiprocessing` end: with what they counted delivered, or in the time that they have for it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.programs import CHILDREN_ANEW, run, run_zero_code
from lifecycle.sink import Sink

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="TerminateProcess leaves no time for anything"
)

_SWALLOW = {"QUANTMON_TEST_GUARD": "swallow"}
# A busy machine may take more than the usual second to deliver.
_PATIENT = _SWALLOW | {"QUANTMON_EXIT_TIMEOUT": "60"}
_SPAWN, _FORKSERVER = (pytest.param(method, marks=CHILDREN_ANEW) for method in ("spawn", "forkserver"))

_POOL = """
import multiprocessing, sys
import onnxruntime
from concurrent.futures import ProcessPoolExecutor
from lifecycle.models import X, one_op_session

session = None

def load():
    global session
    session = one_op_session()

def task(_):
    session.run(None, X)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    if sys.argv[2] == "executor":
        with ProcessPoolExecutor(2, mp_context=context, initializer=load) as executor:
            list(executor.map(task, range(100)))
    else:
        with context.Pool(2, initializer=load) as pool:
            pool.map(task, range(100))
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    file = tmp_path / "application.py"
    file.write_text(_POOL)
    return file


@pytest.mark.parametrize("method", ["fork", _SPAWN, _FORKSERVER])
def test_a_pool_as_context_manager_loses_nothing(method: str, sink: Sink, application: Path) -> None:
    """``with Pool()`` ends its workers by SIGTERM: 100 of 100 calls arrive."""
    done = run_zero_code(application, method, "pool", variables=sink.variables(**_PATIENT))
    assert sink.calls() == 100
    assert "steps aside" not in done.stderr


@pytest.mark.parametrize("method", ["fork", _SPAWN])
def test_a_process_pool_executor_loses_nothing(method: str, sink: Sink, application: Path) -> None:
    """Its workers are told to end, and deliver."""
    run_zero_code(application, method, "executor", variables=sink.variables(**_PATIENT))
    assert sink.calls() == 100


def test_delivery_can_be_switched_off(sink: Sink, application: Path) -> None:
    """Without an exit timeout a worker ends at once."""
    variables = sink.variables(**_SWALLOW, QUANTMON_EXIT_TIMEOUT="none")
    run_zero_code(application, "fork", "pool", variables=variables)
    assert sink.calls() == 0


@pytest.fixture(params=["refused", "silent", "full"])
def nowhere(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port that refuses connections, one that accepts them and never answers, one that does not even accept them."""
    with socket.socket() as server, socket.socket() as first:
        server.bind(("127.0.0.1", 0))
        if request.param != "refused":
            server.listen(0 if request.param == "full" else 128)
        if request.param == "full":
            first.connect(server.getsockname())
        yield server.getsockname()[1]


_WITHOUT_ENDING = """
import multiprocessing, os, sys
import onnxruntime
from lifecycle.models import X, one_op_session

def task():
    one_op_session().run(None, X)

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=task)
    process.start()
    process.join()
    print(process.exitcode, flush=True)
    # Not the parent's exit, which is the SDK's and the application's.
    os._exit(0)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_that_cannot_deliver_ends_all_the_same(method: str, nowhere: int, tmp_path: Path) -> None:
    """The exporters would try for ten minutes, and do not keep to the time that a flush is given; the child ends long
    before, however it was started.
    """
    file = tmp_path / "application.py"
    file.write_text(_WITHOUT_ENDING)
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{nowhere}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "QUANTMON_SPANS": "all",
    }
    assert run_zero_code(file, method, variables=variables | _SWALLOW).stdout == "0\n"


_STUCK = """
import ctypes, multiprocessing
from exported import Exported
from lifecycle.models import X, one_op_session
from otel_quantmon import ONNXRuntimeInstrumentor

reading, writing = multiprocessing.Pipe()
exported = Exported()
exported.meter_provider.force_flush = lambda millis: writing.send(exported.calls())
ONNXRuntimeInstrumentor().instrument(**exported.providers)
session = one_op_session()

def stuck():
    session.run(None, X)
    writing.send("stuck")
    mutex = ctypes.create_string_buffer(256)
    while True:
        # Native code that never comes back: no handler in Python is ever run in this thread again.
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

process = multiprocessing.get_context("fork").Process(target=stuck)
process.start()
assert reading.recv() == "stuck"
process.terminate()
process.join()
print(process.exitcode, reading.recv())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="where a mutex of zeros is one that is free")
def test_a_child_that_hangs_in_native_code_can_still_be_terminated() -> None:
    """SIGTERM ends it as without us, though its main thread runs no handler, and it delivers."""
    assert run(_STUCK).stdout == "-15 1\n"


_HANDLERS = """
import multiprocessing, os, signal
from exported import Exported
from lifecycle.models import X, one_op_session
from otel_quantmon import ONNXRuntimeInstrumentor

flushes, said = multiprocessing.SimpleQueue(), multiprocessing.SimpleQueue()
exported = Exported()
exported.meter_provider.force_flush = lambda millis: flushes.put(os.getpid())
ONNXRuntimeInstrumentor().instrument(**exported.providers)
session = one_op_session()

def own(*_):
    said.put("own")
    os._exit(7)

def with_a_handler():
    signal.signal(signal.SIGTERM, own)
    session.run(None, X)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

def with_a_child():
    session.run(None, X)
    child = os.fork()
    if not child:
        said.put(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and signal.set_wakeup_fd(-1) == -1)
        os._exit(0)
    os.waitpid(child, 0)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

def without_a_call():
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

for target in (with_a_handler, with_a_child, without_a_call):
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join()
    flushed = []
    while not flushes.empty():
        flushed.append(flushes.get() == process.pid)
    print(target.__name__, process.exitcode, [] if said.empty() else said.get(), flushed)
"""


def test_the_signal_is_the_applications() -> None:
    """A handler of the application is called and ours is not; a process that such a child forks has the default; a
    child that observed nothing ends without a flush.
    """
    assert run(_HANDLERS).stdout.splitlines() == [
        "with_a_handler 7 own []",
        "with_a_child -15 True [True]",
        "without_a_call -15 [] []",
    ]


_SERVER = """
import multiprocessing, os, signal, sys

def serve():
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    from lifecycle.models import X, one_op_session
    session = one_op_session()
    session.run(None, X)
    os.kill(os.getpid(), signal.SIGTERM)
    assert told == [1]
    session.run(None, X)
    signal.signal(signal.SIGTERM, before)
    signal.raise_signal(signal.SIGTERM)

def without_a_runtime():
    if not os.fork():
        os._exit(signal.getsignal(signal.SIGTERM) != signal.SIG_DFL or signal.set_wakeup_fd(-1) != -1)
    if os.wait()[1]:
        os._exit(1)
    signal.raise_signal(signal.SIGTERM)

if __name__ == "__main__":
    for target in (serve, without_a_runtime):
        process = multiprocessing.get_context("spawn").Process(target=target)
        process.start()
        process.join()
        print(process.exitcode)
"""


@CHILDREN_ANEW
def test_a_server_that_handles_the_signal_before_it_imports_a_runtime(sink: Sink, tmp_path: Path) -> None:
    """As uvicorn does: it serves on when the signal comes, then raises it again with what was there before, and both
    calls arrive. A child without a runtime ends as without us, and one that it forks knows nothing of it.
    """
    file = tmp_path / "application.py"
    file.write_text(_SERVER)
    done = run_zero_code(file, variables=sink.variables(**_PATIENT))
    assert (done.stdout, sink.calls()) == ("-15\n-15\n", 2), done.stderr
