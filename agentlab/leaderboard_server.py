"""The leaderboard over HTTP, on this machine alone: anybody here may read it, who has a token may submit."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentlab.errors import AgentlabError, BackendError
from agentlab.files import cache_folder
from agentlab.leaderboard_board import Board
from agentlab.leaderboard_records import MOST_BYTES, TOKEN, RefusedError, read_submission
from agentlab.leaderboard_rows import rows_of, told_of
from agentlab.leaderboard_tasks import task_of
from agentlab.trace import dump
from agentlab.words import UsageError

HOST = "127.0.0.1"
SHORTEST = 16
"""Characters a token must have: fewer can be guessed."""
MOST_OPEN = 256
"""Connections at one time; one more gets 503."""
GRACE = 3
"""Seconds that requests in progress get to end after SIGTERM."""


def serve(board: Board, port: int, env: MutableMapping[str, str] = os.environ) -> None:
    """Listen, say where in one JSON line on stdout, serve until SIGTERM or SIGINT, which end the process with code 0.

    The token of $AGENTLAB_BOARD_TOKEN, or a new one in a file that its owner alone reads, may submit in any name;
    `agentlab leaderboard token NAME` makes one for a single name.

    Raises:
        BackendError: the port cannot be had.
        UsageError: the token is too short.
    """
    token = env.pop(TOKEN, None)
    if token is not None and len(token) < SHORTEST:
        raise UsageError(f"{TOKEN} has {len(token)} characters; give at least {SHORTEST}, or none to have one made")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    with _bound(port) as sock, ExitStack() as stack:
        port, file = sock.getsockname()[1], None
        if token is None:
            token = secrets.token_urlsafe(32)
            file = stack.enter_context(_kept(token, f"board-{port}"))
        sys.stdout.write(json.dumps({"url": f"http://{HOST}:{port}", "token_file": str(file) if file else None}) + "\n")
        sys.stdout.flush()
        config = uvicorn.Config(
            application(board, token), log_level="warning", access_log=False, server_header=False,
            limit_concurrency=MOST_OPEN, timeout_graceful_shutdown=GRACE, ws="none",
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[sock])


def application(board: Board, token: str) -> Starlette:
    """The ASGI application of a board; `token` may submit in any name, those of submitters in their own."""

    async def submit(request: Request) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        given = given if scheme.lower() == "bearer" else ""
        owner = hmac.compare_digest(given.encode(), token.encode())
        holder = None if owner else await run_in_threadpool(board.holder, given)
        if not owner and holder is None:
            return _answer({"error": "no token of this board's; write Authorization: Bearer TOKEN"}, 401)
        body = await _body(request)
        if body is None:
            return _answer({"error": f"too large: send at most {MOST_BYTES} bytes"}, 413)
        name, new = await run_in_threadpool(_receive, board, body, holder)
        return _answer({"id": name, "level": "received", "new": new}, 201 if new else 200)

    async def rows(request: Request) -> Response:
        return _answer(rows_of(await run_in_threadpool(board.rows, request.query_params.get("task"))))

    async def one(request: Request) -> Response:
        try:
            row = await run_in_threadpool(board.row, request.path_params["name"])
        except UsageError as error:
            return _answer({"error": str(error)}, 404)
        return _answer(told_of(row) | {"runs": row.figures.get("runs", {})})

    async def incidents(_request: Request) -> Response:
        return _answer(await run_in_threadpool(board.incidents))

    return Starlette(
        routes=[
            Route("/submissions", _guarded(submit), methods=["POST"]),
            Route("/submissions/{name}", _guarded(one)),
            Route("/board", _guarded(rows)),
            Route("/incidents", _guarded(incidents)),
        ],
        # A page elsewhere can have its own name point here; it cannot change what the browser calls us.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
    )


def _receive(board: Board, body: bytes, holder: str | None) -> tuple[str, bool]:
    _, one = read_submission(body)
    return board.receive(body, task_of(one).version, holder)


Endpoint = Callable[[Request], Awaitable[Response]]


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Errors as one line: what is refused is the sender's (422), what the board cannot do now is ours (503)."""

    async def inner(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RefusedError as error:
            return _answer({"error": str(error), "reason": error.reason}, 422)
        except BackendError as error:
            return _answer({"error": str(error)}, 503)
        except AgentlabError as error:
            return _answer({"error": str(error)}, 400)

    return inner


async def _body(request: Request) -> bytes | None:
    """What was sent, or None as soon as it is more than MOST_BYTES."""
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > MOST_BYTES:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _answer(told: object, status: int = 200) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(dump(told), status, headers, JSONResponse.media_type)


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen(MOST_OPEN)
    except OSError as error:
        sock.close()
        raise BackendError(
            f"cannot listen on {HOST} port {port} ({error.strerror}); --port 0 takes a free one"
        ) from error
    return sock


@contextmanager
def _kept(token: str, name: str) -> Iterator[Path]:
    """A file with the token that only its owner reads, gone when the block is left."""
    folder = cache_folder() / "tokens"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / name
    file.unlink(missing_ok=True)  # of a server on this port that was killed
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(token + "\n")
        yield file
    finally:
        file.unlink(missing_ok=True)


def _end(_number: int, _frame: FrameType | None) -> None:
    """An orderly end is no failure, whenever the signal comes."""
    raise SystemExit(0)
