"""The OTLP endpoint of a run: ``/v1/traces``, ``/v1/metrics`` and ``/v1/logs`` on loopback, in protobuf or JSON.

Each answer closes its connection. A forked process inherits its parent's connections, and two that write to one would
garble each other's requests; to connect anew costs little here.

https://opentelemetry.io/docs/specs/otlp/#otlphttp: 400 and 413 are not sent again, 429 and 503 are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from otel_quantmon.desk.messages import (
    JSON,
    PROTOBUF,
    SIGNALS,
    MalformedError,
    Signal,
    failure,
    success,
)
from otel_quantmon.desk.server import Server
from otel_quantmon.desk.store import BusyError, FailedError, Store
from otel_quantmon.telemetry.bodies import ENCODINGS, BodyError, BodyTooLargeError, expanded

__all__ = ["MOST_BYTES", "Receiver"]

MOST_BYTES = 64 * 2**20
"""Of a body, as it comes and decompressed: what the SDK's exporters send at most."""

_CONNECTION_SECONDS = 60.0
_BODY_SECONDS = 30.0
# Of bodies that are being received, together; each is held once.
_MOST_HELD = 4 * MOST_BYTES


class _RefusedError(Exception):
    """A request is answered with a status other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Receiver:
    """Receives into ``store`` from `start` to `stop`.

    Args:
        store: Store of what is received; a request is answered once it is committed.
        forward: A function that is given each accepted request (signal, content type, body): for an endpoint of the
            application's own. Has to return at once.
    """

    def __init__(self, store: Store, forward: Callable[[Signal, str, bytes], object] | None = None) -> None:
        self._store = store
        self._forward = forward
        self._held = 0
        routes = [Route(f"/v1/{signal}", self._endpoint(signal), methods=["POST"]) for signal in SIGNALS]
        self._server = Server(
            Starlette(routes=routes), "otel-quantmon-receiver", connection_seconds=_CONNECTION_SECONDS
        )

    @property
    def address(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set to. Requests may come before `start`, and wait."""
        return self._server.address

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self) -> None:
        """Answer what has come, and take nothing more."""
        self._server.stop()

    def _endpoint(self, signal: Signal) -> Callable[[Request], object]:
        async def receive(request: Request) -> Response:
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            status, headers = 200, {"Connection": "close"}
            try:
                answer = await self._receive(signal, content_type, request)
            except _RefusedError as error:
                status, answer = error.status, failure(content_type, str(error))
                if status == 503:
                    headers["Retry-After"] = "1"
            except ClientDisconnect:
                status, answer = 400, b""
            return Response(answer, status, headers, PROTOBUF if content_type == PROTOBUF else JSON)

        return receive

    async def _receive(self, signal: Signal, content_type: str, request: Request) -> bytes:
        if content_type not in {PROTOBUF, JSON}:
            raise _RefusedError(415, f"send {PROTOBUF} or {JSON}")
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ENCODINGS:
            raise _RefusedError(415, f"no such encoding here: send {', '.join(ENCODINGS)}")
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > MOST_BYTES:
            raise _RefusedError(413, _TOO_LARGE)
        held = 0
        try:
            pieces: list[bytes] = []
            with anyio.fail_after(_BODY_SECONDS):
                async for piece in request.stream():
                    held += len(piece)
                    self._held += len(piece)
                    if held > MOST_BYTES:
                        raise _RefusedError(413, _TOO_LARGE)
                    if self._held > _MOST_HELD:
                        raise _RefusedError(503, "too much is being received at once")
                    pieces.append(piece)
            body = expanded(b"".join(pieces), encoding, MOST_BYTES)
            outcome = await asyncio.wrap_future(self._store.submit(signal, content_type, body))
        except (MalformedError, BodyError) as error:
            raise _RefusedError(400, str(error)) from error
        except BodyTooLargeError as error:
            raise _RefusedError(413, _TOO_LARGE) from error
        except TimeoutError as error:
            raise _RefusedError(408, f"the body did not come in {_BODY_SECONDS:g} s") from error
        except BusyError as error:
            raise _RefusedError(503, "too much waits to be written") from error
        except FailedError as error:
            raise _RefusedError(500, str(error)) from error
        finally:
            self._held -= held
        if self._forward is not None and not outcome.duplicate:
            self._forward(signal, content_type, body)
        return success(signal, content_type, outcome.rejected, outcome.message)


_TOO_LARGE = f"a body may have {MOST_BYTES} bytes at most, decompressed too"
