"""Serves the page of a run: its files, its data as JSON, and a stream of server-sent events that announces changes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otel_quantmon.desk.pace import Pace
from otel_quantmon.desk.page import assets
from otel_quantmon.desk.page.views import model_view, run_view, trace_view
from otel_quantmon.desk.schema import open_reader
from otel_quantmon.desk.server import Server

__all__ = ["POLICY", "Page", "application"]

# plotly adds <style> elements of its own. Nothing that comes from a run becomes markup, so they are all there is.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-elem 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_LOOK_SECONDS = 1.0
# So often at least something is sent: that is how a browser which has gone is noticed.
_QUIET_SECONDS = 15.0


class Page:
    """The page of the run in ``database``, served from `start` to `stop` on loopback alone.

    Args:
        database: File of the run, which may still grow.
        port: 0 for any that is free.

    Raises:
        DeskError: The file is not one of a run, plotly is not installed, or the port is taken.
    """

    def __init__(self, database: Path, port: int = 0) -> None:
        open_reader(database).close()
        assets.charts_script()
        self._ending = threading.Event()
        self._server = Server(application(database, self._ending), "otel-quantmon-page", port=port)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return self._server.address

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self) -> None:
        """End the streams, and close the port."""
        self._ending.set()
        self._server.stop()


def application(database: Path, ending: threading.Event) -> ASGIApp:
    """The page as an ASGI application, whose streams end with ``ending``.

    Checking the ``Host`` header is the server's part.
    """
    # Of all browsers together: each change makes them ask again.
    pace = Pace()

    async def look(view: Callable[[sqlite3.Connection], Any]) -> Response:
        with pace.view():
            found = await run_in_threadpool(_read, database, view)
        return JSONResponse({"error": "not found"}, 404) if found is None else JSONResponse(found)

    async def get_run(_: Request) -> Response:
        return await look(run_view)

    async def get_model(request: Request) -> Response:
        model: int = request.path_params["model"]
        return await look(lambda reader: model_view(reader, model))

    async def get_trace(request: Request) -> Response:
        trace: str = request.path_params["trace"]
        return await look(lambda reader: trace_view(reader, trace) or None)

    async def get_changes(_: Request) -> Response:
        return StreamingResponse(_changes(database, ending, pace), media_type="text/event-stream")

    async def get_index(_: Request) -> Response:
        return Response(_index(), media_type="text/html")

    async def get_file(request: Request) -> Response:
        name: str = request.path_params["name"]
        if name == "plotly.js":
            # It stays the same as long as the page does.
            return Response(
                await run_in_threadpool(assets.charts_script),
                headers={"Cache-Control": "max-age=86400"},
                media_type="text/javascript",
            )
        media = _FILES.get(name)
        return Response(status_code=404) if media is None else Response(assets.read(name), media_type=media)

    routes = [
        Route("/", get_index),
        Route("/static/{name}", get_file),
        Route("/api/run", get_run),
        Route("/api/models/{model:int}", get_model),
        Route("/api/traces/{trace}", get_trace),
        Route("/api/changes", get_changes),
    ]
    return _WithHeaders(Starlette(routes=routes), _HEADERS)


_FILES = {
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(assets.SCRIPTS, "text/javascript"),
}


class _WithHeaders:
    """Adds ``headers`` to each answer that has not its own."""

    def __init__(self, inner: ASGIApp, headers: Mapping[str, str]) -> None:
        self._inner = inner
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    found.setdefault(name, value)
            await send(message)

        await self._inner(scope, receive, send_with_headers)


def _index() -> str:
    names = ("plotly.js", *assets.SCRIPTS)
    scripts = "\n".join(f'<script defer src="static/{name}"></script>' for name in names)
    head = f'<link rel="stylesheet" href="static/style.css">\n<link rel="icon" href="static/icon.svg">\n{scripts}'
    return assets.index(head, "")


def _read(database: Path, view: Callable[[sqlite3.Connection], Any]) -> Any:
    # A connection of its own for each question: they come on many threads, and opening one costs little.
    with closing(open_reader(database)) as reader:
        return view(reader)


async def _changes(database: Path, ending: threading.Event, pace: Pace) -> AsyncIterator[str]:
    """An event at once and whenever something was written, and a comment now and then."""
    reader = await run_in_threadpool(open_reader, database)
    try:
        seen, quiet = None, 0.0
        while not ending.is_set():
            # It changes with each commit of another connection.
            version = (await run_in_threadpool(reader.execute, "PRAGMA data_version")).fetchone()[0]
            if version != seen and not pace.rest():
                seen, quiet = version, 0.0
                yield f"event: change\ndata: {version}\n\n"
            elif quiet >= _QUIET_SECONDS:
                quiet = 0.0
                yield ": still here\n\n"
            # A long rest goes on at the next look, so that the end of the run is not missed.
            await anyio.sleep(_LOOK_SECONDS)
            quiet += _LOOK_SECONDS
    finally:
        reader.close()
