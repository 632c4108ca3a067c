"""The MCP client: starts tool servers, calls their tools, replaces a server that died, times out and cancels."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

from agentlab.catalog import find_server, server_names
from agentlab.types import BackendError, EvaluationError

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""One thread a server: as many servers as cores compute side by side, and sums do not depend on the machine."""

_KEEP = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH"),
    *("CUDA_VISIBLE_DEVICES", "AGENTLAB_DATA", "AGENTLAB_JOBS", "AGENTLAB_MAX_JOBS"),
)
"""What of our environment a tool server gets: no keys, no tokens."""


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """How to start a tool server: a module with an object `server`, run as `python -m module` over stdio."""

    name: str
    module: str
    copies: int = 1


class Toolbox:
    """Running tool servers; an async context manager. `call("fit.laws", {...})` goes to a free copy of server `fit`."""

    def __init__(self, servers: Sequence[ServerSpec], timeout: float = 600.0) -> None:
        self._specs = {s.name: s for s in servers}
        self._timeout = timeout
        self._free: dict[str, asyncio.Queue[_Copy]] = {}
        self._copies: list[_Copy] = []

    async def __aenter__(self) -> Self:
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        for spec in self._specs.values():
            queue: asyncio.Queue[_Copy] = asyncio.Queue()
            for _ in range(spec.copies):
                copy = _Copy(spec, self._timeout)
                self._copies.append(copy)
                queue.put_nowait(copy)
            self._free[spec.name] = queue
        started = await asyncio.gather(*(c.start() for c in self._copies), return_exceptions=True)
        for failure in started:
            if failure is not None:
                await self._stop()
                raise failure
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(c.stop() for c in self._copies))

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The structured result of one tool call.

        Waits for a free copy of the server. A server that died is started again and asked once more. Raises
        EvaluationError with the tool's own line when the tool refuses, BackendError when no server answers.
        """
        name, _, method = tool.partition(".")
        if name not in self._free:
            raise BackendError(f"no tool server {name!r} is running; running are {', '.join(self._free) or 'none'}")
        queue = self._free[name]
        copy = await queue.get()
        try:
            return await copy.call(method, arguments)
        finally:
            queue.put_nowait(copy)


class _Copy:
    """One process of a tool server.

    The client's context must be entered and left in one task, so a task of its own holds it open.
    """

    def __init__(self, spec: ServerSpec, timeout: float) -> None:
        self._spec = spec
        self._timeout = timeout
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._end = asyncio.Event()

    async def start(self) -> None:
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._end = asyncio.Event()
        self._task = asyncio.create_task(self._hold(ready, self._end))
        self._client = await ready

    async def _hold(self, ready: asyncio.Future[Client], end: asyncio.Event) -> None:
        env = {k: os.environ[k] for k in _KEEP if k in os.environ} | THREADS
        parameters = StdioServerParameters(command=sys.executable, args=["-m", self._spec.module], env=env)
        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(Client(parameters))
                ready.set_result(client)
                await end.wait()
        except (OSError, MCPError, RuntimeError, ExceptionGroup):
            # What a dying server leaves behind; whoever called it is told by the call itself.
            pass
        finally:
            if not ready.done():
                ready.set_exception(
                    BackendError(f"tool server {self._spec.name!r} did not start; try: python -m {self._spec.module}")
                )

    async def stop(self) -> None:
        self._end.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._call(method, arguments)
        except (MCPError, OSError):
            await self.stop()
            await self.start()
        try:
            return await self._call(method, arguments)
        except (MCPError, OSError) as error:
            raise BackendError(f"tool {self._spec.name}.{method} got no answer twice: {error}") from error

    async def _call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self._client is None:
            raise OSError(f"{self._spec.name} is not running")
        result = await self._client.call_tool(method, dict(arguments), read_timeout_seconds=self._timeout)
        if result.is_error:
            text = " ".join(getattr(c, "text", "") for c in result.content).strip()
            raise EvaluationError(
                f"{self._spec.name}.{method}: {text.removeprefix(f'Error executing tool {method}: ')}"
            )
        return dict(result.structured_content or {})


def call_once(tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Start the server that a tool belongs to, call the tool, stop the server."""

    async def once() -> dict[str, Any]:
        async with Toolbox([server_spec(tool.partition(".")[0])]) as toolbox:
            return await toolbox.call(tool, arguments)

    return asyncio.run(once())


def list_tools() -> list[dict[str, str]]:
    """Name ("fit.laws") and description of every tool of every server that the catalog finds."""

    async def ask(name: str) -> list[dict[str, str]]:
        module = importlib.import_module(server_spec(name).module)
        async with Client(module.server) as client:
            found = await client.list_tools()
        return [{"name": f"{name}.{t.name}", "description": t.description or ""} for t in found.tools]

    return [tool for name in server_names() for tool in asyncio.run(ask(name))]


def server_spec(name: str, copies: int = 1) -> ServerSpec:
    """How to start the tool server of that name; an unknown name gets the nearest."""
    return ServerSpec(name, find_server(name), copies)
