"""The server that bench/serving.py calls, twice over: on our factory, and bare, as the SDK makes it.

`python bench/serving_peer.py ours|bare` serves over stdio, with `--http PORT` over HTTP: `ours` with its token, its
checks and its bounds, `bare` without a token.
"""

from __future__ import annotations

import sys
from typing import Any

from agentlab.tools._server import hints, serve, tool_server
from mcp.server import MCPServer


def ours() -> MCPServer[Any]:
    """A server as every tool server of ours is made."""
    server: MCPServer[Any] = tool_server("ours", "Adds.")
    return server


def bare() -> MCPServer[Any]:
    """A server of the SDK's own."""
    return MCPServer("bare", log_level="WARNING")


def main() -> None:
    """Serve as the words say."""
    which, *rest = sys.argv[1:]
    server = {"ours": ours, "bare": bare}[which]()

    @server.tool(annotations=hints(reads=True))
    async def add(a: int, b: int) -> int:
        """The sum, at once."""
        return a + b

    @server.tool(annotations=hints(reads=True))
    def add_in_thread(a: int, b: int) -> int:
        """The same by a plain function, which the SDK runs in a worker thread."""
        return a + b

    if which == "ours":
        serve(server, rest)
    elif rest:
        server.run("streamable-http", host="127.0.0.1", port=int(rest[1]))
    else:
        server.run("stdio")


if __name__ == "__main__":
    main()
