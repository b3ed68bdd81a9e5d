"""A call whose shapes were met before costs a look at them, and tells all that it told without."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from onnx import TensorProto, helper

from otel_quantmon.models.description import LoadedModel
from otel_quantmon.process.worker import worker
from otel_quantmon.runtimes.onnxruntime.reading import kinds_of_run
from otel_quantmon.telemetry.span_mould import Mould
from runtimes import models

BATCHES = (1, 8, 1, 3, 8, 8)


def adding() -> bytes:
    """``z = x + y``, float32 (n, 3)."""
    node = helper.make_node("Add", ["x", "y"], ["z"])
    inputs = [models.floats("x", "n", 3), models.floats("y", "n", 3)]
    return models.model([node], inputs=inputs, outputs=[models.floats("z", "n", 3)], name="adding")


def not_zero() -> bytes:
    """``y`` holds where ``x`` is not zero, int64 (1, m): its size does not follow from that of ``x``, float32 (n,)."""
    node = helper.make_node("NonZero", ["x"], ["y"])
    found = helper.make_tensor_value_info("y", TensorProto.INT64, [1, "m"])
    return models.model([node], inputs=[models.floats("x", "n")], outputs=[found], name="not_zero")


def upper_case() -> bytes:
    """A model of texts, whose arrays have no size that follows from their shape."""
    text = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    return models.model([node], inputs=text[:1], outputs=text[1:], name="upper_case")


MODELS: dict[str, Callable[[], bytes]] = {
    "one_input": models.doubling,
    "three_outputs": models.three_outputs,
    "two_inputs": adding,
    "fixed": models.two_outputs,
    "outputs_of_their_own": not_zero,
}


def feeds_of(session: Any, batch: int) -> dict[str, Any]:
    shapes = {
        given.name: [batch if isinstance(d, str) else d for d in given.shape]
        for given in session.get_inputs()
    }
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def described(make: Callable[[], bytes], instrument: Any) -> LoadedModel:
    """The model as the instrumentation describes it."""
    instrument()
    session = onnxruntime.InferenceSession(make(), providers=["CPUExecutionProvider"])
    return session._quantmon_probe.model.loaded


@pytest.mark.parametrize("model", MODELS)
def test_spans_and_sizes_are_those_of_the_long_way(model: str, exported: Exported, instrument) -> None:
    """For one input and several, one output and several, fixed shapes and others: names, shapes, batch sizes, bytes."""
    instrument(spans="parent")
    session = onnxruntime.InferenceSession(MODELS[model](), providers=["CPUExecutionProvider"])
    worker.flush(10)

    def run() -> None:
        with exported.tracer.start_as_current_span("request"):
            for batch in BATCHES:
                session.run(None, feeds_of(session, batch))

    run()
    (state,) = session._quantmon_probe.states.values()
    assert state.kind_of is not None
    state.kind_of = None
    run()
    spans = [(span.name, dict(span.attributes or {})) for span in exported.raw_spans()]
    moved = [io or state.io for _, _, io, _ in state.records]
    assert len(spans) == len(moved) == 2 * len(BATCHES)
    assert spans[: len(BATCHES)] == spans[len(BATCHES) :]
    assert moved[: len(BATCHES)] == moved[len(BATCHES) :]
    assert {"quantmon.input.shapes", "quantmon.output.shapes"} <= set(spans[0][1])


def test_a_kind_is_found_again(instrument) -> None:
    """Calls of the same shapes are of one kind, others of another."""
    kinds = kinds_of_run(described(models.doubling, instrument))
    assert kinds is not None
    x = {n: np.ones((n, 3), np.float32) for n in (1, 2)}
    one, again, other = (kinds.of(None, {"x": x[n]}, [x[n]]) for n in (1, 1, 2))
    assert one is not None
    assert one is again
    assert other is not one
    assert (one.io.batch, one.io.input_bytes, one.io.output_bytes) == (1, 12, 12)
    assert one.shapes == (("x:1x3",), ("y:1x3",))


def test_a_known_shape_is_found_without_a_call(exported: Exported, instrument) -> None:
    """Only new shapes, lists and chosen outputs are asked about; sizes are counted all the same."""
    instrument(spans="none", warmup=0)
    session = onnxruntime.InferenceSession(models.doubling(), providers=["CPUExecutionProvider"])
    x = {n: np.ones((n, 3), np.float32) for n in (1, 2)}
    # The first two are sampled, a pair of calls in a row.
    for _ in range(3):
        session.run(None, {"x": x[1]})
    (state,) = session._quantmon_probe.states.values()
    kind_of = state.kind_of
    asked: list[Any] = []

    def asking(output_names: Any, feeds: Any, result: Any) -> Any:
        asked.append((output_names, feeds["x"]))
        return kind_of(output_names, feeds, result)

    state.kind_of = asking
    session.run(None, {"x": x[1]})
    assert asked == []
    session.run(None, {"x": x[2]})
    session.run(None, {"x": x[2]})
    session.run([], {"x": [[1.0, 2.0, 3.0]]})
    session.run(["y"], {"x": x[1]})
    assert asked == [(None, x[2]), ([], [[1.0, 2.0, 3.0]]), (["y"], x[1])]
    assert exported.point("quantmon.memory.allocated").value == 6 * 12 + 2 * 24
    assert exported.point("quantmon.inference.batch_size").sum == 6 * 1 + 2 * 2


def test_outputs_are_looked_at_unless_they_follow(instrument) -> None:
    """As many elements as are not zero are of another kind than fewer, with an input of the same shape."""
    kinds = kinds_of_run(described(not_zero, instrument))
    assert kinds is not None
    x = np.ones(4, np.float32)
    few, many = (kinds.of(None, {"x": x}, [np.zeros((1, n), np.int64)]) for n in (1, 4))
    assert few is not None
    assert many is not None
    assert (few.io.output_bytes, many.io.output_bytes) == (8, 32)


def test_few_kinds_are_remembered(instrument) -> None:
    """Sizes come from the application, and may never come again."""
    kinds = kinds_of_run(described(models.doubling, instrument))
    assert kinds is not None
    x = [np.ones((n, 3), np.float32) for n in range(100)]
    first = kinds.of(None, {"x": x[0]}, [x[0]])
    assert first is kinds.of(None, {"x": x[0]}, [x[0]])
    for other in x[1:]:
        assert kinds.of(None, {"x": other}, [other]) is not None
    assert first is not kinds.of(None, {"x": x[0]}, [x[0]])


@pytest.mark.parametrize(
    ("output_names", "feeds"),
    [
        (["y"], {"x": np.ones((1, 3), np.float32)}),
        (None, {"x": [[1.0, 2.0, 3.0]]}),
        (None, {"other": np.ones((1, 3), np.float32)}),
        (None, None),
    ],
    ids=["chosen_outputs", "a_list", "another_name", "no_feeds"],
)
def test_what_is_not_plain_has_no_kind(output_names: Any, feeds: Any, instrument) -> None:
    """Outputs that were chosen, and inputs that are no arrays, are looked at anew at each call."""
    kinds = kinds_of_run(described(models.doubling, instrument))
    assert kinds is not None
    assert kinds.of(output_names, feeds, [np.ones((1, 3), np.float32)]) is None


def test_no_value_is_kept_alive(instrument) -> None:
    """An `OrtValue` has its shape in a method, which holds it: such a shape is not remembered."""
    kinds = kinds_of_run(described(models.doubling, instrument))
    assert kinds is not None

    class Value:
        def shape(self) -> list[int]:
            return [1, 3]

    value = Value()
    gone = weakref.ref(value)
    assert kinds.of(None, {"x": value}, [np.ones((1, 3), np.float32)]) is None
    del value
    gc.collect()
    assert gone() is None


def test_texts_have_no_kind(instrument) -> None:
    """Their arrays have elements of any size."""
    assert kinds_of_run(described(upper_case, instrument)) is None


@pytest.mark.parametrize("outputs_by", ["position", "keyword"])
def test_calls_without_a_kind_share_templates_of_their_spans(
    outputs_by: str, exported: Exported, instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With chosen outputs, or feeds by keyword, spans of known shapes are copies of one: a mould for each shape, not
    for each call, and for no more than 64 shapes.
    """
    moulds: list[Any] = []
    monkeypatch.setattr(Mould, "__init__", noting(Mould.__init__, moulds))
    instrument(spans="all")
    session = onnxruntime.InferenceSession(models.doubling(), providers=["CPUExecutionProvider"])

    def run(batch: int) -> None:
        x = np.ones((batch, 3), np.float32)
        if outputs_by == "position":
            session.run(["y"], {"x": x})
        else:
            session.run(None, input_feed={"x": x})

    # The digest and the proof of the short way are found in the background.
    for _ in range(2):
        run(2)
        worker.flush(60)
    moulds.clear()
    for batch in BATCHES * 3:
        run(batch)
    assert len(moulds) == len(set(BATCHES))
    for batch in range(100, 200):
        run(batch)
        run(batch)
    assert len(moulds) == 64 - 1
    spans = [dict(span.attributes or {}) for span in exported.raw_spans()][2:]
    assert [span["quantmon.batch.size"] for span in spans[: len(BATCHES)]] == list(BATCHES)
    assert [span["quantmon.output.shapes"] for span in spans[-2:]] == [("y:199x3",)] * 2


def noting(original: Callable[..., None], calls: list[Any]) -> Callable[..., None]:
    """``original``, with its calls noted."""

    def noted(*args: Any) -> None:
        calls.append(args)
        original(*args)

    return noted
