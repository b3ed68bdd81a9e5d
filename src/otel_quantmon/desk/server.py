"""A web application served on loopback alone, by uvicorn on a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from otel_quantmon.errors import DeskError

__all__ = ["Server"]


class Server:
    """Serves ``application`` on a free port of 127.0.0.1 from `start` to `stop`.

    A request has to name this host in its ``Host`` header: a page of somewhere else whose name was made to lead here
    (DNS rebinding) is refused.

    Args:
        application: An ASGI application.
        name: Name of the thread.
        connection_seconds: Seconds after which a connection is closed in any case, such as one that sends its headers
            byte by byte; None for pages that stay open.
        connections: Most connections at once; more are answered with 503.
        port: 0 for any that is free.

    Attributes:
        port: Port that is listened on, from the construction on.

    Raises:
        DeskError: The port is taken.
    """

    def __init__(
        self,
        application: ASGIApp,
        name: str,
        *,
        connection_seconds: float | None = None,
        connections: int = 1000,
        port: int = 0,
    ) -> None:
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", port))
        except OSError as error:
            self._socket.close()
            raise DeskError(f"port {port} of this host cannot be had: {error.strerror}") from error
        self.port: int = self._socket.getsockname()[1]
        # Whoever connects before the start waits in here.
        self._socket.listen(256)

        class Protocol(H11Protocol):
            """Ends with its time."""

            # The transport is narrower than asyncio's own, as uvicorn has it.
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                if connection_seconds is not None:
                    self.end = self.loop.call_later(connection_seconds, transport.abort)

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                if connection_seconds is not None:
                    self.end.cancel()

        config = uvicorn.Config(
            TrustedHostMiddleware(application, ["127.0.0.1", "localhost"], www_redirect=False),
            http=Protocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            limit_concurrency=connections,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def address(self) -> str:
        """The URL of the root, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what has been asked, two seconds at most, and close the port."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        asyncio.run(self._server.serve([self._socket]))
