"""How models that come under one name are told apart, and what is set for which of them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from exported import Exported
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from runtimes.models import doubling, floats, model

from otel_quantmon.models.description import LoadedModel
from otel_quantmon.models.formats import read_digest
from otel_quantmon.models.identity import Model
from otel_quantmon.models.names import Names
from otel_quantmon.semconv import NAME_LIMIT, bounded
from otel_quantmon.settings import Settings

X = np.ones((2, 3), np.float32)


def tripling(name: str = "main_graph") -> bytes:
    """``y = x + x + x``, float32 (n, 3)."""
    nodes = [helper.make_node("Add", ["x", "x"], ["t"]), helper.make_node("Add", ["t", "x"], ["y"])]
    return model(nodes, inputs=[floats("x", "n", 3)], outputs=[floats("y", "n", 3)], name=name)


def placed(path: Path, content: bytes) -> Path:
    """``content`` in a file at ``path``, in new folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def loaded(source: Path | bytes, names: Names, settings: Settings | None = None, **given: Any) -> Model:
    """A model that ONNX Runtime has loaded from ``source``."""
    described = LoadedModel(
        runtime="onnxruntime",
        runtime_version="1",
        provider="cpu",
        source=source if isinstance(source, bytes) else str(source),
    )
    return Model(described, settings or Settings(), names, **given)


def tagged(name: str, source: Path | bytes) -> str:
    """``name`` with the first digits of the digest of ``source``."""
    return f"{name}@{read_digest(source).removeprefix('sha256:')[:8]}"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the project has warned of."""
    return [
        r.getMessage() for r in caplog.records if r.name == "otel_quantmon" and r.levelno >= logging.WARNING
    ]


# --- names --------------------------------------------------------------------------------------------------


def test_two_packages_with_one_file_name_are_two_models(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first keeps its name, the later ones get the beginning of their digest, and one warning names both."""
    names = Names()
    paths = [
        placed(tmp_path / package / "encoder" / "model.onnx", content)
        for package, content in (("a", doubling("main_graph")), ("b", tripling()), ("c", tripling()))
    ]
    models = [loaded(path, names) for path in paths]
    second = tagged("encoder/model", paths[1])
    assert [one.name for one in models] == ["encoder/model", second, second]
    assert [loaded(path, names).name for path in paths] == ["encoder/model", second, second]
    (warning,) = warnings(caplog)
    assert "'encoder/model'" in warning
    assert repr(second) in warning


def test_a_name_is_kept_without_reading_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file loaded many times, and files of different sizes compared with it, read nothing of the first."""
    names, read = Names(), []
    monkeypatch.setattr(Model, "read_digest", lambda self: read.append(self.path))
    path = placed(tmp_path / "a" / "cat.onnx", doubling())
    assert {loaded(path, names).name for _ in range(5)} == {"cat"}
    assert not read
    other = placed(tmp_path / "b" / "cat.onnx", tripling())
    assert loaded(other, names).name == tagged("cat", other)
    assert read == [str(other)]


def test_copies_of_one_file_are_one_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same bytes elsewhere, with another time, have the same name and no warning."""
    names = Names()
    first, second = (placed(tmp_path / folder / "cat.onnx", doubling()) for folder in "ab")
    os.utime(second, ns=(10**18, 10**18))
    assert [loaded(path, names).name for path in (first, second)] == ["cat", "cat"]
    assert not warnings(caplog)


def test_a_file_that_was_replaced_is_another_model_with_the_settings_of_its_name(tmp_path: Path) -> None:
    """Its series are new, since it is another model; what is set for the file's name goes on to hold for it."""
    names, settings = Names(), Settings(models={"cat": {"timeout": 0.5}})
    path = placed(tmp_path / "cat.onnx", doubling())
    before = loaded(path, names, settings)
    path.write_bytes(tripling())
    after = loaded(path, names, settings)
    assert (before.name, after.name) == ("cat", tagged("cat", path))
    assert after.settings.timeout == 0.5
    # Another file of that name is not the one that was meant.
    other = loaded(placed(tmp_path / "b" / "cat.onnx", doubling("other")), names, settings)
    assert other.settings.timeout is None


