"""Which reference a model has, and what becomes of one that cannot be used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import real_models
from ai_edge_litert.interpreter import Interpreter
from exported import Exported
from onnx import helper
from runtimes.models import doubling, floats, model

from otel_quantmon import Settings
from otel_quantmon.fidelity.shadow import reference_of
from otel_quantmon.models.description import LoadedModel
from otel_quantmon.models.identity import Model
from otel_quantmon.settings import load_settings

from .waiting import by_output, evaluate, outcomes, settle, warnings

Instrument = Callable[..., None]

X = np.ones((2, 3), np.float32)


def found(path: Path, settings: Settings | None = None, *, discover: bool = False) -> str | None:
    """The reference of the model in the file ``path``."""
    loaded = LoadedModel(runtime="onnxruntime", runtime_version="1", provider="cpu", source=str(path))
    return reference_of(Model(loaded, settings or Settings()), discover=discover)


def quantized(folder: Path, name: str = "cat_int8.onnx", **metadata: str) -> Path:
    """A model in a file of this name, with metadata of its own."""
    proto = onnx.load_model_from_string(doubling())
    helper.set_model_props(proto, metadata)
    onnx.save(proto, str(folder / name))
    return folder / name


def test_the_environment_names_references_by_model_and_by_glob(tmp_path: Path) -> None:
    """``QUANTMON_REFERENCE`` gives a model its own path, others that of a glob, and the rest none."""
    settings = load_settings({"QUANTMON_REFERENCE": "cat_int8=/models/cat.onnx,cam_*=/models/cam.onnx"})
    names = ("cat_int8.onnx", "cam_7.onnx", "other.onnx")
    references = [found(quantized(tmp_path, name), settings) for name in names]
    assert references == ["/models/cat.onnx", "/models/cam.onnx", None]


def test_a_section_wins_over_the_environment_and_the_environment_over_the_model(tmp_path: Path) -> None:
    """The more specific place holds: a section in the file, then the environment, then the model's metadata."""
    path = quantized(tmp_path, **{"quantmon.reference": "own.onnx"})
    config = tmp_path / "quantmon.toml"
    config.write_text('[models."cat_*"]\nreference = "section.onnx"\n')
    environment = {"QUANTMON_REFERENCE": "*=/models/environment.onnx"}
    assert found(path, load_settings({**environment, "QUANTMON_CONFIG": str(config)})) == str(
        tmp_path / "section.onnx"
    )
    assert found(path, load_settings(environment)) == "/models/environment.onnx"
    assert found(path) == str(tmp_path / "own.onnx")


@pytest.mark.parametrize(
    "named",
    [
        "/etc/passwd",
        "../secret.onnx",
        "..",
        ".",
        "sub/float.onnx",
        "sub\\float.onnx",
        "C:float.onnx",
        "link.onnx",
        "a\x00b",
    ],
)
def test_metadata_names_no_file_but_one_beside_the_model(named: str, tmp_path: Path, caplog: Any) -> None:
    """A model comes from outside: one that names any other place has no reference, and one warning says so."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "secret.onnx", folder / "sub" / "float.onnx"):
        place.write_bytes(doubling())
    (folder / "link.onnx").symlink_to(tmp_path / "secret.onnx")
    assert found(quantized(folder, **{"quantmon.reference": named})) is None
    (warning,) = warnings(caplog)
    assert "no file beside it" in warning
    assert str(tmp_path) not in warning


def test_metadata_that_is_not_followed_is_not_repeated_at_length(tmp_path: Path, caplog: Any) -> None:
    """The warning shows the beginning of what the model says."""
    assert found(quantized(tmp_path, **{"quantmon.reference": "../" + "x" * 4000})) is None
    (warning,) = warnings(caplog)
    assert len(warning) < 250


def test_metadata_is_followed_in_a_cache_of_links(tmp_path: Path) -> None:
    """Where all files of a folder are links into one other folder, a neighbour is one all the same."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    blob = quantized(blobs, "1234", **{"quantmon.reference": "float.onnx"})
    (blobs / "5678").write_bytes(doubling())
    for link, target in (("cat.onnx", blob), ("float.onnx", blobs / "5678")):
        (snapshot / link).symlink_to(target)
    assert found(snapshot / "cat.onnx") == str(snapshot / "float.onnx")


def test_models_of_one_file_name_have_references_of_their_own(
    tmp_path: Path, instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """Two packages' ``encoder/model.onnx``, each held against its own float model: no error of one is the other's."""
    packages: list[Path] = []
    for package, op in (("a", "Add"), ("b", "Mul")):
        folder = tmp_path / package / "encoder"
        folder.mkdir(parents=True)
        content = model(
            [helper.make_node(op, ["x", "x"], ["y"])],
            inputs=[floats("x", "n", 3)],
            outputs=[floats("y", "n", 3)],
            name="main_graph",
        )
        (folder / "model.onnx").write_bytes(content)
        (folder / "float.onnx").write_bytes(content)
        packages.append(folder)
    references = {
        f"*/{package}/encoder/*": str(tmp_path / package / "encoder/float.onnx") for package in "ab"
    }
    instrument(reference=references, reference_budget=1.0)
    sessions = [
        onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        for folder in packages
    ]
    x = np.full((2, 3), 5, np.float32)

    def run_both() -> None:
        for session in sessions:
            session.run(None, {"x": x})

    evaluate(exported, run_both, 4)
    errors = {
        point.attributes["quantmon.model.name"]: point.value
        for point in exported.points("quantmon.output.relative_error", statistic="last")
    }
    assert len(errors) == 2
    assert set(errors.values()) == {0.0}
    (warning,) = warnings(caplog)
    assert all(repr(name) in warning for name in errors)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("model_quantized.onnx", "model.onnx"),
        ("model_int8.onnx", "model.onnx"),
        ("model.int8.onnx", "model.onnx"),
        ("model-static-qdq.onnx", "model.onnx"),
        ("model.quant.tflite", "model.tflite"),
        ("model_int8.onnx", "model_float.onnx"),
    ],
)
def test_a_neighbour_is_taken_by_its_name_only_when_asked_to(
    name: str, reference: str, tmp_path: Path
) -> None:
    """Naming conventions lead to the float file beside the model with ``reference_discovery``, and not without."""
    path = quantized(tmp_path, name)
    quantized(tmp_path, reference)
    assert found(path) is None
    assert found(path, discover=True) == str(tmp_path / reference)


