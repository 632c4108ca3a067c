"""A small tool server on our factory for tests of serving: adds, tells progress, waits to be cancelled."""

from __future__ import annotations

from typing import Any

import anyio
from agentlab.tools._server import hints, serve, tool_server
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

server: MCPServer[Any] = tool_server("small", "For tests.")
cancelled: list[str] = []
heard = anyio.Event()


@server.tool(annotations=hints(reads=True))
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@server.tool(annotations=hints(reads=True))
async def steps(count: int, ctx: Context[Any]) -> int:
    """Tells its progress so many times."""
    for done in range(1, count + 1):
        await ctx.report_progress(done, count)
    return count


@server.tool(annotations=hints(reads=True))
async def endless(name: str, ctx: Context[Any]) -> str:
    """Says that it has begun, then waits until it is cancelled."""
    try:
        await ctx.report_progress(1, None)
        await anyio.sleep_forever()
    finally:
        cancelled.append(name)
        heard.set()
    return "never"


@server.tool(annotations=hints(reads=True))
async def ended() -> list[str]:
    """The names of the endless calls that were cancelled, as soon as there is one."""
    with anyio.fail_after(30):
        await heard.wait()
    return cancelled


@server.tool(annotations=hints(reads=True))
def refuse(why: str) -> str:
    """Refuses."""
    raise ToolError(why)


@server.tool(annotations=hints(reads=True))
def crash() -> str:
    """Has a bug."""
    raise RuntimeError("/etc/secret: a detail of the inside")


if __name__ == "__main__":
    serve(server)