def test_buffers_of_one_graph_name_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    """Buffers too, also when the first has gone before its digest was read."""
    names = Names()
    contents = [doubling("net_x"), tripling("net_x")]
    assert [loaded(content, names).name for content in contents] == ["net_x", tagged("net_x", contents[1])]
    assert [loaded(content, names).name for content in contents] == ["net_x", tagged("net_x", contents[1])]
    assert len(warnings(caplog)) == 1


def test_large_buffers_that_differ_in_the_middle_are_told_apart() -> None:
    """The ends alone do not tell: the digests do."""
    names = Names()
    weights = np.zeros((300, 300), np.float32)
    contents: list[bytes] = []
    for value in (1.0, 2.0):
        weights[150, 150] = value
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        sides = [floats("x", 1, 300)], [floats("y", 1, 300)]
        contents.append(
            model([node], inputs=sides[0], outputs=sides[1], name="wide", constants={"w": weights})
        )
    models = [loaded(content, names) for content in contents]
    assert [one.name for one in models] == ["wide", tagged("wide", contents[1])]


def test_models_too_large_to_be_read_at_once_are_told_apart_by_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past a limit nothing is read on the loading thread: the digits are those of the path."""
    monkeypatch.setattr("otel_quantmon.models.names._LARGEST_COMPARED", 10)
    monkeypatch.setattr(Model, "read_digest", lambda _: pytest.fail("read"))
    names = Names()
    first, second = (placed(tmp_path / folder / "cat.onnx", doubling()) for folder in "ab")
    digits = hashlib.sha256(str(second).encode()).hexdigest()[:8]
    assert [loaded(path, names).name for path in (first, second, first)] == ["cat", f"cat@{digits}", "cat"]


def test_a_model_that_could_not_be_loaded_takes_no_name(tmp_path: Path) -> None:
    """A broken file that is mended afterwards has the name that it always had."""
    names = Names()
    path = placed(tmp_path / "cat.onnx", b"broken")
    assert loaded(path, names, failed=True).name == "cat"
    path.write_bytes(doubling())
    assert loaded(path, names).name == "cat"


@pytest.mark.parametrize(
    "graph",
    [
        "model",
        "torch_jit",
        "main_graph",
        "ONNX(Pipeline)",
        "Graph_0",
        "f" * 32,
        "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
    ],
)
def test_the_folder_comes_before_a_name_that_a_converter_gave(graph: str, tmp_path: Path) -> None:
    """What every export is called tells less than the folder."""
    assert loaded(placed(tmp_path / "ranker" / "model.onnx", doubling(graph)), Names()).name == "ranker/model"


def test_a_name_that_somebody_gave_comes_before_the_folder(tmp_path: Path) -> None:
    """A graph that was named keeps its name."""
    assert loaded(placed(tmp_path / "x" / "model.onnx", doubling("ranker-v2")), Names()).name == "ranker-v2"


@given(st.text(max_size=400))
def test_names_are_printable_and_short(name: str) -> None:
    """Whatever a file says, a name fits telemetry, and one that fits is left as it is."""
    shown = bounded(name)
    assert len(shown) <= NAME_LIMIT
    assert shown.isprintable()
    shown.encode()
    if len(name) <= NAME_LIMIT and name.isprintable():
        assert shown == name


# --- settings -----------------------------------------------------------------------------------------------


def test_sections_match_by_name_by_path_and_by_digest(tmp_path: Path) -> None:
    """From the least specific to the most: globs of names and paths, the name, the path, the digest."""
    paths = [
        placed(tmp_path / package / "encoder" / "model.onnx", content)
        for package, content in (("a", doubling("main_graph")), ("b", tripling()))
    ]
    digest = read_digest(paths[1])
    settings = Settings(
        models={
            digest[:20]: {"warmup": 5},
            f"{tmp_path}/*": {"warmup": 1, "window_size": 1, "baseline_calls": 1},
            "encoder/model": {"window_size": 2, "baseline_calls": 2},
            str(paths[0]): {"baseline_calls": 3},
            "*/nowhere/*": {"warmup": 9},
        },
        reference={"*/b/encoder/*": "b.onnx", str(paths[0]): "a.onnx"},
    )
    names = Names()
    first, second = (loaded(path, names, settings).settings for path in paths)
    assert (first.warmup, first.window_size, first.baseline_calls, first.reference) == (1, 2, 3, "a.onnx")
    assert (second.warmup, second.window_size, second.baseline_calls, second.reference) == (5, 1, 1, "b.onnx")


def test_a_section_for_a_path_tells_models_apart_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who names both has nothing to be warned of."""
    paths = [
        placed(tmp_path / package / "model.onnx", content)
        for package, content in (("a/x", doubling("main_graph")), ("b/x", tripling()))
    ]
    settings = Settings(models={"*/a/x/*": {"name": "a"}, "*/b/x/*": {"name": "b"}})
    names = Names()
    assert [loaded(path, names, settings).name for path in paths] == ["a", "b"]
    assert not warnings(caplog)


