"""What is sent to a worker over HTTP: read within bounds, and answered by what became of it."""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, cast

from otel_quantmon.evaluator.directory import DirectorySource
from otel_quantmon.evaluator.source import Claimed, EvaluatorError, Verdict
from otel_quantmon.telemetry.bodies import ENCODINGS, BodyError, BodyTooLargeError, expanded

__all__ = ["Receiver", "ReceivingSource", "RefusedError"]

_logger = logging.getLogger("otel_quantmon")

# Bytes of a request, decompressed: the Collector's receivers take as many.
_LARGEST = 20 * 1024**2

# Seconds that a client may be silent, and that a body may take.
_PATIENCE = 30.0
_BODY_SECONDS = 60.0

# Requests that are read and worked on at once: each may take several times the largest body of memory. Others wait for
# their turn for some seconds, since not every client sends again.
_AT_ONCE = 8
_TURN_SECONDS = 5.0

# Connections, each of which has a thread.
_MOST_CONNECTIONS = 128

# Bytes that are read at once.
_PIECE = 2**16

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


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
        status, said = 503, b"too much is being received at once"
        turns = cast("_Server", self.server).turns
        if turns.acquire(timeout=_TURN_SECONDS):
            try:
                status, said = self._taken()
            finally:
                turns.release()
        # What has not been read of a request that was refused would be taken for the next one.
        self.close_connection = self.close_connection or status != 200
        self.send_response(status)
        self.send_header("Content-Type", self.answers if status == 200 else "text/plain")
        self.send_header("Content-Length", str(len(said)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(said)

    def _taken(self) -> tuple[int, bytes]:
        try:
            self.take()
        except RefusedError as error:
            return error.status, str(error).encode(errors="replace")
        except (OSError, EvaluatorError) as error:
            _logger.warning("samples cannot be kept: %s", error)
            return 503, b"samples cannot be kept"
        except Exception:
            _logger.exception("a request could not be taken")
            return 500, b"it could not be taken"
        return 200, b""

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
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ENCODINGS:
            raise RefusedError(415, f"it is compressed in another way than {', '.join(ENCODINGS)}")
        try:
            return expanded(self._read(int(length)), encoding, _LARGEST)
        except BodyError as error:
            raise RefusedError(400, str(error)) from error
        except BodyTooLargeError as error:
            raise RefusedError(413, f"it would have more than {_LARGEST} bytes") from error

    def _read(self, length: int) -> bytes:
        """Read the body as it came; a client that sends it byte by byte is not waited for."""
        until = monotonic() + _BODY_SECONDS
        pieces: list[bytes] = []
        try:
            while length:
                self.connection.settimeout(min(_PATIENCE, max(0.001, until - monotonic())))
                pieces.append(self.rfile.read1(min(length, _PIECE)))
                if not pieces[-1]:
                    raise RefusedError(400, "it ended early")
                length -= len(pieces[-1])
        except TimeoutError as error:
            raise RefusedError(408, f"it did not come in {_BODY_SECONDS:g} s") from error
        except OSError as error:
            raise RefusedError(400, "the connection was lost") from error
        finally:
            self.connection.settimeout(_PATIENCE)
        return b"".join(pieces)


class _Server(ThreadingHTTPServer):
    """A server that has so many threads at most; past that it answers at once that it is busy."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[Receiver]) -> None:
        self.turns = threading.BoundedSemaphore(_AT_ONCE)
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            with suppress(OSError):
                request.sendall(_BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  the base class's
        # A client that has gone before its answer, as a rule.
        _logger.debug("a connection of %s ended: %s", client_address, sys.exc_info()[1])


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
            self._server = _Server((host, port), handler)
        except OSError as error:
            raise EvaluatorError(f"{host}:{port} cannot be listened on: {error}") from error
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
