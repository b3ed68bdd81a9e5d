"""Failures and timeouts of ONNX Runtime's calls: what the caller gets, and what is exported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from inspect import cleandoc
from typing import Any

import numpy as np
import onnxruntime
import pytest
import real_models
from exported import Exported
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from otel_quantmon import InferenceTimeoutError
from otel_quantmon.process.watchdog import Ticket, Watchdog
from otel_quantmon.runtimes.onnxruntime.timeouts import RunOptionsTimeouts

from .models import doubling, until_told

Instrument = Callable[..., None]

TIMEOUT = 0.02
PATIENCE = 60
"""Seconds after which something counts as not happening, on a busy machine too."""
ROWS = np.ones((2, 3), np.float32)
WRONG = {"x": np.ones((2, 5), np.float32)}


class Feeds(dict[str, Any]):
    """What `until_told` is fed with. A call that is not ended and not told ends by itself, late and without error."""

    def __init__(self) -> None:
        super().__init__(x=ROWS, told=np.array(0, np.int64))
        self._late = threading.Timer(PATIENCE, self.tell)
        self._late.daemon = True
        self._late.start()

    def tell(self) -> None:
        """Have the call with these feeds, and each later one, finish."""
        self["told"][...] = 1
        self._late.cancel()


@pytest.fixture
def feeds() -> Iterator[Feeds]:
    feeds = Feeds()
    yield feeds
    feeds.tell()


@pytest.fixture
def slow_session(exported: Exported, instrument: Instrument) -> Any:
    """A session of `until_told`, whose calls are to be ended after `TIMEOUT`."""
    instrument(spans="auto", timeout=TIMEOUT)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(until_told(), options, providers=["CPUExecutionProvider"])
    exported.raw_metrics()
    return session


def session_of(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def test_a_failure_is_exported_whole(exported: Exported, instrument: Instrument) -> None:
    """Status, ``error.type`` and the exception's event on the span; ``error.type`` in the histogram."""
    instrument(spans="auto")
    session = session_of(doubling())
    exported.raw_metrics()
    with pytest.raises(InvalidArgument):
        session.run(None, WRONG)
    message = (
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : "
        "Got invalid dimensions for input: x for the following indices"
    )
    kind = "onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument"
    assert exported.spans() == cleandoc(
        f"""
            inference doubling (INTERNAL, parent None, ERROR 'InvalidArgument: {message}')
              error.type='{kind}'
              quantmon.batch.size=2
              quantmon.execution_provider='CPUExecutionProvider'
              quantmon.input.shapes=('x:2x5',)
              quantmon.model.digest=<digest>
              quantmon.model.format='onnx'
              quantmon.model.name='doubling'
              quantmon.operation.name='run'
              quantmon.quantization.scheme='none'
              quantmon.runtime.name='onnxruntime'
              quantmon.runtime.version=<version>
              event exception
                exception.escaped='False'
                exception.message='{message}'
                exception.type='{kind}'
        """
    )
    assert (
        f"  [doubling onnxruntime none CPUExecutionProvider] error.type='{kind}' quantmon.operation.name='run': "
        "count 1 exemplars ['inference doubling']"
    ) in exported.metrics().splitlines()


