"""Streamable HTTP for a tool server: a bearer token, checked Host and Origin, bounded bodies and sessions."""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import sys
from collections.abc import MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from agentlab.listening import LOOPBACK, end_on_signals, given_token, kept_token, listen, serve_app

TOKEN = "AGENTLAB_TOKEN"  # noqa: S105 -- the name of the variable, not a token

MAX_BODY = 4 << 20
"""Bytes a request may have; a longer one gets 413."""
MAX_SESSIONS = 1024
"""Clients of the older protocol at one time, which hold a session each; one more gets 503. Newer ones hold none."""
IDLE = 600
"""Seconds after which a session without a request is over: its client may have gone without a word."""
MAX_OPEN = 1024
"""Connections at one time; one more gets 503."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen, and by which names: port 0 takes a free one; `names` are host or host:port."""

    host: str = LOOPBACK
    port: int = 0
    names: tuple[str, ...] = ()


class _Bearer(TokenVerifier):
    """Knows one token; compared in constant time, so that the answer's delay says nothing about it."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        if not hmac.compare_digest(token.encode(), self._token):
            return None
        return AccessToken(token=token, client_id="holder", scopes=[])


def serve_http(server: MCPServer[Any], where: Listening, env: MutableMapping[str, str]) -> None:
    """Listen, say where in one JSON line on stdout, serve until SIGTERM or SIGINT, which end the process with code 0.

    Raises:
        BackendError: the address cannot be had.
        AgentlabError: the token in `env` is too short. It is taken out of `env`, so that no child inherits it.
    """
    token = given_token(TOKEN, env)
    end_on_signals()
    with bind(where) as sock, ExitStack() as stack:
        port = sock.getsockname()[1]
        file = None
        if token is None:
            token = secrets.token_urlsafe(32)
            file = stack.enter_context(kept_token(token, f"{server.name}-{port}", env))
        if where.host not in (LOOPBACK, "::1", "localhost"):
            sys.stderr.write(
                f"warning: {where.host} is reached from other machines, and the token goes over the wire as it is; "
                "put a proxy with TLS before it\n"
            )
        sys.stdout.write(json.dumps({"url": url_of(where, sock), "token_file": str(file) if file else None}) + "\n")
        sys.stdout.flush()
        serve_app(http_app(server, where, port, token=token), sock, MAX_OPEN)


def http_app(server: MCPServer[Any], where: Listening, port: int, *, token: str | None) -> ASGIApp:
    """The ASGI application of a server at /mcp; with `token=None`, which no command line gives, open to every process.

    A request without the token gets 401, with a Host that is not ours 421, with an Origin that is not ours 403.
    """
    names = _names(where, port)
    inner: ASGIApp = server.streamable_http_app(
        max_request_body_size=MAX_BODY,
        max_sessions=MAX_SESSIONS,
        session_idle_timeout=IDLE,
        transport_security=TransportSecuritySettings(
            allowed_hosts=names,
            allowed_origins=[f"{scheme}://{name}" for name in names for scheme in ("http", "https")],
        ),
    )
    if token is None:
        return inner
    asked = AuthContextMiddleware(RequireAuthMiddleware(inner, []))
    guarded = AuthenticationMiddleware(asked, backend=BearerAuthBackend(_Bearer(token)))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # Start and stop are no requests, and have no token.
        await (inner if scope["type"] == "lifespan" else guarded)(scope, receive, send)

    return app


def bind(where: Listening) -> socket.socket:
    """A listening socket. Raises BackendError in one line where the address cannot be had."""
    return listen(where.host, where.port, MAX_OPEN, "--http 0 takes a free port")


def url_of(where: Listening, sock: socket.socket) -> str:
    """Where clients find the server behind a socket."""
    host = f"[{where.host}]" if ":" in where.host else where.host
    return f"http://{host}:{sock.getsockname()[1]}/mcp"


def _names(where: Listening, port: int) -> list[str]:
    """Values of Host that mean this server; a name given without a port is meant with and without ours."""
    own = [LOOPBACK, "localhost", "[::1]"]
    if where.host not in ("0.0.0.0", "::"):  # noqa: S104 -- compared with, not bound to
        own.append(f"[{where.host}]" if ":" in where.host else where.host)
    given = [form for name in where.names for form in (name, f"{name}:{port}")]
    return list(dict.fromkeys([*(f"{name}:{port}" for name in own), *given]))
