"""Sends on what an application would have sent to an OTLP endpoint of its own, as it came, on a thread of its own.

The receiver never waits for it: what does not fit the queue, and what the endpoint does not take in time, is dropped
and counted.
"""

from __future__ import annotations

import gzip
import http.client
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from otel_quantmon.desk.environment import Destination
from otel_quantmon.desk.messages import PROTOBUF, Signal, parse
from otel_quantmon.errors import DeskError

__all__ = ["Forwarder"]

_logger = logging.getLogger("otel_quantmon")

_MOST_BYTES = 64 * 2**20
_SECONDS = 10.0
# https://opentelemetry.io/docs/specs/otlp/#otlphttp-response: these are sent again, others are not.
_AGAIN = {429, 502, 503, 504}
_SERVICES = {
    "traces": "trace.v1.TraceService",
    "metrics": "metrics.v1.MetricsService",
    "logs": "logs.v1.LogsService",
}


class Forwarder:
    """Forwards to ``destinations`` from `start` to `close`.

    Args:
        destinations: Destinations by signal; other signals are not forwarded.

    Attributes:
        counts: Requests ``sent``, ``failed`` (refused, or not taken in 10 s) and ``dropped`` (no room).
        failure: What the endpoint, or the connection to it, said last; None if all is well.

    Raises:
        DeskError: An endpoint speaks gRPC, and the package for it is missing; or a certificate cannot be read.
    """

    def __init__(self, destinations: Mapping[Signal, Destination]) -> None:
        self.counts: Counter[str] = Counter()
        self.failure: str | None = None
        self._senders = {signal: _sender(signal, found) for signal, found in destinations.items()}
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Signal, str, bytes]] = deque()
        self._bytes = 0
        self._end: float | None = None
        self._thread = threading.Thread(target=self._run, name="otel-quantmon-forward", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, signal: Signal, content_type: str, body: bytes) -> None:
        """Have ``body``, not compressed, sent on. Returns at once."""
        if signal not in self._senders:
            return
        with self._changed:
            if self._bytes + len(body) > _MOST_BYTES:
                self.counts["dropped"] += 1
                return
            self._bytes += len(body)
            self._waiting.append((signal, content_type, body))
            self._changed.notify()

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for so long at most; the rest is dropped and counted."""
        with self._changed:
            self._end = time.monotonic() + seconds
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds + _SECONDS)
        with self._changed:
            self.counts["dropped"] += len(self._waiting)
            self._waiting.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._end is not None)
                if not self._waiting or self._ended():
                    return
                signal, content_type, body = self._waiting[0]
            try:
                self._send(signal, content_type, body)
            except Exception as error:  # noqa: BLE001  one request is lost by it, and not all that come after
                self._tell(signal, f"{type(error).__name__}: {error}")
                self.counts["failed"] += 1
            with self._changed:
                if self._waiting:
                    self._waiting.popleft()
                    self._bytes -= len(body)

    def _ended(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def _send(self, signal: Signal, content_type: str, body: bytes) -> None:
        end, pause = time.monotonic() + _SECONDS, 0.25
        while True:
            again, failure = self._senders[signal].send(content_type, body)
            if failure is None:
                self.counts["sent"] += 1
                self.failure = None
                return
            self._tell(signal, failure)
            if not again or time.monotonic() + pause > end or self._ended():
                self.counts["failed"] += 1
                return
            with self._changed:
                # The end cuts a pause short.
                self._changed.wait_for(lambda: self._end is not None, pause)
            pause *= 2

    def _tell(self, signal: Signal, failure: str) -> None:
        if self.failure is None:
            _logger.warning("the application's own endpoint for %s: %s", signal, failure)
        self.failure = failure


def _sender(signal: Signal, destination: Destination) -> _Http | _Grpc:
    return _Http(destination) if destination.protocol == "http" else _Grpc(signal, destination)


class _Http:
    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        try:
            context = ssl.create_default_context(cafile=destination.certificate)
            if destination.client_certificate:
                context.load_cert_chain(destination.client_certificate, destination.client_key)
        except OSError as error:
            raise DeskError(f"a certificate for {destination.url} cannot be read: {error}") from error
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

    def send(self, content_type: str, body: bytes) -> tuple[bool, str | None]:
        """Send; whether to try again, and what went wrong or None."""
        headers = {**self._destination.headers, "Content-Type": content_type}
        if self._destination.gzip:
            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        try:
            request = urllib.request.Request(self._destination.url, body, headers, method="POST")  # noqa: S310  the user's own
            with self._opener.open(request, timeout=_SECONDS) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            return error.code in _AGAIN, f"{self._destination.url} answered {error.code}"
        except http.client.InvalidURL as error:
            return False, f"{self._destination.url}: {error}"
        except (OSError, http.client.HTTPException) as error:
            # No HTTP, or cut short, as by a proxy that is started again.
            return True, f"{self._destination.url}: {error or type(error).__name__}"
        except ValueError as error:
            return False, f"{self._destination.url}: {error}"
        return False, None


class _Grpc:
    def __init__(self, signal: Signal, destination: Destination) -> None:
        try:
            grpc: Any = import_module("grpc")
        except ImportError:
            raise DeskError(
                f"the application's own endpoint {destination.url} speaks gRPC, for which the package grpcio is "
                "missing: pip install grpcio, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
            ) from None
        self._signal: Signal = signal
        self._destination = destination
        self._error: Any = grpc.RpcError
        self._again = {
            grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED
        }  # fmt: skip
        target = destination.url.partition("://")[2] or destination.url
        compression = grpc.Compression.Gzip if destination.gzip else grpc.Compression.NoCompression
        if destination.secure:
            files = (destination.certificate, destination.client_key, destination.client_certificate)
            credentials: Any = grpc.ssl_channel_credentials(*(_content(path) for path in files))
            channel: Any = grpc.secure_channel(target.rstrip("/"), credentials, compression=compression)
        else:
            channel = grpc.insecure_channel(target.rstrip("/"), compression=compression)
        # Without serializers: the bytes go on as they came.
        self._call: Any = channel.unary_unary(f"/opentelemetry.proto.collector.{_SERVICES[signal]}/Export")

    def send(self, content_type: str, body: bytes) -> tuple[bool, str | None]:
        """Send; whether to try again, and what went wrong or None."""
        if content_type != PROTOBUF:
            body = parse(self._signal, content_type, body).SerializeToString()
        try:
            self._call(body, timeout=_SECONDS, metadata=tuple(self._destination.headers.items()))
        except self._error as error:
            return (
                error.code() in self._again,
                f"{self._destination.url}: {error.code().name}: {error.details()}",
            )
        return False, None


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DeskError(f"a certificate cannot be read: {error}") from error
