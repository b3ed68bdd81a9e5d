"""The way on one machine, as docs/remote.md has it, with its own commands: a service, a directory, a worker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import real_models
from lifecycle.programs import SECONDS, zero_code

ROOT = Path(__file__).parents[2]

SERVICE = """
import sys, time
from pathlib import Path
import onnxruntime
import real_models

session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
deadline = time.monotonic() + 60
while len(list(Path("samples/new").glob("*"))) < 2 and time.monotonic() < deadline:
    for row in real_models.magika_inputs(6):
        session.run(None, {{"bytes": row[None]}})
"""


def block(language: str, holds: str) -> str:
    text = (ROOT / "docs" / "remote.md").read_text("utf-8")
    return next(b for b in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if holds in b)


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands of the page are for a shell")
def test_the_commands_of_the_page_evaluate_the_samples_of_a_service(tmp_path: Path) -> None:
    """Copied from the page: the service writes samples, the worker says how far they are from float."""
    shutil.copy(real_models.magika_float(), tmp_path / "magika.onnx")
    (tmp_path / "models.toml").write_text(block("toml", "reference ="))
    (tmp_path / "app.py").write_text(SERVICE.format(model=str(real_models.magika_qdq())))
    programs = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    exporters = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    done = subprocess.run(
        ["bash", "-e", "-c", block("bash", "--until-empty")],
        cwd=tmp_path,
        env=zero_code(tmp_path, programs | exporters),
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name = real_models.magika_qdq().stem
    counted = re.search(rf"^{name} +evaluated +(\d+)$", done.stdout, re.MULTILINE)
    assert counted is not None, done.stdout + done.stderr
    assert int(counted[1]) >= 2
    assert re.search(r"^target_label +[\d.e-]+ +", done.stdout, re.MULTILINE)
    for folder in ("new", "claimed", "rejected"):
        assert not list((tmp_path / "samples" / folder).iterdir())
