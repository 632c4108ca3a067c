"""The live view: the page and the events of its runs, served to this machine alone."""

from __future__ import annotations

import asyncio
import json
import socket
import webbrowser
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agentlab.discover_files import TRACE
from agentlab.errors import BackendError
from agentlab.replay import open_run
from agentlab.web.bundle import page
from agentlab.web.feed import Feed
from agentlab.web.page import page_run

HOST = "127.0.0.1"
PATIENCE = 20.0
"""Seconds that a viewer may take to read a piece; then it is cut off, and comes back by itself."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Kept:
    """The page's data of one run, made anew only when its trace has grown, once for all who ask."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state: tuple[object, ...] = ()
        self._told: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    async def told(self) -> dict[str, Any]:
        """The run as the page draws it."""
        async with self._lock:
            paths = [self.folder / TRACE, *sorted(self.folder.glob(f"rounds/*/{TRACE}"))]
            state = tuple(path.stat().st_size if path.exists() else 0 for path in paths)
            if state != self._state:
                self._told = await asyncio.to_thread(lambda: page_run(open_run(self.folder)))
                self._state = state
            return self._told


class Stream(Response):
    """Server-sent events to one viewer."""

    def __init__(self, events: AsyncIterator[bytes], patience: float = PATIENCE) -> None:
        super().__init__(headers=HEADERS, media_type="text/event-stream")
        self.events, self.patience = events, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send until the viewer goes away or does not read."""
        head = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        gone = asyncio.ensure_future(_gone(receive))
        sending = asyncio.ensure_future(self._send(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, sending):
                task.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        async for piece in self.events:
            async with asyncio.timeout(self.patience):
                await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def app(folders: Sequence[Path], board: dict[str, Any]) -> Starlette:
    """The page of some runs at "/", a run's data at "/run/0", its events at "/events/0?after=LINE"."""
    kept, feeds = [Kept(f) for f in folders], [Feed(f) for f in folders]

    async def whole(_request: Request) -> Response:
        return HTMLResponse(page([await k.told() for k in kept], board, live=True), headers=HEADERS)

    async def run(request: Request) -> Response:
        told = json.dumps(await kept[_place(request, len(kept))].told(), separators=(",", ":"))
        return Response(told, media_type="application/json", headers=HEADERS)

    async def events(request: Request) -> Response:
        last = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        return Stream(feeds[_place(request, len(feeds))].events(int(last) if last.isdecimal() else 0))

    @asynccontextmanager
    async def following(_app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(feed.follow()) for feed in feeds]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Other sites could reach a server on loopback by a name of their own that leads here.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    routes = [Route("/", whole), Route("/run/{place:int}", run), Route("/events/{place:int}", events)]
    return Starlette(routes=routes, middleware=[hosts, Middleware(GZipMiddleware)], lifespan=following)


def _place(request: Request, runs: int) -> int:
    return min(int(request.path_params["place"]), runs - 1)


def serve(
    folders: Sequence[Path], board: dict[str, Any], port: int, tell: Callable[[str], None], *, browser: bool
) -> None:
    """Serve the page until Ctrl-C; `tell` is given its address. Port 0 is any that is free.

    Raises:
        BackendError: the port is taken.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(128)  # whoever is told the address may come at once
    except OSError as error:
        listening.close()
        raise BackendError(f"port {port} cannot be had ({error.strerror}); give another with --port") from error
    address = f"http://{HOST}:{listening.getsockname()[1]}/"
    tell(address)
    if browser:
        webbrowser.open(address)
    config = uvicorn.Config(app(folders, board), log_level="warning", timeout_graceful_shutdown=1)
    with listening:
        uvicorn.Server(config).run(sockets=[listening])
