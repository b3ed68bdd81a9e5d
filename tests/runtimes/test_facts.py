"""What needs no statistics is told at once, of real models on both runtimes: providers, files, errors, NaN."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import pytest
import real_models
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from exported import Exported
from fidelity.waiting import anomalies, judge, pipeline_of, until, warnings

from otel_quantmon import Settings, TFLiteInstrumentor

Instrument = Callable[..., None]

PLAIN = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}


def run(path: Path, **options: Any) -> Any:
    """An interpreter of the model that has made one call."""
    interpreter = Interpreter(str(path), num_threads=1, **options)
    interpreter.allocate_tensors()
    interpreter.invoke()
    return interpreter


def voice() -> tuple[Any, dict[str, Any]]:
    """A session of the voice detector, and a frame of silence."""
    session = onnxruntime.InferenceSession(str(real_models.silero_half()), providers=["CPUExecutionProvider"])
    frame = {
        "input": np.zeros((1, 512), np.float32),
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(16000, np.int64),
    }
    return session, {one.name: frame[one.name] for one in session.get_inputs()}


def active(exported: Exported, anomaly: str) -> list[int]:
    judge(exported)
    return [point.value for point in exported.points("quantmon.anomaly.active", anomaly=anomaly)]


def test_a_delegate_that_is_gone_when_the_model_is_loaded_again_is_a_lost_provider(
    exported: Exported, instrument: Instrument, caplog: Any
) -> None:
    """LiteRT does not say that XNNPACK was wanted; it ran the same file before. It is over once that is back."""
    instrument(spans="none")
    path = real_models.wake_word()
    first = run(path)
    again = run(path)
    assert anomalies(exported) == {}
    del first, again
    lost = run(path, **PLAIN)
    assert anomalies(exported) == {"fallback": 1}
    (point,) = exported.points("quantmon.anomaly.active", anomaly="fallback")
    assert (point.value, point.attributes["quantmon.execution_provider"]) == (1, "CPU")
    assert "runs on CPU instead of XNNPACK" in warnings(caplog)[-1]
    more = run(path, **PLAIN)
    assert anomalies(exported) == {"fallback": 1}
    back = run(path)
    # It has to last a minute, whatever comes; and then it is over, though nobody says so again.
    assert active(exported, "fallback") == [1]
    pipeline_of(exported).monitor.judge(perf_counter() + 61.0)
    assert active(exported, "fallback") == [0]
    del lost, more, back


def test_two_files_that_run_on_different_providers_have_lost_none(
    exported: Exported, instrument: Instrument
) -> None:
    """One name that the user gives to two files is no reason to compare where they run."""
    instrument(spans="none", models={"*": {"name": "both"}})
    one, other = run(real_models.wake_word()), run(real_models.basic_pitch_tflite(), **PLAIN)
    assert anomalies(exported) == {}
    del one, other


def test_another_file_under_the_name_is_told(
    tmp_path: Path, exported: Exported, instrument: Instrument
) -> None:
    """A model that was replaced by another while the service runs: one event, by the digest, at its loading."""
    instrument(spans="none")
    path = tmp_path / "ranker.tflite"
    shutil.copy(real_models.wake_word(), path)
    first = run(path)
    assert anomalies(exported) == {}
    # As a deployment does it: another file takes its place.
    new = tmp_path / "new"
    shutil.copy(real_models.basic_pitch_tflite(), new)
    new.replace(path)
    second = run(path)
    assert anomalies(exported) == {"model_changed": 1}
    del first, second


def test_what_is_new_since_the_last_start_is_told_at_start(tmp_path: Path) -> None:
    """With kept baselines: XNNPACK that an earlier process had, then another file under the name; and nothing else."""
    path = tmp_path / "ranker.tflite"
    shutil.copy(real_models.wake_word(), path)
    told: list[dict[str, int]] = []
    for before, options in (
        (None, {}),
        (None, {}),
        (None, PLAIN),
        (real_models.basic_pitch_tflite(), {}),
    ):
        if before is not None:
            shutil.copy(before, path)
        process = Exported()
        settings = Settings(baseline_state=str(tmp_path / "kept"), spans="none", judgement_interval=3600.0)
        TFLiteInstrumentor().instrument(settings=settings, **process.providers)
        interpreter = run(path, **options)
        # Enough for a baseline of the error rate, which is then kept.
        for _ in range(0 if before is not None else 1000):
            interpreter.invoke()
        # The digest is read in the background.
        told.append(anomalies(process))
        TFLiteInstrumentor().uninstrument()
        process.shut_down()
    assert told == [{}, {}, {"fallback": 1}, {"model_changed": 1}]


def test_the_second_error_of_a_model_that_had_none_is_told(
    exported: Exported, instrument: Instrument
) -> None:
    """A thousand calls of a real model without an error; the first is an accident, the second is told by its type."""
    instrument(spans="none", anomalies=("error_rate",))
    session, feeds = voice()
    for _ in range(1000):
        session.run(None, feeds)
    assert active(exported, "error_rate") == [0]
    for count in (0, 1):
        with pytest.raises(Exception, match="INVALID_ARGUMENT"):
            session.run(None, {**feeds, "state": np.zeros((2, 1, 127), np.float32)})
        assert anomalies(exported).get("error_rate", 0) == count


def test_a_nan_where_there_was_none_is_told(exported: Exported, instrument: Instrument) -> None:
    """Sound with one NaN in it, after twenty samples without, at the first that is looked at."""
    instrument(spans="none", anomalies=("nonfinite",), check_budget=1.0)
    session, feeds = voice()

    def call() -> None:
        session.run(None, feeds)
        judge(exported)

    until(lambda: bool(exported.points("quantmon.anomaly.active", anomaly="nonfinite")), call)
    assert anomalies(exported) == {}
    feeds["input"] = np.where(np.arange(512) == 7, np.nan, feeds["input"]).astype(np.float32)
    until(lambda: bool(anomalies(exported)), call)
    assert anomalies(exported) == {"nonfinite": 1}