def test_a_model_is_not_its_own_reference(tmp_path: Path) -> None:
    """Discovery gives nothing for the float model itself, nor where there is no neighbour."""
    assert found(quantized(tmp_path, "model.onnx"), discover=True) is None
    assert found(quantized(tmp_path, "lonely_int8.onnx"), discover=True) is None


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "other shape"])
def test_a_reference_that_cannot_be_used_is_said_once_and_does_no_harm(
    damage: str, tmp_path: Path, instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """One warning, one failed evaluation; the application's results and its metrics are what they were."""
    path = tmp_path / "reference.onnx"
    if damage == "empty":
        path.touch()
    elif damage == "truncated":
        path.write_bytes(real_models.magika_float().read_bytes()[:100_000])
    elif damage == "text":
        path.write_text("not a model")
    elif damage == "other shape":
        node = helper.make_node("Add", ["x", "x"], ["y"])
        wide = model([node], inputs=[floats("x", "n", 7)], outputs=[floats("y", "n", 7)], name="wide")
        path.write_bytes(wide)
    instrument(reference={"doubling": str(path)})
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    for _ in range(3):
        assert np.array_equal(session.run(None, {"x": X})[0], X + X)
        settle()
    assert outcomes(exported) == {"failed": 1}
    assert exported.count() == 3
    (warning,) = warnings(caplog)
    assert "doubling" in warning
    assert str(path) in warning


def test_outputs_that_do_not_fit_are_counted_and_said_once(
    tmp_path: Path, instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """A reference that runs but has other outputs gives no error, an outcome of its own, and one warning."""
    node = helper.make_node("Transpose", ["x"], ["y"])
    turned = model([node], inputs=[floats("x", 2, 3)], outputs=[floats("y", 3, 2)], name="turned")
    path = tmp_path / "turned.onnx"
    path.write_bytes(turned)
    instrument(reference={"*": str(path)}, reference_budget=1.0)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    evaluate(exported, lambda: session.run(None, {"x": X}), 3)
    assert outcomes(exported) == {"incomparable": 3}
    assert not by_output(exported, "quantmon.output.relative_error")
    (warning,) = warnings(caplog)
    assert "'y'" in warning


def test_other_names_are_mapped(tmp_path: Path, instrument: Instrument, exported: Exported) -> None:
    """With ``reference_mapping`` inputs and outputs of one shape find their own, whatever their order and name."""
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Sub", ["a", "b"], ["d"])]
    sides = [floats(name, 3) for name in "absd"]
    small = model(nodes, inputs=sides[:2], outputs=sides[2:], name="small")
    nodes = [
        helper.make_node("Sub", ["left", "right"], ["difference"]),
        helper.make_node("Add", ["left", "right"], ["sum"]),
    ]
    inputs, outputs = [floats("right", 3), floats("left", 3)], [floats("difference", 3), floats("sum", 3)]
    path = tmp_path / "large.onnx"
    path.write_bytes(model(nodes, inputs=inputs, outputs=outputs, name="large"))
    mapping = {"a": "left", "b": "right", "s": "sum", "d": "difference"}
    instrument(models={"small": {"reference": str(path), "reference_mapping": mapping}})
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    feeds = {"a": np.full(3, 5, np.float32), "b": np.ones(3, np.float32)}
    evaluate(exported, lambda: session.run(None, feeds))
    assert by_output(exported, "quantmon.output.relative_error", "last") == {"s": 0.0, "d": 0.0}


def test_a_model_with_state_inside_is_refused_with_one_warning(
    instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """A streaming wake word is not sampled for its reference, says so once for all its interpreters, and runs on."""
    path = real_models.wake_word()

    def stream() -> list[int]:
        interpreter = Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
        (read,), (written,) = interpreter.get_input_details(), interpreter.get_output_details()
        random = np.random.default_rng(3)
        heard: list[int] = []
        for _ in range(20):
            interpreter.set_tensor(
                read["index"], random.integers(-128, 127, read["shape"], np.int8, endpoint=True)
            )
            interpreter.invoke()
            heard.append(int(interpreter.get_tensor(written["index"])[0, 0]))
        return heard

    expected = stream()
    instrument(reference={"hey_jarvis": str(path)})
    assert [stream(), stream()] == [expected, expected]
    settle()
    assert exported.count() == 40
    assert not outcomes(exported)
    (warning,) = warnings(caplog)
    assert "keeps state" in warning


def test_the_quantized_file_may_go_while_it_runs(
    tmp_path: Path, instrument: Instrument, exported: Exported, caplog: Any
) -> None:
    """A model whose file is removed after loading is compared all the same; only the speedup is unknown."""
    path = tmp_path / "model_int8.onnx"
    shutil.copy(real_models.magika_qdq(), path)
    instrument(reference={"*": str(real_models.magika_float())})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    path.unlink()
    evaluate(exported, lambda: session.run(None, {"bytes": real_models.magika_inputs(1)}))
    assert outcomes(exported) == {"evaluated": 1}
    assert not exported.points("quantmon.speedup")
    assert not warnings(caplog)
