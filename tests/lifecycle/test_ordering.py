"""Whatever the order in which an application and its operator do things: each call counted once, nothing left."""

from __future__ import annotations

import inspect
import json
import threading
from itertools import combinations

import pytest
import wrapt
from exported import Exported

from lifecycle.models import X, one_op_session, wake_word_interpreter
from lifecycle.programs import run
from otel_quantmon.probe.fast_path import PROBE

# One process forks a child for each order before it has imported a runtime. Steps: i(mport), s(ession), r(un) of
# the application; n(strument), u(ninstrument). After each step that leaves a session there, it is run again.
_PROGRAM = """
import json, os, sys
import otel_quantmon.pipeline, otel_quantmon.process.fork
from exported import Exported
from lifecycle.models import is_ours, runner
from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor
from otel_quantmon.probe.fast_path import PROBE

kind, orders = sys.argv[1], json.loads(sys.argv[2])
instrumentor = {"onnxruntime": ONNXRuntimeInstrumentor, "litert": TFLiteInstrumentor}[kind]()

def classes():
    if kind == "onnxruntime":
        from onnxruntime import InferenceSession
        return [InferenceSession, InferenceSession.__mro__[1]]
    from ai_edge_litert.interpreter import Interpreter, SignatureRunner
    return [Interpreter, SignatureRunner]

def state():
    return [dict(vars(cls)) for cls in classes()]

def ours():
    return [n for members in state() for n, m in members.items() if is_ours(m)]

def play(order):
    exported = Exported()
    pristine = held = call = None
    counted, on = 0, False
    for step in order:
        if step == "i":
            held = classes()  # names bound before or after the patch: the application's own
            pristine = None if on else state()
        elif step == "s":
            call = runner(kind)
        elif step == "n":
            instrumentor.instrument(**exported.providers)
            on = True
        elif step == "u":
            instrumentor.uninstrument()
            on = False
            if pristine is not None:
                assert state() == pristine, order
            if held is not None:
                assert not ours(), (order, ours())
        if call is not None:
            call()
            counted += on
            assert exported.calls() == counted, (order, step, exported.calls(), counted)
            holder = call.__closure__[0].cell_contents
            assert (PROBE in vars(holder)) == on, (order, step)

for order in orders:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            play(order)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, order
print("played", len(orders))
"""


def _orders() -> list[str]:
    """Every way to put instrument, uninstrument, instrument, uninstrument between import, session and runs."""
    orders = []
    for places in combinations(range(7), 4):
        ours, application = iter("nunu"), iter("isr")
        orders.append("".join(next(ours if place in places else application) for place in range(7)))
    return orders


@pytest.mark.parametrize("kind", ["onnxruntime", "litert"])
def test_every_order(kind: str) -> None:
    """Each call made while instrumented is counted once and no other, in each of the 35 orders; `uninstrument`
    leaves the very class members that were there, and nothing on the objects.
    """
    done = run(_PROGRAM, kind, json.dumps(_orders()))
    assert done.stdout == "played 35\n"


def test_instrument_twice(exported: Exported, instrumentor) -> None:
    """A second `instrument` without an `uninstrument` changes nothing: one call counts once."""
    instrumentor.instrument(**exported.providers)
    instrumentor.instrument(**exported.providers)
    one_op_session().run(None, X)
    assert exported.calls() == 1


def test_a_subclass_that_calls_super_counts_once(exported: Exported, instrumentor) -> None:
    """Both of a subclass's `__init__` and `run` go through ours once."""
    import onnxruntime

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path: str) -> None:
            super().__init__(path, providers=["CPUExecutionProvider"])

        def run(self, output_names, input_feed, run_options=None):
            return super().run(output_names, input_feed, run_options)

    from real_models import one_op_onnx

    instrumentor.instrument(**exported.providers)
    Session(str(one_op_onnx())).run(None, X)
    points = exported.points_by_name()
    assert sum(p.count for p in points["quantmon.model.load.duration"]) == 1
    assert sum(p.count for p in points["quantmon.inference.duration"]) == 1


