"""Processes made of processes: what each has run is counted in it, and nowhere else."""

from __future__ import annotations

import http.client
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from lifecycle.programs import CHILDREN_ANEW, SECONDS, ZERO_CODE, run, run_zero_code, started, zero_code
from lifecycle.sink import Sink

_FORK = """
import os
from exported import Exported
from lifecycle.models import runner
from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor
from otel_quantmon.process.worker import worker

exported = Exported()
for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
    instrumentor.instrument(**exported.providers)
session, interpreter = runner("onnxruntime"), runner("litert")

def work(times):
    for _ in range(times):
        session()
        interpreter()

work(50)  # waits in the parent: nobody has collected
reading, writing = os.pipe()
for generation in range(3):
    child = os.fork()
    if child == 0:
        work(20)
        before = exported.calls()
        runner("onnxruntime")()  # a model loaded here, with a worker and a state of its own
        assert worker.flush(20)
        active = exported.active()
        grandchild = os.fork()
        if grandchild == 0:
            # Nor does it go on from what the SDK has taken in, here 41.
            work(1)
            os._exit(exported.calls())
        code = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
        os.write(writing, f"{before} {exported.calls()} {active} {code};".encode())
        os._exit(0)
    os.waitpid(child, 0)
    work(10)
print(os.read(reading, 1000).decode(), exported.calls())
"""


def test_fork_with_records_waiting() -> None:
    """A child, and a child of that, counts its own calls and none of those that wait in its parent; the parent
    loses none; a model loaded in the child is observed as well.
    """
    assert run(_FORK).stdout.strip() == "40 41 0 2;" * 3 + " 160"


_COLLECTED_FORK = """
import os, time
from exported import Exported
from lifecycle.models import runner
from otel_quantmon import ONNXRuntimeInstrumentor
from otel_quantmon.process.worker import worker
from otel_quantmon.settings import Settings

exported = Exported()
own = exported.meter_provider.get_meter("application").create_counter("own")
own.add(5)
# No call is long enough to pay for a span.
ONNXRuntimeInstrumentor().instrument(**exported.providers, settings=Settings(span_budget=1e-9))
run = runner("onnxruntime")

def work(times):
    for _ in range(times):
        run()

def tell(began):
    points = exported.points_by_name()
    (duration,) = points["quantmon.inference.duration"]
    loads = [point.count for point in points.get("quantmon.model.load.duration", ())]
    return (duration.count, sum(duration.bucket_counts), duration.start_time_unix_nano > began, loads,
            sum(point.value for point in points["quantmon.spans.suppressed"]), points["own"][0].value)

work(50)
assert exported.calls() == 50
assert worker.flush(20)  # what is proven of the SDK is proven by now
reading, writing = os.pipe()
began = time.time_ns()
child = os.fork()
if child == 0:
    work(20)
    os.write(writing, repr(tell(began)).encode())
    os._exit(0)
os.waitpid(child, 0)
work(10)
print(os.read(reading, 1000).decode(), tell(began))
"""


@pytest.mark.parametrize("exemplars", ["trace_based", "always_on"])
def test_fork_with_records_collected(exemplars: str) -> None:
    """What the SDK has taken in of the parent's calls stays with the parent: a child counts from zero, since the fork;
    what the application itself has counted is left alone. So too where every value is recorded by itself.
    """
    done = run(_COLLECTED_FORK, variables={"OTEL_METRICS_EXEMPLAR_FILTER": exemplars})
    assert done.stdout.strip() == "(20, 20, True, [], 20, 5) (60, 60, False, [1], 60, 5)"


_EARLY_FORK = """
import os, threading
from exported import Exported
from lifecycle.models import runner
from otel_quantmon import ONNXRuntimeInstrumentor
from otel_quantmon.process.worker import worker

exported = Exported()
ONNXRuntimeInstrumentor().instrument(**exported.providers)
run = runner("onnxruntime")
# The thread that would prove it does not come to it.
free, held = threading.Event(), threading.Event()
worker.submit(lambda: held.set() or free.wait(60))
assert held.wait(20)
for _ in range(50):
    run()
exported.reader.collect()
child = os.fork()
if child == 0:
    run()
    os._exit(exported.calls())
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
free.set()
print(code, exported.calls())
"""


def test_fork_before_it_is_proven_that_points_can_be_forgotten() -> None:
    """A child that is forked within moments of its parent's first collection counts from zero as well: the fork
    proves what no other thread has come to prove.
    """
    assert run(_EARLY_FORK).stdout.strip() == "1 50"


_BUSY_FORK = """
import os, threading
from exported import Exported
from lifecycle.models import X, one_op_session
from otel_quantmon import ONNXRuntimeInstrumentor
from otel_quantmon.settings import Settings

exported = Exported()
ONNXRuntimeInstrumentor().instrument(**exported.providers, settings=Settings(queue_size=1, timeout=30.0))
sessions = [one_op_session() for _ in range(4)]
over = threading.Event()
counts = [0] * len(sessions)

def call(number):
    while not over.is_set():
        sessions[number].run(None, X)
        counts[number] += 1

# No other thread is in this one when the process forks: ONNX Runtime's own locks are not what is looked at.
quiet = one_op_session()
threads = [threading.Thread(target=call, args=(n,)) for n in range(len(sessions))]
for thread in threads:
    thread.start()
for _ in range(40):
    child = os.fork()
    if child == 0:
        before = exported.calls()
        for _ in range(4):
            quiet.run(None, X)
        os._exit(exported.calls() - before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
over.set()
for thread in threads:
    thread.join()
assert exported.calls() == sum(counts), (exported.calls(), sum(counts))
print("right")
"""


