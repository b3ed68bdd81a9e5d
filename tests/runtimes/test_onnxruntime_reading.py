"""What is read of a session and of its calls: providers, nodes, inputs of every kind, and the digest in time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
from exported import Exported
from fidelity.waiting import anomalies, pipeline_of, warnings
from onnx import helper

from otel_quantmon.process.worker import worker

from .models import doubling, floats, model

Instrument = Callable[..., None]

X = np.ones((2, 3), np.float32)


def run(session: Any) -> Any:
    """One call of `doubling`."""
    return session.run(None, {"x": X})[0]


class Moving(onnxruntime.InferenceSession):
    """A session that tells of a provider which this build of ONNX Runtime does not have, until it is re-created."""

    listed: ClassVar[list[str]] = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_providers(self) -> list[str]:
        """What it tells, and not what it has."""
        return self.listed

    def set_providers(self, providers: Any, provider_options: Any = None) -> None:
        """Tell what is set from now on."""
        self.listed = list(providers)
        super().set_providers(providers, provider_options)


def nodes(exported: Exported) -> dict[str, int]:
    """Nodes by provider."""
    points = exported.points("quantmon.execution_provider.nodes")
    return {point.attributes["quantmon.execution_provider"]: point.value for point in points}


def test_set_providers_describes_the_session_anew(exported: Exported, instrument: Instrument) -> None:
    """Calls before and after it are of the provider that the session had then, and its nodes are counted again."""
    instrument()
    session = Moving(doubling(), providers=["CPUExecutionProvider"])
    run(session)
    assert nodes(exported) == {}
    session.set_providers(["CPUExecutionProvider"])
    run(session)
    run(session)
    assert exported.count(execution_provider="CUDAExecutionProvider") == 1
    assert exported.count(execution_provider="CPUExecutionProvider") == 2
    assert nodes(exported) == {"CPUExecutionProvider": 1}


def test_a_better_provider_is_no_fallback_and_ends_one(
    exported: Exported, instrument: Instrument, caplog: Any
) -> None:
    """From CUDA to the CPU is one, and the way back ends it after its minute; nothing else is told of that."""
    instrument()

    def told() -> list[str]:
        return [text.partition(" runs on ")[2] for text in warnings(caplog)]

    session = Moving(doubling(), providers=["CPUExecutionProvider"])
    run(session)
    assert (told(), anomalies(exported)) == ([], {})
    session.set_providers(["CPUExecutionProvider"])
    run(session)
    assert told() == ["CPUExecutionProvider instead of CUDAExecutionProvider"]
    assert anomalies(exported) == {"fallback": 1}
    with pytest.warns(UserWarning, match="not in available provider names"):
        session.set_providers(["CUDAExecutionProvider", "CPUExecutionProvider"])
    run(session)
    assert anomalies(exported) == {"fallback": 1}
    assert len(told()) == 1
    pipeline_of(exported).monitor.judge(perf_counter() + 61.0)
    assert [point.value for point in exported.points("quantmon.anomaly.active", anomaly="fallback")] == [0]


@pytest.mark.parametrize(
    ("listed", "provider"),
    [
        (["CPUExecutionProvider"], "CPUExecutionProvider"),
        (["AzureExecutionProvider", "CPUExecutionProvider"], "CPUExecutionProvider"),
        (
            ["AzureExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            "CUDAExecutionProvider",
        ),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            "TensorrtExecutionProvider",
        ),
        (["CPUExecutionProvider", "CUDAExecutionProvider"], "CPUExecutionProvider"),
        (["AzureExecutionProvider"], "AzureExecutionProvider"),
    ],
)
def test_the_provider_named_is_the_first_that_runs_here(
    listed: list[str],
    provider: str,
    exported: Exported,
    instrument: Instrument,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the session does not tell who runs what: the first in its order, a remote service only if it is alone."""
    monkeypatch.setattr(Moving, "listed", listed)
    instrument()
    run(Moving(doubling(), providers=["CPUExecutionProvider"]))
    assert exported.count(execution_provider=provider) == 1