class _Tracer:
    """Somebody else's tracer: a `wrapt` wrapper around a method, as most vendors make it."""

    def __init__(self, cls: type, name: str) -> None:
        self.seen: list[tuple[type, int]] = []
        self.cls, self.name = cls, name
        wrapt.wrap_function_wrapper(cls, name, self._wrapper)

    def _wrapper(self, wrapped, instance, args, kwargs):
        self.seen.append((instance if isinstance(instance, type) else type(instance), len(args)))
        return wrapped(*args, **kwargs)

    def remove(self) -> None:
        """As `opentelemetry.instrumentation.utils.unwrap` does it."""
        setattr(self.cls, self.name, vars(self.cls)[self.name].__wrapped__)


@pytest.fixture
def _class_restored():
    import onnxruntime

    before = set(vars(onnxruntime.InferenceSession))
    yield
    for name in set(vars(onnxruntime.InferenceSession)) - before:
        delattr(onnxruntime.InferenceSession, name)


@pytest.mark.usefixtures("_class_restored")
def test_another_tracer_above(exported: Exported, instrumentor) -> None:
    """A wrapper put over ours sees each call as it did, ours counts it once, also through an `uninstrument` and
    an `instrument` between, which find the other one in the way.
    """
    import onnxruntime

    session = one_op_session()
    instrumentor.instrument(**exported.providers)
    other = _Tracer(onnxruntime.InferenceSession, "run")
    session.run(None, X)
    instrumentor.uninstrument()
    session.run(None, X)
    assert PROBE not in vars(session)
    instrumentor.instrument(**exported.providers)
    session.run(None, X)
    assert exported.calls() == 2
    assert other.seen == [(onnxruntime.InferenceSession, 2)] * 3
    instrumentor.uninstrument()
    other.remove()
    session.run(None, X)
    instrumentor.instrument(**exported.providers)
    session.run(None, X)
    assert exported.calls() == 3


@pytest.mark.usefixtures("_class_restored")
def test_another_tracer_below(exported: Exported, instrumentor) -> None:
    """A wrapper that was there before is called as a method, instance and arguments apart, and is there after."""
    import onnxruntime

    other = _Tracer(onnxruntime.InferenceSession, "run")
    there = vars(onnxruntime.InferenceSession)["run"]
    instrumentor.instrument(**exported.providers)
    session = one_op_session()
    session.run(None, X)
    session.run(None, input_feed=X)
    instrumentor.uninstrument()
    assert vars(onnxruntime.InferenceSession)["run"] is there
    session.run(None, X)
    assert exported.calls() == 2
    assert other.seen == [(onnxruntime.InferenceSession, n) for n in (2, 1, 2)]


def test_another_tracer_around_a_factory(exported: Exported, tflite_instrumentor) -> None:
    """The classmethods of LiteRT's compiled models go through another tracer's wrapper below ours too."""
    from real_models import digits_tflite_float

    module = pytest.importorskip(
        "ai_edge_litert.compiled_model", reason="LiteRT 1 has no compiled models", exc_type=ImportError
    )
    CompiledModel = module.CompiledModel  # noqa: N806  a class
    original = vars(CompiledModel)["from_file"]
    other = _Tracer(CompiledModel, "from_file")
    try:
        tflite_instrumentor.instrument(**exported.providers)
        CompiledModel.from_file(str(digits_tflite_float()))
        assert other.seen == [(CompiledModel, 1)]
        assert sum(p.count for p in exported.points_by_name()["quantmon.model.load.duration"]) == 1
        tflite_instrumentor.uninstrument()
    finally:
        CompiledModel.from_file = original


def test_a_stale_wrapper_attaches_nothing(exported: Exported, tflite_instrumentor) -> None:
    """A method of ours that somebody still holds after `uninstrument` passes through and marks no object."""
    from ai_edge_litert.interpreter import Interpreter, SignatureRunner
    from real_models import digits_tflite_float

    tflite_instrumentor.instrument(**exported.providers)
    stale_call, stale_invoke = SignatureRunner.__call__, Interpreter.invoke
    tflite_instrumentor.uninstrument()
    interpreter = Interpreter(model_path=str(digits_tflite_float()))
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    import numpy as np

    feeds = {name: np.zeros(d["shape"], d["dtype"]) for name, d in details.items()}
    stale_call(runner, **feeds)
    word = wake_word_interpreter()
    stale_invoke(word)
    assert all(PROBE not in vars(holder) for holder in (interpreter, runner, word))
    assert exported.calls() == 0


