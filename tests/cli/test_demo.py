"""``quantmon demo``: what it makes, and its mistakes. ``nox -s demo`` runs all of it, as the README has it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from lifecycle.programs import environment
from real_models import magika_inputs
from source_texts import source_texts

from otel_quantmon.cli.demo import director
from otel_quantmon.cli.demo.magika import FLOAT, NEXT, SERVED, Magika
from otel_quantmon.models.formats import read_facts

pytestmark = pytest.mark.skipif(find_spec("magika") is None, reason="without magika")


def test_the_models_of_the_demo(tmp_path: Path) -> None:
    """Both int8 models are quantized in one way; the served one is near its original, and the next version is not."""
    command = [sys.executable, "-m", "otel_quantmon.cli.demo.magika", str(tmp_path)]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} == {FLOAT, SERVED, NEXT}
    assert [read_facts(tmp_path / name).scheme for name in (FLOAT, SERVED, NEXT)] == ["none", "qdq", "qdq"]
    inputs = {"bytes": magika_inputs(8)}
    original, served, after = (
        onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"]).run(
            None, inputs
        )[0]
        for name in (FLOAT, SERVED, NEXT)
    )
    norm = np.linalg.norm(original)
    assert np.linalg.norm(served - original) < 0.2 * norm
    assert np.linalg.norm(after - original) > 0.5 * norm


def test_features_are_those_that_the_model_was_trained_on() -> None:
    """The same as the tests' own reading of magika's configuration, which is another one."""
    magika = Magika()
    config = json.loads(magika.file.with_name("config.min.json").read_text())
    texts = source_texts(4, 2 * config["block_size"] + 1)
    assert np.array_equal(np.concatenate([magika.features(text) for text in texts]), magika_inputs(4))


def test_a_folder_that_has_a_demo_is_left_alone(tmp_path: Path) -> None:
    """Status 2 and one line, and the earlier run is as it was."""
    (tmp_path / "run.db").write_text("an earlier run")
    command = [sys.executable, "-m", "otel_quantmon.cli", "demo", "--folder", str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"quantmon: error: {tmp_path} has a demo already: give another folder\n"
    assert (tmp_path / "run.db").read_text() == "an earlier run"


def test_what_to_try_next_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths with a space are quoted as a shell wants it. Neither model nor run is made for it."""
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0))
    monkeypatch.setattr(director, "run_command", lambda _: 0)
    folder = tmp_path / "my demo"
    assert director.demo_command(Namespace(folder=folder, view=False, page=False)) == 0
    commands = [line.split() for line in capsys.readouterr().out.splitlines() if "quantmon" in line]
    told = [shlex.split(" ".join(words)) for words in commands if words[0] == "quantmon"]
    assert ["quantmon", "show", str(folder / "run.db"), "--page"] in told
    assert ["quantmon", "inspect", str(folder / SERVED)] in told