def test_a_name_that_a_section_gives_to_two_models_is_theirs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who gives one name to models that come under ever new ones gets it, with one warning of what they share."""
    names, settings = Names(), Settings(models={"*": {"name": "net"}})
    for number in range(3):
        content = tripling("x" * number)
        assert loaded(placed(tmp_path / f"cat{number}.onnx", content), names, settings).name == "net"
    (warning,) = warnings(caplog)
    assert "different content" in warning


# --- in telemetry -------------------------------------------------------------------------------------------


def test_models_of_one_file_name_share_no_series(
    tmp_path: Path, instrument: Callable[..., None], exported: Exported
) -> None:
    """Counts of two packages' models are apart, and their digests go with their names."""
    paths = [
        placed(tmp_path / package / "encoder" / "model.onnx", content)
        for package, content in (("a", doubling("main_graph")), ("b", tripling()))
    ]
    instrument(baseline_calls=1_000_000)
    sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in paths]
    for calls, session in enumerate(sessions, start=1):
        for _ in range(calls):
            session.run(None, {"x": X})
    second = tagged("encoder/model", paths[1])
    assert (exported.count(model_name="encoder/model"), exported.count(model_name=second)) == (1, 2)
    infos = {
        point.attributes["quantmon.model.name"]: point.attributes["quantmon.model.digest"]
        for point in exported.points("quantmon.model.info")
    }
    assert infos == {"encoder/model": read_digest(paths[0]), second: read_digest(paths[1])}


def test_a_huge_name_stays_small_in_every_signal(instrument: Callable[..., None], exported: Exported) -> None:
    """Names of the graph, its input and its output, 100,000 characters with controls, are cut wherever they go."""
    huge = "\x1b[31m" + "n" * 100_000
    node = helper.make_node("Add", [huge + "x", huge + "x"], [huge + "y"])
    content = model(
        [node], inputs=[floats(huge + "x", "n", 3)], outputs=[floats(huge + "y", "n", 3)], name="\x07" + huge
    )
    proto = onnx.load_model_from_string(content)
    helper.set_model_props(proto, {"version": "v\n" + "1" * 4000})
    instrument(check_budget=1.0)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, {huge + "x": X})
    (span, *_) = exported.raw_spans()
    assert len(span.name) <= NAME_LIMIT + len("inference ")
    points = [
        point.attributes for metric in exported.raw_metrics().values() for point in metric.data.data_points
    ]
    for attributes in (span.attributes, *points):
        for value in (attributes or {}).values():
            for text in value if isinstance(value, tuple) else (value,):
                assert len(str(text)) <= NAME_LIMIT + len(":?x3")
                assert str(text).isprintable()
    assert (span.attributes or {})["quantmon.batch.size"] == 2