@pytest.mark.slow  # TensorFlow takes ten to forty seconds to import
def test_the_interpreter_of_tensorflow() -> None:
    """TensorFlow's own interpreter, imported after and before: counted, and put back exactly."""
    done = run(_TENSORFLOW)
    assert done.stdout == "right\n"


_TENSORFLOW = """
from exported import Exported
from lifecycle.models import is_ours
from otel_quantmon import TFLiteInstrumentor
from otel_quantmon.probe.fast_path import PROBE
from real_models import wake_word

exported, instrumentor = Exported(), TFLiteInstrumentor()
instrumentor.instrument(**exported.providers)
from tensorflow.lite.python import interpreter as module

def run(interpreter):
    interpreter.allocate_tensors()
    interpreter.invoke()

first = module.Interpreter(model_path=str(wake_word()))
run(first)
assert exported.calls() == 1
instrumentor.uninstrument()
pristine = [dict(vars(cls)) for cls in (module.Interpreter, module.SignatureRunner)]
assert not [n for members in pristine for n, m in members.items() if is_ours(m)]
run(first)
instrumentor.instrument(**exported.providers)
run(first)
assert exported.calls() == 2
instrumentor.uninstrument()
assert [dict(vars(cls)) for cls in (module.Interpreter, module.SignatureRunner)] == pristine
assert PROBE not in vars(first)
print("right")
"""


def test_instrument_from_many_threads_at_once(exported: Exported, instrumentor) -> None:
    """Each call counts once, and after `uninstrument` the class is as it was, however often threads race."""
    import onnxruntime

    base = onnxruntime.InferenceSession.__mro__[1]
    pristine = dict(vars(base))
    session = one_op_session()
    for number in range(1, 21):
        begin = threading.Barrier(4)

        def race(begin: threading.Barrier = begin) -> None:
            begin.wait()
            instrumentor.instrument(**exported.providers)

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session.run(None, X)
        assert exported.calls() == number
        instrumentor.uninstrument()
        assert dict(vars(base)) == pristine


def test_uninstrument_from_many_threads_at_once(exported: Exported, instrumentor) -> None:
    """Threads that switch it off at once, among others that switch it on, leave no patch behind once the last has
    switched it off, and no call is counted twice.
    """
    import onnxruntime

    base = onnxruntime.InferenceSession.__mro__[1]
    pristine = dict(vars(base))
    session = one_op_session()
    calls = 0
    for number in range(20):
        instrumentor.instrument(**exported.providers)
        begin = threading.Barrier(4)

        def race(on: bool, begin: threading.Barrier = begin) -> None:
            begin.wait()
            if on:
                instrumentor.instrument(**exported.providers)
            else:
                instrumentor.uninstrument()

        # In every other round all of them switch it off.
        threads = [threading.Thread(target=race, args=(number % 2 == 1 and i == 0,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session.run(None, X)
        calls += instrumentor.is_instrumented_by_opentelemetry
        assert exported.calls() == calls
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
        assert dict(vars(base)) == pristine


def test_a_method_is_like_its_original(exported: Exported, instrumentor) -> None:
    """Argument lists, and the errors of calls that do not fit them, are those of the runtime."""
    import onnxruntime

    def seen() -> list[object]:
        names = "run", "run_async", "run_with_iobinding", "__init__"
        methods = [getattr(onnxruntime.InferenceSession, name) for name in names]
        found: list[object] = [inspect.getfullargspec(method) for method in methods]
        for arguments in ((), (3, None, {})):
            with pytest.raises((TypeError, AttributeError)) as raised:
                onnxruntime.InferenceSession.run(*arguments)
            found.append((type(raised.value), str(raised.value)))
        return found

    bare = seen()
    instrumentor.instrument(**exported.providers)
    assert seen() == bare
