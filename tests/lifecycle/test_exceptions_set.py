"""What another thread sets, or a debugger raises, in the midst of an inference: the application hears of it."""

from __future__ import annotations

import ctypes
import queue
import sys
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
from exported import Exported

from lifecycle.faults import TimeLimit
from lifecycle.models import X, one_op_session
from lifecycle.programs import run
from otel_quantmon import guard
from otel_quantmon.settings import Settings

pytestmark = pytest.mark.usefixtures("production")


def test_what_another_thread_sets_reaches_the_application(
    exported: Exported, instrumentor: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exceptions by ``PyThreadState_SetAsyncExc``, as Celery's and concurrent timeouts use it, are raised once each in
    the thread that runs inferences, and none is taken for a failure of ours.
    """
    instrumentor.instrument(**exported.providers, settings=Settings(spans="none", queue_size=8))
    session = one_op_session()
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    ready, caught = queue.SimpleQueue[int](), queue.SimpleQueue[int]()
    over = threading.Event()
    # In a weak reference's callback Python itself cannot pass an exception on: it is set once more.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: caught.put(0))

    def serve_until_over(number: int) -> None:
        ready.put(number)
        while not over.is_set():
            session.run(None, X)

    def serve() -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                # A function of its own: what is raised at a loop's jump back can pass by a `try` around the loop.
                serve_until_over(number)
            except TimeLimit:
                caught.put(number)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for number in range(1, 1_001):
            assert ready.get(timeout=60) == number
            reached = 0
            while not reached:
                assert set_exception(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeLimit)) == 1
                reached = caught.get(timeout=60)
            assert reached == number
    finally:
        over.set()
        thread.join(60)
    assert exported.active() == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


# Quits at each line of ours in turn. In a process of its own: where a debugger quits at the end of a ``with``, Python
# itself leaves the lock locked, and the threads of this process would wait for it.
_DEBUGGED = """
import bdb, sys
from exported import Exported
from lifecycle.models import X, one_op_session
from otel_quantmon import ONNXRuntimeInstrumentor, Settings

class Debugger(bdb.Bdb):
    left = 0

    def user_line(self, frame):
        if "otel_quantmon" in frame.f_code.co_filename:
            self.left -= 1
            if not self.left:
                self.set_quit()

exported = Exported()
ONNXRuntimeInstrumentor().instrument(**exported.providers, settings=Settings(spans="none", queue_size=4))
session = one_op_session()
line = 0
while True:
    line += 1
    debugger = Debugger()
    debugger.left = line
    # What quits is caught there, and then there is no result.
    if debugger.runcall(lambda: [session.run(None, X) for _ in range(5)]) is not None:
        break
assert debugger.left > 0
print(line)
"""


@pytest.mark.parametrize("module", ["otel_quantmon.recording", "collections", "namedtuple_Calls"])
def test_what_another_thread_sets_is_the_application_s_in_any_code_of_ours(module: str) -> None:
    """Also in a constructor of a named tuple, whose code is in a module of its own."""
    ours: dict[str, Any] = {"__name__": "otel_quantmon.recording", "pass_on": guard.pass_on}
    exec("def call(function):\n try: function()\n except Exception as error: pass_on(error)", ours)
    thread, raised = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(TimeLimit)
    set_exception = partial(ctypes.pythonapi.PyThreadState_SetAsyncExc, thread, raised)
    theirs: dict[str, Any] = {"__name__": module, "set_exception": set_exception}
    exec("def function(): set_exception()", theirs)
    with pytest.raises(TimeLimit):
        ours["call"](theirs["function"])


def test_what_compiled_code_raises_within_ours_is_not_the_application_s() -> None:
    """A traceback has frames for Cython's code in which nothing runs: numpy's here, gevent's locks elsewhere."""
    ours: dict[str, Any] = {"__name__": "otel_quantmon.recording", "pass_on": guard.pass_on}
    exec("def call(function):\n try: function()\n except Exception as error: pass_on(error)", ours)
    ours["call"](partial(np.random.default_rng().choice, [], 1))


def test_a_debugger_can_quit_in_our_code() -> None:
    """``quit`` at any line of ours that a call meets ends the program, as in a debugger without us."""
    done = run(_DEBUGGED, variables={"QUANTMON_TEST_GUARD": "swallow"})
    assert int(done.stdout) > 100
