"""The MCP client: tool servers side by side, their tools called by name or found by what they do."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from mcp import Client
from mcp.shared.dispatcher import ProgressFnT

from agentlab.catalog import find_server, server_names
from agentlab.tool_connection import Connection
from agentlab.tool_index import ToolIndex
from agentlab.tool_records import Changes, Found, Tool, listed_tool
from agentlab.tool_spec import ServerSpec
from agentlab.types import BackendError, EvaluationError

__all__ = ["FIND_TOOLS", "ServerSpec", "Toolbox", "call_once", "find_tools", "list_tools", "server_spec"]

SPEAKS = "agentlab.tools.infer"
"""The one server of ours that speaks with model services, and so needs their keys."""

FIND_TOOLS: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find_tools",
        "description": "Find tools by what they do. Ask again in other words, or for more, where none of them fits.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What the tool should do, in a few words."},
                "k": {"type": "integer", "description": "How many tools at most.", "minimum": 1, "maximum": 50},
            },
            "required": ["query"],
        },
    },
}
"""The one tool that an agent is given at first, as chat models take it; `Toolbox.call` answers it like any other."""


class Toolbox:
    """Running tool servers; an async context manager. `call("fit.laws", {...})` goes to a free copy of server `fit`.

    Args:
        servers: where the servers are.
        timeout: seconds a call may take.
        index: where tools are looked up; one in memory unless given. It comes to hold the tools of these servers alone.
    """

    def __init__(self, servers: Sequence[ServerSpec], timeout: float = 600.0, index: ToolIndex | None = None) -> None:
        self._specs = {s.name: s for s in servers}
        self._timeout = timeout
        self._copies: dict[str, list[Connection]] = {}
        self._free: dict[str, asyncio.Queue[Connection]] = {}
        self._index = index
        self._one = asyncio.Lock()
        self.absent: dict[str, str] = {}
        """Servers that did not answer the last search for tools, and what was wrong."""

    async def __aenter__(self) -> Self:
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        for spec in self._specs.values():
            copies = [Connection(spec, self._timeout, listens=number == 0) for number in range(spec.copies)]
            self._copies[spec.name] = copies
            self._free[spec.name] = asyncio.Queue()
            for copy in copies:
                self._free[spec.name].put_nowait(copy)
        started = asyncio.gather(*(c.start() for c in self._all()), return_exceptions=True)
        try:
            failures = [f for f in await started if f is not None]
        except asyncio.CancelledError:
            await self._stop()
            raise
        if failures:
            await self._stop()
            raise failures[0]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(c.stop() for c in self._all()))

    def _all(self) -> list[Connection]:
        return [copy for copies in self._copies.values() for copy in copies]

    async def call(
        self, tool: str, arguments: Mapping[str, Any], progress: ProgressFnT | None = None
    ) -> dict[str, Any]:
        """The structured result of one tool call, {"text": ...} where the tool gives text alone.

        Waits for a free copy of the server. A server that died is started again, and asked once more where its tool
        may be repeated. Leaving the scope of the call (a time-out, a cancelled task) cancels it on the server.
        `progress` is awaited with (progress, total, message) as the tool reports.

        Raises:
            EvaluationError: the tool refuses, in its own line, or there is no such tool.
            BackendError: no server answers, or none of that name runs.
        """
        if tool == "find_tools":
            query, k = _asked(arguments)
            return {"tools": [found.told() for found in await self.find_tools(query, k)]}
        name = max((n for n in self._free if tool.startswith(f"{n}.")), key=len, default=None)
        if name is None:
            raise self._no_server(tool.partition(".")[0])
        queue = self._free[name]
        copy = await queue.get()
        try:
            return await copy.call(tool.removeprefix(f"{name}."), arguments, progress)
        finally:
            queue.put_nowait(copy)

    async def tools(self, server: str, *, refresh: bool = False) -> tuple[Tool, ...]:
        """What a server lists: asked again where it may have changed, or with `refresh`.

        Raises:
            BackendError: it does not answer, or none of that name runs.
        """
        if server not in self._copies:
            raise self._no_server(server)
        return await self._copies[server][0].tools(refresh=refresh)

    async def find_tools(self, query: str, k: int = 10, *, refresh: bool = False) -> list[Found]:
        """The tools that fit what a query asks, the best first; it may be asked again and again.

        The index follows the servers: those that said that their tools changed, or that cannot say so, are asked for
        their tools first; with `refresh` all are. A server that does not answer has no tools and is told in `absent`.

        Raises:
            AgentlabError: the query is empty or `k` is not positive.
        """
        async with self._one:
            if self._index is None:
                self._index = ToolIndex()
            await self._sync(self._index, refresh=refresh)
            # A served embedder waits for its service; the other calls in progress need not.
            return await asyncio.to_thread(self._index.find, query, k)

    async def sync_tools(self) -> Changes:
        """Ask every server for its tools and make the index follow; what changed."""
        async with self._one:
            if self._index is None:
                self._index = ToolIndex()
            return await self._sync(self._index, refresh=True)

    def _no_server(self, name: str) -> BackendError:
        running = ", ".join(self._free) or "none"
        return BackendError(f"no tool server {name!r} is running; running are {running}")

    async def _sync(self, index: ToolIndex, *, refresh: bool) -> Changes:
        names = list(self._copies)
        answers = await asyncio.gather(*(self.tools(name, refresh=refresh) for name in names), return_exceptions=True)
        listed: dict[str, Sequence[Tool]] = dict.fromkeys(index.servers, ())
        self.absent = {}
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, BackendError):
                self.absent[name] = str(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                listed[name] = answer
        return await asyncio.to_thread(index.sync, listed)


def _asked(arguments: Mapping[str, Any]) -> tuple[str, int]:
    """The arguments of find_tools, which a model wrote. Raises EvaluationError where they are of another kind."""
    query, k = arguments.get("query"), arguments.get("k", 10)
    if not isinstance(query, str) or type(k) is not int or arguments.keys() - {"query", "k"}:
        raise EvaluationError('find_tools: write {"query": TEXT} or {"query": TEXT, "k": NUMBER}')
    return query, k


def call_once(tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Start the server that a tool belongs to, call the tool, stop the server."""

    async def once() -> dict[str, Any]:
        async with Toolbox([server_spec(tool.rpartition(".")[0] or tool)]) as toolbox:
            return await toolbox.call(tool, arguments)

    return asyncio.run(once())


