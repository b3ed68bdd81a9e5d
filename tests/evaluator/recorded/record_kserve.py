"""Records what KServe's own logger sends: its agent in front of a predictor that runs the quantized magika.

The agent is a program in Go, and no part of the tests, since it takes minutes to build. In the source of KServe 0.15.2
(``github.com/kserve/kserve``): ``go build -o agent ./cmd/agent``. Then, from ``tests``::

    python -m evaluator.recorded.record_kserve path/to/agent > evaluator/recorded/kserve-agent-magika.json
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import onnxruntime
import real_models

# One call with its numbers in the text, one with bytes behind it, and one that the predictor refuses.
WAYS = ("text", "binary", "refused")
SECONDS = 60.0


def main(agent: str) -> None:
    """Make the calls through the agent, and print every request that its logger has sent."""
    session = onnxruntime.InferenceSession(str(real_models.magika_qdq()), providers=["CPUExecutionProvider"])
    sent: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    class Predictor(_Handler):
        def answer(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
            length = self.headers.get("Inference-Header-Content-Length")
            text = json.loads(body[: int(length)] if length else body)
            (listed,) = text["inputs"]
            data = body[int(length) :] if length else None
            tokens = np.frombuffer(data, np.int32) if data is not None else np.array(listed["data"], np.int32)
            if listed["name"] != "bytes":
                return 400, b'{"error": "no such input"}', {"Content-Type": "application/json"}
            scores = session.run(None, {"bytes": tokens.reshape(listed["shape"])})[0]
            output = {"name": "target_label", "datatype": "FP32", "shape": list(scores.shape)}
            answer = {"model_name": "magika_int8", "model_version": "3", "id": text["id"]}
            if data is None:
                told = json.dumps(answer | {"outputs": [output | {"data": scores.ravel().tolist()}]}).encode()
                return 200, told, {"Content-Type": "application/json"}
            output["parameters"] = {"binary_data_size": scores.nbytes}
            told = json.dumps(answer | {"outputs": [output]}).encode()
            headers = {"Content-Type": "application/octet-stream"}
            return 200, told + scores.tobytes(), headers | {"Inference-Header-Content-Length": str(len(told))}

    class Sink(_Handler):
        def answer(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
            named = {name: value for name, value in self.headers.items() if name != "Host"}
            sent.put({"headers": named, "body": base64.b64encode(body).decode()})
            return 200, b"", {}

    with _serving(Predictor) as predictor, _serving(Sink) as sink:
        port = _free_port()
        options = {
            "port": port,
            "component-port": predictor,
            "log-url": f"http://127.0.0.1:{sink}/",
            "source-uri": f"http://localhost:{port}/",
            "inference-service": "magika",
            "namespace": "shop",
            "component": "predictor",
            "endpoint": "default",
            "metadata-headers": "Traceparent,Inference-Header-Content-Length",
        }
        # As the controller of KServe sets it.
        probe = json.dumps({"tcpSocket": {"port": predictor}, "successThreshold": 1})
        running = subprocess.Popen(
            [agent, *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, "SERVING_READINESS_PROBE": probe},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(port)
            for number, way in enumerate(WAYS):
                _call(port, number, way)
            requests = [sent.get(timeout=SECONDS) for _ in range(2 * len(WAYS) - 1)]
        finally:
            # Asked to end, it goes on for half a minute.
            running.kill()
            running.wait(SECONDS)
    source = (
        "KServe's agent 0.15.2 in front of the quantized magika: V2 protocol, its logger's requests as sent"
    )
    json.dump({"from": source, "requests": requests}, sys.stdout, indent=1)
    print()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        raise NotImplementedError

    def do_POST(self) -> None:
        status, body, headers = self.answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _serving(handler: type[_Handler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("the agent does not listen")


def _call(port: int, number: int, way: str) -> None:
    tokens = real_models.magika_inputs(2)[number % 2][None]
    name = "tokens" if way == "refused" else "bytes"
    listed: dict[str, Any] = {"name": name, "datatype": "INT32", "shape": list(tokens.shape)}
    headers = {"Content-Type": "application/json"}
    if way == "binary":
        listed["parameters"] = {"binary_data_size": tokens.nbytes}
        body = json.dumps({"id": way, "inputs": [listed]}).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(body)),
        }
        body += tokens.tobytes()
    else:
        body = json.dumps({"id": way, "inputs": [listed | {"data": tokens.ravel().tolist()}]}).encode()
    headers["traceparent"] = f"00-{number + 1:032x}-{number + 1:016x}-01"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("POST", "/v2/models/magika_int8/infer", body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != (400 if way == "refused" else 200):
        sys.exit(f"the predictor answered {answer.status} to the call with {way}")


if __name__ == "__main__":
    main(sys.argv[1])
