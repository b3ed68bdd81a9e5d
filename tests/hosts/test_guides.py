"""The guides in docs/guides (fastapi, gunicorn, celery, bentoml) do what they say, by their own commands."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest
from lifecycle.programs import ZERO_CODE, zero_code
from lifecycle.sink import Sink
from real_models import one_op_onnx

from hosts.serving import ALONE, FOLDERS, ask_worker, free_port, host, started

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
VALUES = b"[1, 2, 3, 4]"
REQUESTS = 60


def followed(guide: str, folder: Path) -> list[str]:
    """Write the file of a guide and its model into ``folder``; returns the command behind opentelemetry-instrument."""
    text = (GUIDES / f"{guide}.md").read_text()
    found = re.search(r"^```python\n# (\w+\.py)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    (folder / found[1]).write_text(found[2])
    shutil.copy(one_op_onnx(), folder / "classifier_int8.onnx")
    command = re.search(r"^opentelemetry-instrument (.*)$", text, re.MULTILINE)
    assert command
    return shlex.split(command[1])


@pytest.mark.parametrize(
    ("guide", "needs", "path", "body"),
    [
        ("fastapi", "fastapi", "/classify", VALUES),
        ("gunicorn", "gunicorn", "/", VALUES),
        ("bentoml", "bentoml", "/classify", b'{"values": %s}' % VALUES),
    ],
)
def test_a_service_as_its_guide_has_it(
    guide: str, needs: str, path: str, body: bytes, sink: Sink, tmp_path: Path
) -> None:
    """What is answered before SIGTERM has arrived after it, each inference once."""
    pytest.importorskip(needs)
    port = free_port()
    command = [word.replace("8000", str(port)) for word in followed(guide, tmp_path)]
    variables = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(tmp_path / "bentoml")}
    with host(command, tmp_path, sink, port=port, ready="/readyz", variables=variables) as server:
        if guide == "bentoml":
            server.wait("/readyz", 200)
        answered = server.answered(REQUESTS, path, body)
        server.stop(signal.SIGTERM)
    assert (answered, sink.calls()) == (REQUESTS, REQUESTS), server.said


def test_celery_as_its_guide_has_it(sink: Sink, tmp_path: Path) -> None:
    """Every task that was done before a warm shutdown has arrived after it."""
    pytest.importorskip("celery")
    command = followed("celery", tmp_path)
    with (tmp_path / "tasks.py").open("a") as file:
        file.write(FOLDERS)
    given = sink.variables(QUANTMON_TEST_GUARD="swallow", BROKER_URL="filesystem://")
    variables = zero_code(tmp_path, given)
    command = [str(ZERO_CODE), sys.executable, "-m", *command, *ALONE]
    with started(command, tmp_path, variables) as worker:
        results = ask_worker(worker, "classify.delay([1, 2, 3, 4])", tmp_path, variables)
        worker.stop()
    assert [len(result) for result in results] == [4] * REQUESTS, worker.said
    assert sink.calls() == REQUESTS, worker.said
