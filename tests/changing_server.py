"""A tool server for tests: its tools grow, die, wait and count; every start and call is noted in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations

server: MCPServer[Any] = MCPServer("changing", log_level="ERROR")
NOTES = Path(os.environ["AGENTLAB_JOBS"]) / "notes"
CANCELLED = anyio.Event()
_READ = ToolAnnotations(read_only_hint=True, idempotent_hint=True)


def note(line: str) -> None:
    """One line of what happened here."""
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


@server.tool()
async def grow(name: str, ctx: Context[Any]) -> dict[str, int]:
    """Give this server one more tool, and tell its clients."""

    def fresh(moss: int) -> int:
        """Counts the moss on a stone."""
        return moss

    server.add_tool(fresh, name=name, annotations=_READ)
    await ctx.notify_tools_changed()
    return {"tools": len(await server.list_tools())}


@server.tool()
async def shrink(name: str, ctx: Context[Any]) -> dict[str, int]:
    """Take a tool away, and tell the clients."""
    server.remove_tool(name)
    await ctx.notify_tools_changed()
    return {"tools": len(await server.list_tools())}


@server.tool(annotations=_READ)
async def die_once() -> dict[str, int]:
    """Die the first time it is asked, and answer from then on; nothing else changes."""
    before = NOTES.read_text(encoding="utf-8").count("die_once") if NOTES.exists() else 0
    note("die_once")
    if not before:
        os._exit(3)
    return {"asked": before + 1}


@server.tool()
async def spend() -> dict[str, int]:
    """Spend something, and die before the answer: it must not be asked twice."""
    note("spend")
    os._exit(3)


@server.tool()
async def pid() -> dict[str, int]:
    """Tell the process id; nobody says that it may be repeated."""
    note("pid")
    return {"pid": os.getpid()}


@server.tool()
async def wait(seconds: float, ctx: Context[Any]) -> dict[str, float]:
    """Wait, with progress."""
    try:
        for done in range(100):
            await ctx.report_progress(done + 1, 100, f"step {done + 1}")
            await anyio.sleep(seconds / 100)
    except anyio.get_cancelled_exc_class():
        CANCELLED.set()
        raise
    return {"waited": seconds}


@server.tool()
async def cancelled() -> dict[str, bool]:
    """Answer once a wait was cancelled."""
    await CANCELLED.wait()
    return {"cancelled": True}


@server.tool(structured_output=False)
async def say() -> str:
    """Answer in text alone."""
    return "only words"


if __name__ == "__main__":
    server.run("stdio")
