"""Which ONNX Runtime sessions are observed, under what name and settings, and what of it `uninstrument` leaves."""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import real_models
from exported import Exported
from onnxruntime.capi import onnxruntime_inference_collection as collection
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_quantmon import ONNXRuntimeInstrumentor, Settings

from .models import doubling

Instrument = Callable[..., None]

# As an application's module has it that was imported before anything was instrumented.
EARLY = onnxruntime.InferenceSession
X = {"x": np.ones((2, 3), np.float32)}


def session_of(model: Any, cls: type = onnxruntime.InferenceSession) -> Any:
    return cls(model, providers=["CPUExecutionProvider"])


class CountingSession(onnxruntime.InferenceSession):
    """An application's own session class."""

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        return super().run(output_names, input_feed, run_options)


def test_a_subclass_that_calls_super_counts_once(exported: Exported, instrument: Instrument) -> None:
    """One call of the subclass's `run`, one span, one count; one load."""
    instrument()
    session_of(doubling(), CountingSession).run(None, X)
    assert exported.count() == 1
    assert len(exported.raw_spans()) == 1
    assert exported.point("quantmon.model.load.duration").count == 1


def test_a_session_made_before_instrumenting_is_seen(exported: Exported, instrument: Instrument) -> None:
    """Its identity is read at its first call; only how it was loaded stays unknown."""
    session = session_of(doubling())
    instrument()
    session.run(None, X)
    exported.raw_metrics()
    session.run(None, X)
    assert exported.count(model_name="doubling") == 2
    digest = (exported.raw_spans()[1].attributes or {})["quantmon.model.digest"]
    assert digest == f"sha256:{hashlib.sha256(doubling()).hexdigest()}"
    assert exported.points("quantmon.model.load.duration") == []
    assert exported.points("quantmon.memory.usage", memory_type="load_rss") == []


def test_a_class_imported_early_is_patched_too(exported: Exported, instrument: Instrument) -> None:
    """The class is changed where it is, so that ``from onnxruntime import InferenceSession`` may come first."""
    instrument()
    session_of(doubling(), EARLY).run(None, X)
    assert exported.count() == 1