def list_tools() -> list[dict[str, str]]:
    """Name ("fit.laws") and description of every tool of every server that the catalog finds."""
    return [{"name": tool.full_name, "description": tool.description} for tool in known_tools()]


def find_tools(query: str, k: int = 5) -> list[dict[str, Any]]:
    """The best `k` of the same tools for what a query asks: name, brief and the schema of the arguments.

    Raises:
        AgentlabError: the query is empty or `k` is not positive.
    """
    index = ToolIndex()
    tools = known_tools()
    index.sync({server: [t for t in tools if t.server == server] for server in {t.server for t in tools}})
    return [found.told() for found in index.find(query, k)]


def known_tools() -> list[Tool]:
    """Every tool of every server that the catalog finds, asked in memory.

    Raises:
        BackendError: a server cannot be imported for want of another package.
    """

    async def ask(name: str) -> list[Tool]:
        module_name = server_spec(name).module
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise BackendError(f"tool server {name}: {module_name} needs the package {error.name!r}") from error
        async with Client(module.server) as client:
            found = await client.list_tools()
        tools = [listed_tool(name, tool) for tool in found.tools]
        return [replace(tool, description=inspect.cleandoc(tool.description)) for tool in tools]

    return [tool for name in server_names() for tool in asyncio.run(ask(name))]


def server_spec(name: str, copies: int = 1) -> ServerSpec:
    """How to start the tool server of that name; an unknown name gets the nearest."""
    module = find_server(name)
    return ServerSpec(name, module, copies, keys=module == SPEAKS)
