"""The leaderboard over HTTP, on this machine alone: anybody here may read it, who has a token may submit."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentlab.errors import AgentlabError, BackendError
from agentlab.leaderboard_board import Board
from agentlab.leaderboard_records import MOST_BYTES, TOKEN, RefusedError, read_submission
from agentlab.leaderboard_rows import rows_of, told_of
from agentlab.leaderboard_tasks import task_of
from agentlab.listening import LOOPBACK, end_on_signals, given_token, kept_token, listen, serve_app
from agentlab.trace import dump
from agentlab.words import UsageError

MOST_OPEN = 256
"""Connections at one time; one more gets 503."""


def serve(board: Board, port: int, env: MutableMapping[str, str] = os.environ) -> None:
    """Listen, say where in one JSON line on stdout, serve until SIGTERM or SIGINT, which end the process with code 0.

    The token of $AGENTLAB_BOARD_TOKEN, or a new one in a file that its owner alone reads, may submit in any name;
    `agentlab leaderboard token NAME` makes one for a single name.

    Raises:
        BackendError: the port cannot be had.
        UsageError: the token is too short.
    """
    token = given_token(TOKEN, env)
    end_on_signals()
    with listen(LOOPBACK, port, MOST_OPEN, "--port 0 takes a free one") as sock, ExitStack() as stack:
        port, file = sock.getsockname()[1], None
        if token is None:
            token = secrets.token_urlsafe(32)
            file = stack.enter_context(kept_token(token, f"board-{port}", env))
        sys.stdout.write(
            json.dumps({"url": f"http://{LOOPBACK}:{port}", "token_file": str(file) if file else None}) + "\n"
        )
        sys.stdout.flush()
        serve_app(application(board, token), sock, MOST_OPEN)


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
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])],
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
