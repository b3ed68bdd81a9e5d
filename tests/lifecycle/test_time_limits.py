"""What a handler raises while a file is read is the application's, though it is an `OSError`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_models import one_op_onnx

from otel_quantmon.fidelity.baseline.inputs import load_inputs
from otel_quantmon.fidelity.engines import open_engine
from otel_quantmon.fidelity.shadow import _beside
from otel_quantmon.models.description import LoadedModel
from otel_quantmon.models.formats.source import identity_of
from otel_quantmon.models.identity import Model
from otel_quantmon.process.host import cpu_isa
from otel_quantmon.runtimes.onnxruntime.reading import assigned_nodes
from otel_quantmon.settings import Settings
from otel_quantmon.settings.tomlfile import read_toml

pytestmark = pytest.mark.usefixtures("production")


class _Late(TimeoutError):  # noqa: N818  as applications name theirs
    pass


def _model() -> Model:
    loaded = LoadedModel(
        runtime="onnxruntime", runtime_version="1", provider="CPU", source=str(one_op_onnx())
    )
    return Model(loaded, Settings())


def _known_digest(model: Model) -> object:
    model.content.reader = None
    return model.content.known_digest()


_NARROW: dict[str, tuple[str, Callable[[Model], object]]] = {
    "identity": ("otel_quantmon.models.formats.source.os.stat", lambda model: identity_of(model.path or "")),
    "reading": ("otel_quantmon.models.identity.read_facts", lambda _: _model().facts),
    "digest": ("otel_quantmon.models.identity.read_digest", lambda model: model.read_digest()),
    "digest later": ("otel_quantmon.models.names.read_digest", _known_digest),
    "processor": ("otel_quantmon.process.host.Path.read_text", lambda _: cpu_isa.__wrapped__()),
    "reference": (
        "otel_quantmon.fidelity.shadow.Path.resolve",
        lambda _: _beside(one_op_onnx(), "float.onnx"),
    ),
    "engine": ("onnxruntime.InferenceSession", lambda _: open_engine(str(one_op_onnx()))),
    "inputs": (
        "otel_quantmon.fidelity.baseline.inputs.open_regular",
        lambda _: load_inputs(Path("inputs.npy"), ["x"]),
    ),
    "settings": ("builtins.open", lambda _: read_toml("/nowhere.toml")),
    "nodes": (
        "lifecycle.test_time_limits._Nodes.get_provider_graph_assignment_info",
        lambda _: assigned_nodes(_Nodes()),
    ),
}


class _Nodes:
    def get_provider_graph_assignment_info(self) -> Any:
        return []


@pytest.mark.parametrize("name", list(_NARROW))
def test_a_time_limit_is_no_error_of_the_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a handler raises while a file is read is a `TimeoutError` and so an `OSError`: it is not taken for one."""
    path, call = _NARROW[name]
    model = _model()

    def interrupted(*_: Any, **__: Any) -> Any:
        signal.raise_signal(signal.SIGALRM)

    def handle(_number: int, _frame: object) -> None:
        raise _Late("over")

    before = signal.signal(signal.SIGALRM, handle)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(path, interrupted)
            with pytest.raises(_Late):
                call(model)
    finally:
        signal.signal(signal.SIGALRM, before)
