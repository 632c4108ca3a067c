"""One connection to a tool server, over stdio or HTTP: holds it open, replaces it when it dies, knows its tools."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, NoReturn

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

from agentlab.errors import BackendError, EvaluationError, nearest
from agentlab.tool_records import Tool, listed_tool
from agentlab.tool_spec import ServerSpec, environment
from agentlab.tool_tasks import TasksClient

START = 120.0
"""Seconds a server may take to start and to list its tools."""
PAGES = 100
"""Pages of a tool list that are read: a list that never ends cannot hang us."""


class Connection:
    """One process of a tool server, or one client of a server at a URL.

    The client's context must be entered and left in one task, so a task of its own holds it open.
    """

    def __init__(self, spec: ServerSpec, timeout: float, *, listens: bool = False) -> None:
        self._spec = spec
        self._timeout = timeout
        self._listens = listens
        self._hears = False
        self._stale = True
        self._closed = False
        self._tools: dict[str, Tool] = {}
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._end = asyncio.Event()
        self._one = asyncio.Lock()

    async def start(self) -> None:
        """Connect and learn what tools there are. Raises BackendError where there is no server within START seconds."""
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._end = asyncio.Event()
        self._task = asyncio.create_task(self._hold(ready, self._end))
        try:
            async with asyncio.timeout(START):
                client = await ready
                await self._list(client)
        except (TimeoutError, MCPError, OSError) as error:
            self._task.cancel()
            await self._drop()
            raise self._spec.unreachable() from error
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        self._client, self._stale = client, True

    async def stop(self) -> None:
        """End the server's process or leave the server; it is not started again."""
        self._closed = True
        await self._drop()

    async def _drop(self) -> None:
        self._client = None
        self._end.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _replace(self, seen: Client | None) -> Client:
        """A client that is not the `seen` one, which died: whoever notices first replaces it for all."""
        async with self._one:
            if self._client is None or self._client is seen:
                await self._drop()
                if self._closed:
                    raise BackendError(f"tool server {self._spec.name!r} is closed; open the toolbox again")
                await self.start()
            if self._client is None:
                raise self._spec.unreachable()
            return self._client

    # ---- the task that holds the client ----

    async def _hold(self, ready: asyncio.Future[Client], end: asyncio.Event) -> None:
        try:
            async with AsyncExitStack() as stack:
                extensions = [TasksClient()] if self._spec.tasks else None
                client = await stack.enter_async_context(Client(await self._target(stack), extensions=extensions))
                listener = asyncio.create_task(self._listen(client)) if self._listens else None
                if not ready.done():
                    ready.set_result(client)
                    await end.wait()
                if listener is not None:
                    listener.cancel()
                    await asyncio.gather(listener, return_exceptions=True)
        except (OSError, MCPError, RuntimeError, httpx2.HTTPError, ExceptionGroup):
            # What a dying server leaves behind; whoever called it is told by the call itself.
            pass
        except BackendError as error:
            if not ready.done():
                ready.set_exception(error)
        finally:
            if not ready.done():
                ready.set_exception(self._spec.unreachable())

    async def _target(self, stack: AsyncExitStack) -> Any:  # noqa: ANN401 -- the SDK's union of transports is not exported
        if not self._spec.url:
            env = environment(keys=self._spec.keys) | dict(self._spec.env)
            return StdioServerParameters(command=sys.executable, args=["-m", self._spec.module], env=env)
        headers = {"Authorization": f"Bearer {self._spec.token()}"} if self._spec.token_env else {}
        # Redirects are not followed: the token goes where it was meant to go, and nowhere else.
        limits = httpx2.Timeout(30.0, read=self._timeout + 30.0)
        http = await stack.enter_async_context(
            httpx2.AsyncClient(headers=headers, timeout=limits, follow_redirects=False)
        )
        return streamable_http_client(self._spec.url, http_client=http)

    async def _listen(self, client: Client) -> None:
        """Note each time the server says that its tools changed; one that cannot say so is asked before each search."""
        with suppress(ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError):
            async with client.listen(tools_list_changed=True) as changes:
                self._hears = bool(changes.honored.tools_list_changed)
                self._stale = True
                async for _ in changes:
                    self._stale = True
        self._hears = False

    # ---- what it can do ----

    async def tools(self, *, refresh: bool = False) -> tuple[Tool, ...]:
        """The server's tools: asked for again where it may have changed, or with `refresh`.

        Raises BackendError where the server does not answer, and cannot be started again.
        """
        if refresh or self._stale or not self._hears:
            await self._living()
        return tuple(self._tools.values())

    async def _living(self) -> Client:
        """A client whose server has just answered with its list of tools."""
        seen = self._client
        if seen is not None:
            with suppress(MCPError, OSError):
                await self._list(seen)
                return seen
        return await self._replace(seen)

    async def _list(self, client: Client) -> None:
        # Before the list is asked for: a change during the answer must not be overlooked.
        self._stale = False
        tools: dict[str, Tool] = {}
        cursor = None
        for _ in range(PAGES):
            page = await client.list_tools(cursor=cursor, cache_mode="refresh")
            tools |= {t.name: listed_tool(self._spec.name, t) for t in page.tools}
            cursor = page.next_cursor
            if cursor is None:
                break
        self._tools = tools

    # ---- calls ----

    async def call(
        self, method: str, arguments: Mapping[str, Any], progress: ProgressFnT | None = None
    ) -> dict[str, Any]:
        """The structured result of a tool; leaving the scope cancels the call on the server too.

        A server that died is started again. It is asked once more where its tool may be repeated; any other tool is
        asked only once a server has shown that it lives.
        """
        client = self._client
        if client is None or method not in self._tools or not self._tools[method].repeatable:
            client = await self._living()
        if method not in self._tools:
            name, whole = f"{self._spec.name}.{method}", [f"{self._spec.name}.{tool}" for tool in self._tools]
            raise EvaluationError(f"{name}: no such tool; {nearest(name, whole)}")
        try:
            return await self._ask(client, method, arguments, progress)
        except (MCPError, OSError) as error:
            await self._lost(method, error, client)
        try:
            return await self._ask(await self._replace(client), method, arguments, progress)
        except (MCPError, OSError) as error:
            raise BackendError(f"tool {self._spec.name}.{method} got no answer twice: {error}") from error

    async def _lost(self, method: str, error: MCPError | OSError, client: Client) -> None:
        """Return where the tool may be asked again; raise what is to be told otherwise."""
        name = f"{self._spec.name}.{method}"
        code = error.code if isinstance(error, MCPError) else CONNECTION_CLOSED
        if code == REQUEST_TIMEOUT:
            if self._spec.module:
                # A tool in a thread computes on after its call was cancelled; only the end of its process stops it.
                await self._replace(client)
            raise BackendError(f"tool {name}: no answer within {self._timeout:g} s; its call was cancelled") from error
        if code != CONNECTION_CLOSED:
            raise EvaluationError(f"{name}: {error}") from error
        if not self._tools[method].repeatable:
            await self._replace(client)
            raise BackendError(
                f"tool {name}: the server died while asked, and asking twice may do it twice; see what it did, then ask"
            ) from error

    async def _ask(
        self, client: Client, method: str, arguments: Mapping[str, Any], progress: ProgressFnT | None
    ) -> dict[str, Any]:
        result = await client.call_tool(
            method, dict(arguments), read_timeout_seconds=self._timeout, progress_callback=progress
        )
        text = " ".join(getattr(c, "text", "") for c in result.content).strip()
        if result.is_error:
            self._refused(method, text)
        if result.structured_content is None:
            return {"text": text}
        return dict(result.structured_content)

    def _refused(self, method: str, text: str) -> NoReturn:
        line = _one_line(text.removeprefix(f"Error executing tool {method}: "))
        raise EvaluationError(f"{self._spec.name}.{method}: {line}")


def _one_line(text: str) -> str:
    """A refusal in one line: of pydantic's several, what is wrong with which argument."""
    head, *lines = text.splitlines() or [""]
    if "validation error" not in head:
        return " ".join(text.split())
    wrong, place = [], ""
    for line in lines:
        if not line.startswith(" "):
            place = line.strip()
        elif not line.lstrip().startswith("For further information"):
            wrong.append(f"{place}: {line.partition(' [type=')[0].strip()}")
    return "; ".join(wrong) or head