def test_the_caller_gets_the_exception_as_it_was_raised(exported: Exported, instrument: Instrument) -> None:
    """The same object, without a cause or a context of ours; also one that is no `Exception`."""
    instrument()
    session = session_of(doubling())

    class Feed(dict[str, Any]):
        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self._error = error

        def keys(self) -> Any:
            raise self._error

    for error in (ValueError("of the application"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            session.run(None, Feed(error))
        assert raised.value is error
        assert error.__cause__ is error.__context__ is None
    assert exported.count(error_type="ValueError") == 1
    assert exported.count(error_type="KeyboardInterrupt") == 1


def test_failures_stay_out_of_the_window(exported: Exported, instrument: Instrument) -> None:
    """A call that is refused at once is no gain in speed."""
    instrument()
    session = session_of(doubling())
    with pytest.raises(InvalidArgument):
        session.run(None, WRONG)
    assert exported.points("quantmon.inference.window.duration") == []
    assert exported.points("quantmon.inference.duration.drift") == []


def test_a_failed_async_call_is_exported_as_a_failure(exported: Exported, instrument: Instrument) -> None:
    """The callback is given a text without the class of the error, so ``error.type`` can only be a general one."""
    instrument()
    session = session_of(doubling())
    over = threading.Event()
    given: list[Any] = []

    def callback(results: Any, user_data: Any, error: str) -> None:
        given.append(error)
        over.set()

    session.run_async(None, WRONG, callback, None)
    assert over.wait(PATIENCE)
    assert given[0].startswith("Got invalid dimensions")
    assert exported.count(error_type="RuntimeError") == exported.count() == 1
    assert exported.raw_spans()[0].status.description == f"RuntimeError: {given[0]}"


def test_an_async_call_that_is_refused_at_once_raises_and_counts_once(
    exported: Exported, instrument: Instrument
) -> None:
    """The runtime raises before it takes the call on: the callback never runs, nothing stays in flight."""
    instrument()
    session = session_of(doubling())
    with pytest.raises(ValueError, match="missing from input feed"):
        session.run_async(None, {}, lambda *_: None, None)
    assert exported.count(error_type="ValueError") == 1
    assert exported.point("quantmon.inference.active").value == 0


def run(session: Any, feeds: Feeds, options: Any) -> None:
    session.run(None, feeds, options)


def run_by_keyword(session: Any, feeds: Feeds, options: Any) -> None:
    session.run(None, feeds, **({} if options is None else {"run_options": options}))


def run_with_ort_values(session: Any, feeds: Feeds, options: Any) -> None:
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
    session.run_with_ort_values(None, values, options)


def run_with_iobinding(session: Any, feeds: Feeds, options: Any) -> None:
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("y")
    session.run_with_iobinding(binding, options)


@pytest.mark.parametrize("own_options", [False, True], ids=["no_options", "own_options"])
@pytest.mark.parametrize("way", [run, run_by_keyword, run_with_ort_values, run_with_iobinding])
def test_a_run_past_its_timeout_is_ended(
    way: Callable[[Any, Feeds, Any], None],
    own_options: bool,
    slow_session: Any,
    feeds: Feeds,
    exported: Exported,
) -> None:
    """The caller gets our error, caused by the runtime's; the application's options are as they were."""
    options = onnxruntime.RunOptions() if own_options else None
    with pytest.raises(InferenceTimeoutError) as raised:
        way(slow_session, feeds, options)
    assert (raised.value.model, raised.value.timeout) == ("until_told", TIMEOUT)
    assert "terminate flag" in str(raised.value.__cause__)
    assert options is None or options.terminate is False
    assert exported.count(error_type="timeout") == exported.count() == 1
    span = exported.raw_spans()[0]
    assert (span.attributes or {})["error.type"] == "timeout"
    assert span.status.status_code.name == "ERROR"
    # It was ended before there was any output.
    assert sum(point.value for point in exported.points("quantmon.memory.allocated")) == 0


def test_run_with_ortvaluevector_cannot_be_ended_and_is_reported(
    feeds: Feeds, exported: Exported, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It copies its options, so that a flag set later does not reach the run: the result comes, late."""
    expire, options = Ticket.expire, onnxruntime.RunOptions()

    def expiring(ticket: Ticket) -> None:
        expire(ticket)
        # Not at that of a call of another test, which may end on a thread of the runtime.
        if options.terminate:
            feeds.tell()

    monkeypatch.setattr(Ticket, "expire", expiring)
    instrument(timeout=TIMEOUT)
    session = session_of(until_told())
    given = onnxruntime.capi._pybind_state.OrtValueVector()
    for array in feeds.values():
        given.push_back(onnxruntime.OrtValue.ortvalue_from_numpy(array)._get_c_value())
    fetches = onnxruntime.capi._pybind_state.OrtValueVector()
    device = onnxruntime.OrtDevice.make("cpu", 0)._get_c_device()
    session.run_with_ortvaluevector(options, list(feeds), given, ["y"], fetches, [device])
    np.testing.assert_array_equal(fetches[0].numpy(), ROWS)
    assert options.terminate is False
    assert exported.count(error_type="timeout") == exported.count() == 1


def test_options_can_be_used_again_after_a_timeout(
    feeds: Feeds, exported: Exported, instrument: Instrument
) -> None:
    """The same options, which ended one model's run, let another one's finish."""
    instrument(timeout=PATIENCE, models={"until_told": {"timeout": TIMEOUT}})
    options = onnxruntime.RunOptions()
    with pytest.raises(InferenceTimeoutError):
        session_of(until_told()).run(None, feeds, options)
    session_of(doubling()).run(None, {"x": ROWS}, options)
    assert exported.count() == 2
    assert exported.count(error_type="timeout") == 1


def test_options_that_the_application_has_set_to_terminate_stay_so(
    feeds: Feeds, exported: Exported, instrument: Instrument
) -> None:
    """A run that the application itself ended is a failure of the runtime, no timeout."""
    instrument(timeout=PATIENCE)
    session = session_of(until_told())
    options = onnxruntime.RunOptions()
    options.terminate = True
    with pytest.raises(Fail):
        session.run(None, feeds, options)
    assert options.terminate is True
    assert exported.count(error_type="timeout") == 0
    assert exported.count() == 1


def test_options_shared_by_threads_end_each_call_and_are_left_as_they_were(
    slow_session: Any, feeds: Feeds, exported: Exported
) -> None:
    """Each thread's call is ended for having run past its own timeout."""
    options = onnxruntime.RunOptions()
    together = threading.Barrier(3)

    def call() -> None:
        together.wait(PATIENCE)
        with pytest.raises(InferenceTimeoutError):
            slow_session.run(None, feeds, options)

    with ThreadPoolExecutor(3) as threads:
        for call_made in [threads.submit(call) for _ in range(3)]:
            call_made.result(PATIENCE)
    assert options.terminate is False
    assert exported.count(error_type="timeout") == exported.count() == 3


def test_a_call_with_time_left_is_not_ended_for_another_with_the_same_options(
    exported: Exported, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One flag ends every run that uses it: the overdue call goes on until the other is over, and is reported."""
    instrument(models={"until_told": {"timeout": TIMEOUT}, "patient": {"timeout": PATIENCE}})
    short, patient = session_of(until_told()), session_of(until_told("patient"))
    of_short, of_patient = Feeds(), Feeds()
    options = onnxruntime.RunOptions()
    under_watch = threading.Event()
    watch, expire = Watchdog.watch, Ticket.expire

    def watching(self: Watchdog, ticket: Ticket, seconds: float) -> None:
        watch(self, ticket, seconds)
        under_watch.set()

    def expiring(ticket: Ticket) -> None:
        expire(ticket)
        of_patient.tell()

    monkeypatch.setattr(Watchdog, "watch", watching)
    monkeypatch.setattr(Ticket, "expire", expiring)
    with ThreadPoolExecutor(1) as threads:
        fine = threads.submit(patient.run, None, of_patient, options)
        assert under_watch.wait(PATIENCE)
        with pytest.raises(InferenceTimeoutError):
            short.run(None, of_short, options)
        np.testing.assert_array_equal(fine.result(PATIENCE)[0], ROWS)
    assert exported.count(model_name="patient") == 1
    assert exported.count(model_name="patient", error_type="timeout") == 0
    assert exported.count(model_name="until_told", error_type="timeout") == 1
    assert options.terminate is False
    of_short.tell()


def test_a_call_that_comes_while_another_is_told_to_end_has_all_of_its_time() -> None:
    """The flag that ends the others is up when it begins with their options: it is taken down for it."""
    timeouts, options = RunOptionsTimeouts(), onnxruntime.RunOptions()
    overdue, _, _ = timeouts.arm("run", (None, {}, options), {}, PATIENCE)
    overdue.expire()
    assert options.terminate is True
    late, _, _ = timeouts.arm("run", (None, {}, options), {}, PATIENCE)
    assert options.terminate is False
    timeouts.disarm(late)
    assert options.terminate is True
    timeouts.disarm(overdue)
    assert options.terminate is False


@pytest.mark.parametrize("own_options", [False, True], ids=["no_options", "own_options"])
def test_an_async_call_past_its_timeout_is_ended(
    own_options: bool, slow_session: Any, feeds: Feeds, exported: Exported
) -> None:
    """The callback gets the runtime's text, for it can be given no exception; the rest is as in `run`."""
    options = onnxruntime.RunOptions() if own_options else None
    over = threading.Event()
    given: list[str] = []

    def callback(results: Any, user_data: Any, error: str) -> None:
        given.append(error)
        over.set()

    slow_session.run_async(None, feeds, callback, None, options)
    assert over.wait(PATIENCE)
    assert "terminate flag" in given[0]
    assert exported.count(error_type="timeout") == exported.count() == 1
    assert options is None or options.terminate is False


def test_a_call_within_its_timeout_is_left_alone(exported: Exported, instrument: Instrument) -> None:
    """No error, no ``error.type``; the application's options reach the runtime."""
    instrument(timeout=PATIENCE)
    session = session_of(doubling())
    x = {"x": np.ones((2, 3), np.float32)}
    session.run(None, x)
    session.run(None, x, onnxruntime.RunOptions())
    session.run(None, x, run_options=None)
    assert exported.count() == 3
    assert all("error.type" not in (span.attributes or {}) for span in exported.raw_spans())


def test_a_failure_with_a_timeout_set_is_no_timeout(exported: Exported, instrument: Instrument) -> None:
    """The runtime's own exception reaches the caller, without a cause of ours."""
    instrument(timeout=PATIENCE)
    with pytest.raises(InvalidArgument) as raised:
        session_of(doubling()).run(None, WRONG)
    assert raised.value.__cause__ is None
    assert exported.count(error_type="timeout") == 0


def test_a_call_that_failed_has_produced_no_bytes(instrument, exported):
    """`quantmon.memory.allocated` of a model with fixed shapes counts the outputs that there were."""
    instrument(spans="none")
    session = onnxruntime.InferenceSession(str(real_models.one_op_onnx()), providers=["CPUExecutionProvider"])
    given = session.get_inputs()
    [output] = session.run(None, {one.name: np.ones(one.shape, np.float32) for one in given})
    for _ in range(3):
        with pytest.raises(Exception, match="INVALID_ARGUMENT"):
            session.run(None, {one.name: np.ones((7, 7, 7), np.float32) for one in given})
    [point] = exported.raw_metrics()["quantmon.memory.allocated"].data.data_points
    assert point.value == output.nbytes
