"""The FastAPI example with a readiness of its own leaves the rotation at an anomaly, and comes back when it is over."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack.running import free_ports, running, until

ROOT = Path(__file__).parents[2]
BASELINE = 1000
"""Calls from which the rate of errors is learnt."""

# What breaks on this instance: the features of a file have the wrong length, so that each inference is refused. And a
# way to many calls, since as many requests would take longer.
UNWELL = """
from fastapi_readiness import app, fastapi_app

features = fastapi_app.features


@app.post("/busy/{calls}")
def busy(calls: int):
    row = {"bytes": features(b"import this")[None]}
    for _ in range(calls):
        fastapi_app.session.run(None, row)


@app.post("/fault/{on}")
async def fault(on: bool):
    fastapi_app.features = (lambda content: features(content)[:-1]) if on else features
"""


@pytest.fixture
def address(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The example with a fault that can be switched on, started as its first lines say, but for the exporters."""
    for module in ("fastapi", "uvicorn", "onnxruntime", "magika"):
        pytest.importorskip(module)
    (tmp_path / "unwell.py").write_text(UNWELL)
    python_path = [environment.get("PYTHONPATH"), str(tmp_path), str(ROOT / "examples" / "manual")]
    (port,) = free_ports(1)
    exporters = ("--traces_exporter", "none", "--metrics_exporter", "console", "--logs_exporter", "none")
    command = ["opentelemetry-instrument", *exporters, "uvicorn", "unwell:app", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with running(
        command,
        tmp_path,
        environment={**environment, "PYTHONPATH": ":".join(filter(None, python_path))},
        ready=f"{url}/health",
    ):
        yield url


def asked(url: str, content: bytes | None = None) -> tuple[int, object]:
    """Status and body of the answer to a GET, or to a POST of the content."""
    try:
        with urllib.request.urlopen(url, data=content, timeout=300) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_service_leaves_the_rotation_while_it_fails_and_comes_back(address: str) -> None:
    """Ready with a baseline; 503 with the anomaly's type once inferences fail, and for as long; then ready again.

    Nobody asks the model while it is out, so that it comes back shows that it asks itself. It stays alive throughout.
    """
    for _ in range(BASELINE // 100):
        assert asked(f"{address}/busy/100", b"")[0] == 200
    assert asked(f"{address}/classify", b"import this\n")[0] == 200
    assert asked(f"{address}/ready") == (200, {"anomalies": []})

    asked(f"{address}/fault/true", b"")

    def left() -> object | None:
        assert asked(f"{address}/classify", b"import this\n")[0] == 500
        status, body = asked(f"{address}/ready")
        return body if status == 503 else None

    assert json.loads(str(until(left, "leave", seconds=300))) == {"anomalies": ["error_rate"]}
    assert asked(f"{address}/health")[0] == 200

    asked(f"{address}/fault/false", b"")
    # An anomaly lasts a minute at least.
    until(lambda: asked(f"{address}/ready")[0] == 200 or None, "return", seconds=300)
