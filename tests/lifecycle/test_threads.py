"""Many threads, many sessions, and collections in between: every call counted, once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from exported import Exported

from lifecycle.models import X, one_op_session
from lifecycle.programs import run
from otel_quantmon.settings import Settings

_THREADS, _SESSIONS, _CALLS = 8, 16, 2_000


@pytest.mark.parametrize("spans", ["auto", "none"])
def test_eight_threads_on_sixteen_sessions(exported: Exported, instrumentor, spans) -> None:
    """Counts, output bytes and withheld spans are exact while other threads collect; nothing is left in flight."""
    instrumentor.instrument(**exported.providers, settings=Settings(spans=spans, queue_size=64))
    sessions = [one_op_session() for _ in range(_SESSIONS)]
    begin = threading.Barrier(_THREADS + 1)
    over = threading.Event()

    def call(first: int) -> None:
        begin.wait()
        for number in range(_CALLS):
            sessions[(first + number) % _SESSIONS].run(None, X)

    def collect() -> int:
        begin.wait()
        collections = 0
        while not over.is_set():
            exported.points_by_name()
            collections += 1
        return collections

    with ThreadPoolExecutor(_THREADS + 1) as pool:
        collecting = pool.submit(collect)
        try:
            for future in [pool.submit(call, first) for first in range(_THREADS)]:
                future.result()
        finally:
            over.set()
        assert collecting.result() > 1
    points = exported.points_by_name()
    total = _THREADS * _CALLS
    assert sum(point.count for point in points["quantmon.inference.duration"]) == total
    assert [point.value for point in points["quantmon.memory.allocated"]] == [total * 16]
    assert [point.value for point in points["quantmon.inference.active"]] == [0]
    withheld = sum(point.value for point in points.get("quantmon.spans.suppressed", ()))
    shown = len(exported.exporter.get_finished_spans())
    assert withheld + shown == (total if spans == "auto" else 0)


def test_a_call_in_flight_is_seen(exported: Exported, instrumentor) -> None:
    """A collection made while a call runs counts it as active, and not yet as over."""
    import onnxruntime

    seen: list[tuple[int, int]] = []

    def collect_below(session, *args, **kwargs):
        seen.append((exported.active(), exported.calls()))
        return original(session, *args, **kwargs)

    original = onnxruntime.InferenceSession.run
    session = one_op_session()
    base = onnxruntime.InferenceSession.__mro__[1]
    base.run = collect_below
    try:
        instrumentor.instrument(**exported.providers)
        session.run(None, X)
        session.run(None, X)
        instrumentor.uninstrument()
    finally:
        base.run = original
    assert seen == [(1, 0), (1, 1)]
    assert exported.calls() == 2


def test_asyncio(exported: Exported, instrumentor) -> None:
    """Coroutines that run on the loop, in a pool of threads, and by `run_async` add up, and none stays active."""
    instrumentor.instrument(**exported.providers)
    session = one_op_session(threads=2)

    async def by_callback() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def callback(results, _, error):
            loop.call_soon_threadsafe(done.set_result, error or results[0].tolist())

        session.run_async(None, X, callback, None)
        assert await done == [1.0, 2.0, 3.0, 4.0]

    async def on_the_loop() -> None:
        session.run(None, X)

    async def main() -> None:
        in_threads = [asyncio.to_thread(session.run, None, X) for _ in range(50)]
        of_the_loop = [work() for work in (on_the_loop, by_callback) for _ in range(50)]
        await asyncio.gather(*in_threads, *of_the_loop)

    asyncio.run(main())
    points = exported.points_by_name()
    durations = points["quantmon.inference.duration"]
    by_operation = {point.attributes["quantmon.operation.name"]: point.count for point in durations}
    assert by_operation == {"run": 100, "run_async": 50}
    assert [point.value for point in points["quantmon.inference.active"]] == [0]


_GEVENT = """
import sys
early = sys.argv[1] == "early"
if early:
    import otel_quantmon.process.fork, otel_quantmon.process.worker
else:
    from gevent import monkey; monkey.patch_all()
from exported import Exported
from lifecycle.models import X, one_op_session
from otel_quantmon import ONNXRuntimeInstrumentor
from otel_quantmon.process.worker import worker

exported = Exported()
ONNXRuntimeInstrumentor().instrument(**exported.providers)
import onnxruntime
if early:
    from gevent import monkey; monkey.patch_all()
import gevent

def serve(number):
    session = one_op_session()
    for _ in range(10):
        session.run(None, X)
        gevent.sleep(0)

gevent.joinall([gevent.spawn(serve, n) for n in range(8)], raise_error=True)
assert worker.flush(20)
print(exported.calls(), exported.active())
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("imported", ["early", "late"])
def test_gevent(imported: str) -> None:
    """Greenlets are counted like threads; the worker stops nobody, whether it was imported before gevent replaced
    threads and queues (as `opentelemetry-instrument` may have it) or after.
    """
    pytest.importorskip("gevent")
    assert run(_GEVENT, imported).stdout == "80 0\n"
