"""What does not leave the process when the reference is remote: not asked for, not named, held back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import Exported

from fidelity.logs import Logs
from fidelity.waiting import outcomes, settle, until, warnings

from .sent import NAME, events, samples, session

Instrument = Callable[..., None]


def test_nothing_leaves_unless_asked_for(
    instrument: Instrument, exported: Exported, logs: Logs, features: np.ndarray, tmp_path: Path
) -> None:
    """Neither by default, nor for another model than the named one, whatever ways out there are."""
    instrument(
        reference={"another": "remote"},
        logger_provider=logs.provider,
        remote_directory=str(tmp_path / "samples"),
    )
    session().run(None, {"bytes": features})
    settle()
    assert events(logs) == []
    assert not (tmp_path / "samples").exists()
    assert outcomes(exported) == {}


def test_only_the_named_inputs_leave(
    instrument: Instrument, tmp_path: Path, features: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """An input that is not on the list is in no sample, whatever its name is taken to mean.

    That none is on it is most likely a misspelt name, and is told: once, for such a model.
    """
    instrument(
        reference={"*": "remote"},
        remote_directory=str(tmp_path),
        remote_inputs=("other",),
        remote_interval=0.001,
    )
    model = session()
    model.run(None, {"bytes": features})
    settle()
    until(lambda: len(samples(tmp_path)) > 1, lambda: model.run(None, {"bytes": features}))
    settle()
    for sample in samples(tmp_path):
        assert sample.inputs == {}
        assert "target_label" in sample.outputs
    (warning,) = warnings(caplog)
    assert f"model {NAME!r}: none of its inputs (bytes)" in warning
    assert "QUANTMON_REMOTE_INPUTS: other" in warning


@pytest.mark.parametrize("names", [("bytes",), ("bytes", "other"), (), None])
def test_a_list_that_is_meant_so_is_not_warned_of(
    names: tuple[str, ...] | None,
    instrument: Instrument,
    tmp_path: Path,
    features: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One name of several that fits is enough, since one list may be for many models; an empty list keeps all."""
    instrument(reference={"*": "remote"}, remote_directory=str(tmp_path), remote_inputs=names)
    session().run(None, {"bytes": features})
    settle()
    (sample,) = samples(tmp_path)
    assert set(sample.inputs) == (set() if names == () else {"bytes"})
    assert warnings(caplog) == []


def test_the_hook_decides_what_leaves(
    instrument: Instrument, exported: Exported, tmp_path: Path, features: np.ndarray
) -> None:
    """What it removes is not in the sample, and the application's own arrays are not touched."""
    asked: list[Any] = []

    def hook(model: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> bool:
        asked.append((model, sorted(inputs), sorted(outputs)))
        inputs["bytes"][:] = 0
        outputs.clear()
        return True

    instrument(reference={"*": "remote"}, remote_directory=str(tmp_path), sample_hook=hook)
    before = features.copy()
    session().run(None, {"bytes": features})
    settle()
    (sample,) = samples(tmp_path)
    assert asked == [(NAME, ["bytes"], ["target_label"])]
    assert not sample.inputs["bytes"].any()
    assert sample.outputs == {}
    assert np.array_equal(features, before)


@pytest.mark.parametrize("how", ["refuses", "raises"])
def test_what_the_hook_does_not_let_go_stays(
    how: str,
    instrument: Instrument,
    exported: Exported,
    tmp_path: Path,
    features: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hook that says no, or fails over a sample, keeps it in the process; it is counted, and the run is not hurt."""
    monkeypatch.setenv("QUANTMON_TEST_GUARD", "swallow")

    def hook(*_: object) -> bool:
        if how == "raises":
            raise RuntimeError(how)
        return False

    instrument(reference={"*": "remote"}, remote_directory=str(tmp_path), sample_hook=hook)
    session().run(None, {"bytes": features})
    settle()
    assert not (tmp_path / "new").exists()
    assert outcomes(exported) == {"withheld": 1}


def test_nothing_leaves_after_uninstrument(
    instrument: Instrument, exported: Exported, tmp_path: Path, features: np.ndarray
) -> None:
    """A sample that was taken before and sent after has no hook any more that could be asked: it stays."""
    from otel_quantmon import ONNXRuntimeInstrumentor, TFLiteInstrumentor
    from otel_quantmon.process.worker import reference_worker

    instrument(reference={"*": "remote"}, remote_directory=str(tmp_path))
    from threading import Event

    held = Event()
    reference_worker.submit(held.wait)
    session().run(None, {"bytes": features})
    for instrumentor in (ONNXRuntimeInstrumentor(), TFLiteInstrumentor()):
        instrumentor.uninstrument()
    held.set()
    settle()
    assert not (tmp_path / "new").exists()
    assert outcomes(exported) == {"withheld": 1}