def test_fork_while_other_threads_move_records() -> None:
    """A child forked while other threads are inside the SDK's locks or arming timeouts does not find them locked
    for ever: forty times, with every call being moved to the SDK at once.
    """
    assert run(_BUSY_FORK).stdout == "right\n"


# The worker processes import the runtime with the parent, before it, or in the task itself.
_MULTIPROCESSING = """
import multiprocessing, sys
where = sys.argv[2]
if where == "module":
    import onnxruntime

def task(count):
    from lifecycle.models import X, one_op_session
    session = one_op_session()
    for _ in range(count):
        session.run(None, X)

if __name__ == "__main__":
    task_counts = [100, 200, 300]
    context = multiprocessing.get_context(sys.argv[1])
    if where == "module":
        task(50)
    processes = [context.Process(target=task, args=(count,)) for count in task_counts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
"""

# A busy machine may take more than the usual second to deliver at the end.
_PATIENT = {"QUANTMON_TEST_GUARD": "swallow", "QUANTMON_EXIT_TIMEOUT": "60"}


@pytest.mark.parametrize("where", ["module", "task"])
@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(method, marks=CHILDREN_ANEW) for method in ("forkserver", "spawn"))]
)
def test_multiprocessing(method: str, where: str, sink: Sink, tmp_path: Path) -> None:
    """What the processes of each start method have run has arrived when they have ended, though they leave past
    every exit handler; each reports its own.
    """
    file = tmp_path / "application.py"
    file.write_text(_MULTIPROCESSING)
    done = run_zero_code(file, method, where, variables=sink.variables(**_PATIENT))
    assert "steps aside" not in done.stderr
    parent = [50] if where == "module" else []
    assert sorted(sink.by_process().values()) == [*parent, 100, 200, 300]


_WHILE_EXPORTING = """
import os, threading
from lifecycle.models import runner
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExportResult, PeriodicExportingMetricReader
from otel_quantmon import ONNXRuntimeInstrumentor

parent, begun, released = os.getpid(), threading.Event(), threading.Event()

class Exporter(ConsoleMetricExporter):
    def export(self, *_, **__):
        if os.getpid() == parent:
            begun.set()
            released.wait()
        return MetricExportResult.SUCCESS

provider = MeterProvider([PeriodicExportingMetricReader(Exporter(), 3_600_000)])
ONNXRuntimeInstrumentor().instrument(meter_provider=provider)
session = runner("onnxruntime")
session()
exporting = threading.Thread(target=provider.force_flush)
exporting.start()
begun.wait()
child = os.fork()
if child == 0:
    session()
    flushing = threading.Thread(target=provider.force_flush, daemon=True)
    flushing.start()
    flushing.join(30)
    os._exit(flushing.is_alive())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
released.set()
exporting.join()
"""


def test_a_fork_while_the_parent_exports() -> None:
    """The child can export itself: the lock that the parent's exporting thread holds is not handed down."""
    assert run(_WHILE_EXPORTING).stdout.split() == ["0"]


_WSGI = """
from lifecycle.models import X, one_op_session

session = one_op_session()

def application(environ, start_response):
    body = repr(session.run(None, X)[0].tolist()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


# Not gevent: ONNX Runtime itself aborts at the exit of a process that gevent has patched after it was forked.
@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_gunicorn_preload(worker_class: str, sink: Sink, tmp_path: Path) -> None:
    """With the model loaded before gunicorn forks, the sum over its workers after SIGTERM is the number of requests
    that were answered.
    """
    pytest.importorskip("gunicorn")
    (tmp_path / "service.py").write_text(_WSGI)
    log = tmp_path / "log"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        port = listening.getsockname()[1]
        command = [str(ZERO_CODE), sys.executable, "-m", "gunicorn", "--preload", "--workers", "3"]
        command += ["--bind", f"fd://{listening.fileno()}", "--no-control-socket"]
        command += ["--worker-class", worker_class, "--chdir", str(tmp_path), "service:application"]
        with started(command, zero_code(tmp_path, sink.variables(**_PATIENT)), log, listening) as process:
            answered = _requests(port)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0, log.read_text()
    assert answered == 120
    assert sink.calls() == answered, log.read_text()
    assert "steps aside" not in log.read_text()


def _requests(port: int) -> int:
    """Answers to 120 requests, each on a connection of its own, by four clients."""
    answers: list[bytes] = []

    def client() -> None:
        for _ in range(30):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
            connection.request("GET", "/")
            answers.append(connection.getresponse().read())
            connection.close()

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return answers.count(b"[1.0, 2.0, 3.0, 4.0]")