@pytest.mark.parametrize("given", [str, Path, Path.read_bytes], ids=["str", "path", "bytes"])
def test_the_digest_and_size_are_those_of_the_file(
    given: Callable[[Path], Any], tmp_path: Path, exported: Exported, instrument: Instrument
) -> None:
    """From a path and from bytes; whether the quantized facts are right is for the tests of the formats."""
    path = tmp_path / "classifier.onnx"
    path.write_bytes(real_models.magika_qdq().read_bytes())
    instrument()
    session = session_of(given(path))
    info = exported.point("quantmon.model.info")
    assert (
        info.attributes["quantmon.model.digest"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    )
    assert info.attributes["quantmon.quantization.scheme"] == "qdq"
    assert info.attributes["quantmon.quantization.weight_type"] == "int8"
    assert info.attributes["quantmon.quantization.activation_type"] == "uint8"
    size = exported.point("quantmon.memory.usage", memory_type="model_file").value
    assert size == path.stat().st_size
    del session


@pytest.mark.parametrize(
    ("path", "graph", "name"),
    [
        ("wake-word.onnx", "torch-jit", "wake-word"),
        ("detector/model.onnx", "door_camera", "door_camera"),
        ("detector/model_quantized.onnx", "main_graph", "detector/model_quantized"),
        ("detector/model.onnx", "torch_jit", "detector/model"),
    ],
)
def test_a_model_is_named_after_its_file_unless_that_says_nothing(
    path: str, graph: str, name: str, tmp_path: Path, exported: Exported, instrument: Instrument
) -> None:
    """A generic file name gives way to the graph's own name, and where an exporter chose that, to the folder's."""
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(doubling(graph))
    instrument()
    session_of(str(file)).run(None, X)
    assert exported.count(model_name=name) == 1
    assert exported.raw_spans()[0].name == f"inference {name}"
    assert str(tmp_path) not in exported.spans()


def test_bytes_with_a_generic_graph_name_are_named_after_their_digest(
    exported: Exported, instrument: Instrument
) -> None:
    """Two unnamed buffers stay two models."""
    content = doubling("main_graph")
    instrument()
    session_of(content).run(None, X)
    assert exported.count(model_name=f"unnamed-{hashlib.sha256(content).hexdigest()[:8]}") == 1


def test_the_full_path_is_on_the_span_only_when_asked_for(
    tmp_path: Path, exported: Exported, instrument: Instrument
) -> None:
    """``capture_model_path`` adds it, to spans alone."""
    path = tmp_path / "net.onnx"
    path.write_bytes(doubling())
    instrument(capture_model_path=True)
    session_of(str(path)).run(None, X)
    assert (exported.raw_spans()[0].attributes or {})["quantmon.model.path"] == str(path)
    assert str(path) not in exported.metrics()


def test_a_load_that_fails_reaches_the_application_and_the_histogram(
    tmp_path: Path, exported: Exported, instrument: Instrument
) -> None:
    """The runtime's own exception; its class in ``error.type``; nothing else is exported of a model that is none."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    instrument()
    with pytest.raises(Exception, match=r"INVALID_PROTOBUF|Protobuf parsing failed") as raised:
        session_of(str(path))
    kind = type(raised.value)
    point = exported.point(
        "quantmon.model.load.duration", error_type=f"{kind.__module__}.{kind.__qualname__}"
    )
    assert (point.count, point.attributes["quantmon.model.name"]) == (1, "broken")
    assert exported.points("quantmon.model.info") == []


def test_models_past_the_limit_share_a_name(exported: Exported, instrument: Instrument) -> None:
    """Every series stays bounded, model info among them, and no call is lost; spans tell the models apart."""
    instrument(max_models=2)
    sessions = [session_of(doubling(f"net{i}")) for i in range(5)]
    for session in sessions:
        session.run(None, X)
    assert [exported.count(model_name=name) for name in ("net0", "net1", "other")] == [1, 1, 3]
    assert len(exported.points("quantmon.model.info")) == 3
    spans = exported.raw_spans()
    assert [span.name for span in spans] == [f"inference net{i}" for i in range(5)]
    assert [(span.attributes or {})["quantmon.model.name"] for span in spans] == [f"net{i}" for i in range(5)]


def test_settings_of_a_model(exported: Exported, instrument: Instrument) -> None:
    """One is switched off and leaves no trace, one is renamed and given a version, one goes by its glob."""
    models = {
        "private": {"enabled": False},
        "eyes": {"name": "front-camera", "version": "7"},
        "ear*": {"spans": "none"},
    }
    instrument(models=models)
    sessions = [session_of(doubling(name)) for name in ("private", "eyes", "ears")]
    for session in sessions:
        session.run(None, X)
    assert "private" not in exported.metrics()
    assert exported.count(model_name="front-camera") == 1
    assert exported.count(model_name="ears") == 1
    assert [span.name for span in exported.raw_spans()] == ["inference front-camera"]
    info = exported.point("quantmon.model.info", model_name="front-camera")
    assert info.attributes["quantmon.model.version"] == "7"
    assert exported.count() == 2


def test_two_sessions_of_one_model_share_its_series(exported: Exported, instrument: Instrument) -> None:
    """Counts add up; so do sizes of what each of them holds; the model's info is given once."""
    instrument()
    sessions = [session_of(doubling()) for _ in range(2)]
    for session in sessions:
        session.run(None, X)
    assert exported.point("quantmon.inference.duration").count == 2
    size = exported.point("quantmon.memory.usage", memory_type="model_file").value
    assert size == 2 * len(doubling())
    assert exported.point("quantmon.model.info").value == 1


def test_suppressed_calls_and_loads_are_not_observed(exported: Exported, instrument: Instrument) -> None:
    """Neither a span nor a count; afterwards the same session is observed."""
    instrument()
    with suppress_instrumentation():
        session = session_of(doubling())
        session.run(None, X)
    assert exported.raw_metrics().keys() <= {"quantmon.overhead.duration"}
    session.run(None, X)
    with suppress_instrumentation():
        session.run(None, X)
    assert exported.count() == 1
    assert len(exported.raw_spans()) == 1


def test_a_dropped_session_is_collected_and_its_series_end(
    exported: Exported, instrument: Instrument
) -> None:
    """Nothing keeps the session alive; gauges go with it, and what was counted stays."""
    instrument()
    session = session_of(doubling())
    session.run(None, X)
    assert exported.points("quantmon.inference.active") != []
    reference = weakref.ref(session)
    del session
    gc.collect()
    assert reference() is None
    assert exported.count() == 1
    gc.collect()
    for gauge in ("quantmon.inference.active", "quantmon.model.info", "quantmon.memory.usage"):
        assert exported.points(gauge) == []
    exported.raw_metrics()
    assert exported.points("quantmon.inference.window.duration") == []


def test_uninstrument_leaves_nothing(exported: Exported, instrument: Instrument) -> None:
    """Both classes have exactly what they had, the session has no attribute more, and calls are not counted."""
    before = {cls: dict(vars(cls)) for cls in (collection.Session, collection.InferenceSession)}
    instrument()
    session = session_of(doubling())
    attributes = set(vars(session)) - {"_quantmon_probe"}
    session.run(None, X)
    assert exported.count() == 1
    ONNXRuntimeInstrumentor().uninstrument()
    session.run(None, X)
    assert exported.count() == 1
    assert set(vars(session)) == attributes
    for cls, members in before.items():
        assert {name: vars(cls)[name] for name in members} == members
        assert vars(cls).keys() == members.keys()


def test_instrumenting_again_counts_each_call_once(exported: Exported, instrument: Instrument) -> None:
    """On, off and on again for the same providers: the same instruments go on, with the new settings."""
    instrument()
    session = session_of(doubling())
    session.run(None, X)
    ONNXRuntimeInstrumentor().uninstrument()
    ONNXRuntimeInstrumentor().instrument(**exported.providers, settings=Settings(spans="parent"))
    session.run(None, X)
    assert exported.count() == 2
    assert len(exported.raw_spans()) == 1
