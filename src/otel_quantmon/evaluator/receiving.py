"""What is sent to a worker over HTTP: read within bounds, and answered by what became of it."""

from __future__ import annotations

import logging
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.source import Claimed, EvaluatorError, Verdict

__all__ = ["Receiver", "ReceivingSource", "RefusedError"]

_logger = logging.getLogger("otel_quantmon")

# Bytes of a request, decompressed: the Collector's receivers take as many.
_LARGEST = 20 * 1024**2

# Seconds that a client may be silent.
_PATIENCE = 30.0


class RefusedError(Exception):
    """A request that is not taken, with the status that it is answered with."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class Receiver(BaseHTTPRequestHandler):
    """Takes what is posted.

    Attributes:
        answers: Content type of an answer without an error.
    """

    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE
    answers = "text/plain"

    def take(self) -> None:
        """Take the request.

        Raises:
            RefusedError: It is not taken.
        """
        raise NotImplementedError

    def do_POST(self) -> None:
        """Answer by what became of the request."""
        status, said = 200, b""
        try:
            self.take()
        except RefusedError as error:
            status, said = error.status, str(error).encode(errors="replace")
        except (OSError, EvaluatorError) as error:
            _logger.warning("samples cannot be kept: %s", error)
            status, said = 503, b"samples cannot be kept"
        # What has not been read of a request that was refused would be taken for the next one.
        self.close_connection = self.close_connection or status != 200
        self.send_response(status)
        self.send_header("Content-Type", self.answers if status == 200 else "text/plain")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Nothing: clients say what they miss."""

    def body(self) -> bytes:
        """Return the body, decompressed.

        Raises:
            RefusedError: It is too large, or not what it says.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise RefusedError(411, "its length is missing")
        if int(length) > _LARGEST:
            raise RefusedError(413, f"it has {length} bytes, and {_LARGEST} are taken at most")
        body = self.rfile.read(int(length))
        encoding = self.headers.get("Content-Encoding", "identity")
        if encoding == "identity":
            return body
        if encoding != "gzip":
            raise RefusedError(415, "it is compressed in another way than gzip")
        try:
            expander = zlib.decompressobj(zlib.MAX_WBITS | 16)
            body = expander.decompress(body, _LARGEST)
        except zlib.error as error:
            raise RefusedError(400, "it is no gzip") from error
        if expander.unconsumed_tail:
            raise RefusedError(413, f"it would have more than {_LARGEST} bytes")
        return body


class ReceivingSource:
    """A server that keeps what it is sent in a directory, from which it is claimed. See `Source`.

    Args:
        waiting: Source of the directory.
        host: Address to listen on.
        port: Port; 0 for a free one.
        handler: Class that answers the requests.
        name: Name of the server's thread.

    Attributes:
        port: Port that it listens on.

    Raises:
        EvaluatorError: The address cannot be used.
    """

    unreached = None

    def __init__(
        self, waiting: DirectorySource, host: str, port: int, handler: type[Receiver], name: str
    ) -> None:
        self._waiting = waiting
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            raise EvaluatorError(f"{host}:{port} cannot be listened on: {error}") from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name=name, daemon=True
        )
        self._thread.start()

    def claim(self, most: int, seconds: float) -> list[Claimed]:
        """See `Source.claim`."""
        return self._waiting.claim(most, seconds)

    def renew(self) -> None:
        """See `Source.renew`."""
        self._waiting.renew()

    def settle(self, claimed: Claimed, verdict: Verdict, reason: str = "") -> None:
        """See `Source.settle`."""
        self._waiting.settle(claimed, verdict, reason)

    def close(self) -> None:
        """See `Source.close`. What was kept is in the directory."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._waiting.close()
