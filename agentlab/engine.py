"""Where a search has its tools called: by servers of this machine, or by the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from agentlab.engine_ray import NODES, ClusterError, Spread
from agentlab.tool_spec import ServerSpec
from agentlab.toolbox import Toolbox

__all__ = ["ClusterError", "Engine", "Local", "open_engine"]

PORTIONS = {"fit.laws": 8, "program.judge": 4}
"""Candidates a call: programs take seconds each."""


class Engine(Protocol):
    """Calls tools by name. What they answer does not depend on where they run, nor on how candidates are portioned."""

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The structured result of a tool.

        Raises:
            EvaluationError: the tool refuses.
            ClusterError: the cluster is gone, or has no room; nothing is said about what was asked.
            BackendError: the server died of it.
        """
        ...

    def portion(self, tool: str) -> int:
        """How many candidates one call of this tool takes at most."""
        ...


class Local:
    """The tool servers of this machine."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What a free copy of the server answers."""
        return await self._toolbox.call(tool, arguments)

    def portion(self, tool: str) -> int:
        """The same for every machine."""
        return PORTIONS[tool]


@asynccontextmanager
async def open_engine(
    engine: str, servers: Sequence[ServerSpec], address: str | None = None, window: int = 64
) -> AsyncIterator[Engine]:
    """The engine of that name until the block ends; `window` is how many candidates are under way at most.

    With "ray", tools that only read the rows of a run are called on the nodes, the other servers run here.

    Raises:
        ClusterError: Ray is missing, nothing answers at the address, or no node has room.
        BackendError: a server does not start.
    """
    if engine == "local":
        async with Toolbox(servers) as toolbox:
            yield Local(toolbox)
        return
    here = [spec for spec in servers if spec.name not in NODES]
    async with Spread(address, window, PORTIONS) as spread, Toolbox(here) as toolbox:
        yield spread.beside(toolbox)
