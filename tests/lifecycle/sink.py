"""An OTLP/HTTP endpoint on loopback that decodes and keeps what it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psutil
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

DURATION = "quantmon.inference.duration"


def _process_at(port: int) -> str:
    """The process that has the other end of a connection, at its ``port``; it waits for the answer."""
    return next(
        str(one.pid)
        for one in psutil.net_connections("tcp4")
        if one.pid and one.laddr and one.laddr.port == port
    )


class Sink:
    """Running from its construction until `stop`; `restart` opens it again on the same port."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._totals: dict[tuple[Any, ...], int] = {}
        self.spans = 0
        self._serve(0)

    def __enter__(self) -> Sink:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def variables(self, **more: str) -> dict[str, str]:
        """The environment of a process that reports here, often enough for a test."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_LOGS_EXPORTER": "none",
            # What is still to be sent at the exit is sent at the exit.
            "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
            **more,
        }

    def calls(self) -> int:
        """Inferences counted, over all processes."""
        return sum(self._totals.values())

    def by_process(self) -> dict[str, int]:
        """Inferences counted, by process."""
        found: dict[str, int] = {}
        for (instance, *_), count in self._totals.items():
            found[instance] = found.get(instance, 0) + count
        return found

    def wait(self, condition: Callable[[], bool], seconds: float = 60.0) -> bool:
        """Wait for ``condition``, looked at whenever something has arrived; False if it did not come true."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    def stop(self) -> None:
        """Close the port: whoever sends now is refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def restart(self) -> None:
        """Open the same port again."""
        self._serve(self.port)

    def _serve(self, port: int) -> None:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sink._receive(self.path, body, self.client_address[1])
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _receive(self, path: str, body: bytes, port: int) -> None:
        with self._changed:
            if path == "/v1/metrics":
                self._receive_metrics(ExportMetricsServiceRequest.FromString(body), port)
            elif path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.spans += sum(len(scope.spans) for scope in resource.scope_spans)
            self._changed.notify_all()

    def _receive_metrics(self, request: ExportMetricsServiceRequest, port: int) -> None:
        for resource in request.resource_metrics:
            attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
            # The oldest SDK does not set it, and what it says of the process is the parent's after a fork.
            instance = attributes.get("service.instance.id") or _process_at(port)
            points = (
                point
                for scope in resource.scope_metrics
                for metric in scope.metrics
                if metric.name == DURATION
                for point in metric.histogram.data_points
            )
            for point in points:
                stream = tuple(sorted(str(item) for item in point.attributes))
                # Cumulative: the last one tells all.
                self._totals[instance, stream] = point.count