def test_all_available_providers_have_their_nodes_on_the_cpu(
    exported: Exported, instrument: Instrument
) -> None:
    """What many applications pass on names no remote inference, and the nodes are counted."""
    instrument()
    session = onnxruntime.InferenceSession(doubling(), providers=onnxruntime.get_available_providers())
    run(session)
    assert exported.count(execution_provider="CPUExecutionProvider") == 1
    assert nodes(exported) == {"CPUExecutionProvider": 1}


def test_the_provider_named_is_the_one_that_runs_most_nodes(
    exported: Exported, instrument: Instrument
) -> None:
    """A session that was told to record its assignment is believed before its list of providers."""
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this release of ONNX Runtime does not record who runs what")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    instrument()
    session = Moving(doubling(), options, providers=["CPUExecutionProvider"])
    run(session)
    assert exported.count(execution_provider="CPUExecutionProvider") == 1
    assert nodes(exported) == {"CPUExecutionProvider": 1}


@pytest.mark.parametrize(
    ("fed", "shape"),
    [
        ([[1.0, 2.0, 3.0]] * 4, "4x3"),
        ([np.ones(3, np.float32)] * 4, "4x3"),
        (np.ones((4, 3), np.float32), "4x3"),
    ],
    ids=["lists", "arrays", "array"],
)
def test_inputs_given_as_lists_have_shapes_and_sizes(
    fed: Any, shape: str, exported: Exported, instrument: Instrument
) -> None:
    """What ONNX Runtime makes an array of is measured as that array is."""
    instrument()
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": fed})
    (span,) = exported.raw_spans()
    attributes = span.attributes or {}
    assert attributes["quantmon.input.shapes"] == (f"x:{shape}",)
    assert attributes["quantmon.batch.size"] == 4
    assert exported.point("quantmon.inference.batch_size").sum == 4
    assert exported.point("quantmon.memory.usage", memory_type="io").value == 2 * 4 * 3 * 4


def test_a_scalar_is_called_one(exported: Exported, instrument: Instrument) -> None:
    """A shape without dimensions has a word, where nothing would look like a mistake."""
    node = helper.make_node("Mul", ["x", "s"], ["y"])
    sides = [floats("x", "n"), floats("s")], [floats("y", "n")]
    instrument()
    session = onnxruntime.InferenceSession(
        model([node], inputs=sides[0], outputs=sides[1], name="scaled"), providers=["CPUExecutionProvider"]
    )
    session.run(None, {"x": [1.0, 2.0], "s": np.array(3, np.float32)})
    (span,) = exported.raw_spans()
    assert (span.attributes or {})["quantmon.input.shapes"] == ("x:2", "s:scalar")


def test_the_digest_is_told_even_if_the_run_ends_at_once(exported: Exported, instrument: Instrument) -> None:
    """The last collection of a short run reads what the worker has not come to."""
    busy = threading.Event()
    worker.submit(busy.wait)
    instrument()
    try:
        session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
        run(session)
        points = exported.points_by_name()["quantmon.model.info"]
    finally:
        busy.set()
    infos = [point.attributes["quantmon.model.digest"] for point in points]
    assert infos == ["sha256:" + hashlib.sha256(doubling()).hexdigest()]


def test_lists_are_checked_as_the_arrays_that_they_become(exported: Exported, instrument: Instrument) -> None:
    """A NaN in a list is found as one in an array is."""
    instrument(check_budget=1.0)
    session = onnxruntime.InferenceSession(doubling(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": [[1.0, float("nan"), 3.0]]})
    points = {
        point.attributes["quantmon.tensor.direction"]: point.value
        for point in exported.points("quantmon.tensor.nonfinite")
    }
    assert points == {"input": 1, "output": 1}
