"""Tool calls on a Ray cluster, through a server of ours that joins it: Ray itself never runs in this process."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from agentlab.engine_address import token
from agentlab.errors import BackendError, EvaluationError
from agentlab.tool_connection import Connection
from agentlab.tool_spec import ServerSpec
from agentlab.toolbox import Toolbox

NODES = ("fit", "program")
"""Servers whose tools only read the rows of a run: they run on the nodes."""
PATIENCE = 1e7
"""Seconds to wait for an answer: calls wait in the cluster's queue, and Ray says when a node is gone."""


class ClusterError(BackendError):
    """The cluster is gone, or has no room: it says nothing about what was asked of it."""


class Spread:
    """Calls on the nodes of a cluster; an async context manager.

    Args:
        address: HOST:PORT; None takes $RAY_ADDRESS, or starts a cluster of this machine for as long as this is open.
        window: candidates under way at most.
        portions: candidates a call, by tool; fewer are taken where the cluster is so large that nodes would idle.
    """

    def __init__(self, address: str | None, window: int, portions: Mapping[str, int]) -> None:
        self._address, self._window, self._portions = address or "", window, portions
        spec = ServerSpec("ray", "agentlab.tools._ray_server", env=tuple(token().items()))
        self._link = Connection(spec, PATIENCE)
        self._cpus = 1
        self._toolbox: Toolbox | None = None

    async def __aenter__(self) -> Self:
        await self._link.start()
        try:
            self._cpus = (await self._ask("join", {}))["cpus"]
        except BaseException:
            await self._link.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._link.stop()

    def beside(self, toolbox: Toolbox) -> Self:
        """The same, with the servers that no node runs."""
        self._toolbox = toolbox
        return self

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What some node answers; for the other servers, what the one of this machine answers."""
        if tool.partition(".")[0] not in NODES and self._toolbox is not None:
            return await self._toolbox.call(tool, arguments)
        told = await self._ask("call", {"tool": tool, "arguments": dict(arguments)})
        if told["died"]:
            raise BackendError(f"tool {tool} got no answer twice: {told['died']}")
        if told["refused"]:
            raise EvaluationError(f"{tool}: {told['refused']}")
        return dict(told["answer"])

    def portion(self, tool: str) -> int:
        """At most so many that every processor has two calls before it; a program has a sandbox, and a call, alone."""
        if tool == "program.judge":
            return 1
        return max(1, min(self._portions[tool], self._window // (2 * self._cpus)))

    async def _ask(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._link.call(method, {**arguments, "address": self._address})
        except EvaluationError as error:
            raise ClusterError(str(error).removeprefix(f"ray.{method}: ")) from error
        except BackendError as error:
            raise ClusterError(str(error)) from error
