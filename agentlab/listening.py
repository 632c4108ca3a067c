"""What every server here does alike: a socket, a token in a file that its owner alone reads, and an orderly end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from agentlab.errors import AgentlabError, BackendError
from agentlab.files import cache_folder

__all__ = ["LOOPBACK", "end_on_signals", "given_token", "kept_token", "listen", "serve_app"]

LOOPBACK = "127.0.0.1"
SHORTEST = 16
"""Characters a token must have: fewer can be guessed."""
GRACE = 3
"""Seconds that requests in progress get to end after SIGTERM."""


def given_token(variable: str, env: MutableMapping[str, str]) -> str | None:
    """The token that `variable` holds, taken out of `env`, so that no child inherits it; None where there is none.

    Raises:
        AgentlabError: it is too short.
    """
    token = env.pop(variable, None)
    if token is not None and len(token) < SHORTEST:
        raise AgentlabError(
            f"{variable} has {len(token)} characters; give at least {SHORTEST}, or none to have one made"
        )
    return token


def listen(host: str, port: int, most: int, remedy: str) -> socket.socket:
    """A listening socket for at most `most` waiting connections; port 0 takes a free one.

    Raises:
        BackendError: the address cannot be had; the line ends with the `remedy`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, for asyncio turns Nagle's algorithm off only where it is: else an answer waits 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(most)
    except OSError as error:
        sock.close()
        raise BackendError(f"cannot listen on {host} port {port} ({error.strerror}); {remedy}") from error
    return sock


@contextmanager
def kept_token(token: str, name: str, env: Mapping[str, str]) -> Iterator[Path]:
    """A file with the token that only its owner reads, gone when the block is left."""
    folder = cache_folder(env) / "tokens"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    file = folder / name
    file.unlink(missing_ok=True)  # of a server on this port that was killed
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(token + "\n")
        yield file
    finally:
        file.unlink(missing_ok=True)


def serve_app(app: ASGIApp, sock: socket.socket, most: int) -> None:
    """Serve at most `most` connections until SIGTERM or SIGINT; requests in progress get GRACE seconds."""
    end_on_signals()
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=most,
        timeout_graceful_shutdown=GRACE,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[sock])


def end_on_signals() -> None:
    """Let SIGTERM and SIGINT end the process with code 0, whenever they come.

    uvicorn takes them over while it serves, and raises them again when it has shut down: an orderly end is no failure.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
