"""What servers lose of the inferences that their workers ran, as docs/deployment.md says."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from lifecycle.programs import SECONDS
from lifecycle.sink import Sink

from hosts.serving import free_port, host

WSGI = """
def application(environ, start_response):
    from model import infer
    body = b"" if environ["PATH_INFO"] == "/ready" else infer().encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = """
import model

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        at_the_end()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b"" if scope["path"] == "/ready" else model.infer().encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

def at_the_end():
    pass
"""

DELIVERS = "from deliver import deliver as at_the_end"


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["loaded after", "loaded before"])
def test_gunicorn(preload: list[str], sink: Sink, tmp_path: Path) -> None:
    """SIGTERM lets the workers end in good order: nothing is lost, with the model loaded before or after the fork."""
    pytest.importorskip("gunicorn")
    (tmp_path / "service.py").write_text("import model\n" + WSGI)
    port = free_port()
    command = ["gunicorn", "--workers", "2", "--no-control-socket", *preload]
    command += ["--bind", f"127.0.0.1:{port}", "service:application"]
    with host(command, tmp_path, sink, port=port) as server:
        answered = server.answered(60)
        assert server.stop() == 0, server.said
    assert (answered, sink.calls()) == (60, 60), server.said


@pytest.mark.parametrize(
    ("ending", "arrived"), [("", 0), (DELIVERS, 60)], ids=["as it is", "told to deliver"]
)
def test_gunicorn_with_uvicorn_workers(ending: str, arrived: int, sink: Sink, tmp_path: Path) -> None:
    """A worker ends itself by the signal once it has served: it delivers if its lifespan does."""
    pytest.importorskip("gunicorn")
    pytest.importorskip("uvicorn_worker")
    (tmp_path / "service.py").write_text(ASGI + ending)
    port = free_port()
    command = ["gunicorn", "--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker"]
    command += ["--no-control-socket", "--bind", f"127.0.0.1:{port}", "service:application"]
    with host(command, tmp_path, sink, port=port) as server:
        answered = server.answered(60)
        server.stop()
    assert (answered, sink.calls()) == (60, arrived), server.said


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_with_workers(loop: str, sink: Sink, tmp_path: Path) -> None:
    """SIGTERM reaches a worker of its own interpreter, which has served before it imports a runtime: it delivers."""
    pytest.importorskip("uvicorn")
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    (tmp_path / "service.py").write_text(ASGI)
    port = free_port()
    command = ["uvicorn", "--workers", "2", "--loop", loop, "--port", str(port), "service:application"]
    # Of itself it kills a worker that has not started within five seconds.
    command += ["--timeout-worker-healthcheck", str(SECONDS)]
    with host(command, tmp_path, sink, port=port) as server:
        answered = server.answered(60)
        server.stop()
    assert (answered, sink.calls()) == (60, 60), server.said
    assert len(sink.by_process()) in {1, 2}


@pytest.mark.parametrize(
    ("number", "ending", "arrived"),
    [(signal.SIGTERM, "", 0), (signal.SIGTERM, DELIVERS, 60), (signal.SIGINT, "", 60)],
    ids=["SIGTERM", "SIGTERM and told to deliver", "SIGINT"],
)
def test_uvicorn_alone(number: int, ending: str, arrived: int, sink: Sink, tmp_path: Path) -> None:
    """It ends itself by SIGTERM: what the SDK had not exported is lost unless its lifespan delivers; SIGINT ends it
    in good order.
    """
    pytest.importorskip("uvicorn")
    (tmp_path / "service.py").write_text(ASGI + ending)
    port = free_port()
    with host(["uvicorn", "--port", str(port), "service:application"], tmp_path, sink, port=port) as server:
        answered = server.answered(60)
        server.stop(number)
    assert (answered, sink.calls()) == (60, arrived), server.said


def test_flask_with_its_reloader(sink: Sink, tmp_path: Path) -> None:
    """The child that serves is started anew at each change; what each of them ran arrives, as it ends in good order."""
    pytest.importorskip("flask")
    service = tmp_path / "service.py"
    text = """
from flask import Flask
import model

app = Flask(__name__)
app.get("/")(model.infer)
app.get("/ready", endpoint="ready")(lambda: "")
app.get("/VERSION", endpoint="version")(lambda: "")
"""
    service.write_text(text.replace("VERSION", "first"))
    port = free_port()
    command = ["flask", "--app", "service", "run", "--debug", "--port", str(port)]
    with host(command, tmp_path, sink, port=port) as server:
        answered = server.answered(40)
        service.write_text(text.replace("VERSION", "second"))
        server.wait("/second", 200)
        assert sink.calls() == 40
        answered += server.answered(20)
        server.stop(signal.SIGINT, whole_group=True)
    assert (answered, sink.calls()) == (60, 60), server.said


LITSERVE = """
import litserve

class API(litserve.LitAPI):
    def setup(self, device):
        import model
        self.infer = model.infer

    def decode_request(self, request):
        return request["x"]

    def predict(self, x):
        return self.infer()

    def encode_response(self, output):
        return {"output": output}

if __name__ == "__main__":
    server = litserve.LitServer(API(), accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False)
"""


def test_litserve(sink: Sink, tmp_path: Path) -> None:
    """SIGINT has it end its workers of inference by SIGTERM, and they deliver."""
    pytest.importorskip("litserve")
    port = free_port()
    (tmp_path / "service.py").write_text(LITSERVE.replace("PORT", str(port)))
    with host(["service"], tmp_path, sink, port=port, ready="/health") as server:
        server.wait("/health", 200)
        answered = server.answered(60, "/predict", b'{"x": 1}')
        server.stop(signal.SIGINT)
    assert (answered, sink.calls()) == (60, 60), server.said


BENTO = """
import bentoml

@bentoml.service(workers=2)
class Service:
    def __init__(self):
        import model
        self.infer = model.infer

    @bentoml.api
    def predict(self) -> str:
        return self.infer()
"""


SHUTDOWN = """
    @bentoml.on_shutdown
    def at_the_end(self):
        import deliver
        deliver.deliver()
"""


@pytest.mark.parametrize(
    ("ending", "arrived"), [("", 0), (SHUTDOWN, 60)], ids=["as it is", "told to deliver"]
)
def test_bentoml(ending: str, arrived: int, sink: Sink, tmp_path: Path) -> None:
    """Its workers are uvicorn's servers, each alone in a process: they deliver if the service does."""
    pytest.importorskip("bentoml")
    (tmp_path / "service.py").write_text(BENTO + ending)
    port = free_port()
    variables = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(tmp_path / "bentoml")}
    command = ["bentoml", "serve", "service:Service", "--host", "127.0.0.1", "--port", str(port)]
    with host(command, tmp_path, sink, port=port, ready="/livez", variables=variables) as server:
        server.wait("/readyz", 200)
        answered = server.answered(60, "/predict", b"{}")
        server.stop()
    assert (answered, sink.calls()) == (60, arrived), server.said
