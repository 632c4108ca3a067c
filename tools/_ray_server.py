"""The tool server that stands between a search and a Ray cluster: each call of a tool becomes a task on some node.

The search starts it as it starts its other servers, without keys in its environment. A node that dies takes no call
with it: the call is made again on another. A call that ends its process twice is told as such, and is not made again.
"""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Annotated, Any

from agentlab.tools import _ray
from agentlab.tools._ray_calls import SERVERS, call_tool, read_files
from agentlab.tools._ray_node import versions
from agentlab.tools._refusals import refusals
from agentlab.tools._server import hints, serve, tool_server
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

server: MCPServer[Any] = tool_server("ray", "Calls tools that read a run's rows on the nodes of a Ray cluster.")

NEEDS = _ray.Needs(cpus=1)
"""What one call takes: the tools compute on one thread."""
LOST, DIED = 10, 2
"""How many nodes may die under one call, and how often a call may end its own process."""
Address = Annotated[str, Field(description="HOST:PORT of the cluster; empty takes $RAY_ADDRESS, or starts one here.")]

_one = asyncio.Lock()


class Joined(BaseModel):
    """How large the cluster is."""

    nodes: int
    cpus: int


class Answered(BaseModel):
    """What the tool answered, or why not: it refused, or ended its process each time."""

    answer: dict[str, Any] | None = None
    refused: str = ""
    died: str = ""


@server.tool(annotations=hints(reads=True, outside=True))
async def join(address: Address = "") -> Joined:
    """Joins the cluster and counts the processors for calls; waits a few seconds for the first node with room."""
    await _join(address)
    with refusals():
        await asyncio.to_thread(_ray.wait_for_room, NEEDS)
    usable = [node for node in _ray.nodes() if NEEDS.fit(node)]
    return Joined(nodes=len(usable), cpus=int(sum(node["CPU"] for node in usable)))


@server.tool(annotations=hints(reads=True, outside=True))
async def call(tool: str, arguments: dict[str, Any], address: Address = "") -> Answered:
    """Calls a tool such as fit.laws on some node, with a run folder of this machine as its `data`."""
    if tool.partition(".")[0] not in SERVERS:
        raise ToolError(f"{tool}: only tools of {', '.join(SERVERS)} run on a cluster")
    await _join(address)
    folder = Path(str(arguments.get("data")))
    try:
        files = _files(folder, (folder / "rows.npz").stat().st_mtime_ns)
    except OSError as error:
        refused = f"{folder}: {error.strerror}: {error.filename}; give a run folder with task.json and rows.npz"
        return Answered(refused=refused)
    return await _until_answered(files, tool, arguments)


async def _until_answered(files: Any, tool: str, arguments: dict[str, Any]) -> Answered:  # noqa: ANN401 - a reference
    from ray import exceptions  # noqa: PLC0415 - heavy, and only for those who have it

    lost = died = 0
    while True:
        task = _ray.submit(call_tool, NEEDS, files, tool, arguments, versions("numpy"))
        try:
            return Answered(**await _waited(task))
        except exceptions.RayTaskError as error:
            raise ToolError(_ray.line_of(error)) from error
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError) as error:
            died += 1
            if died == DIED:
                return Answered(died=_ray.line_of(error))
        except exceptions.RayError as error:
            lost += 1
            if lost == LOST:
                raise ToolError(f"engine=ray: {LOST} nodes died under one call: {_ray.line_of(error)}") from error


async def _waited(task: Any) -> dict[str, Any]:  # noqa: ANN401
    """The answer of a task; the task is taken back where nobody waits for it any more, or no node could ever do it."""
    answer = asyncio.ensure_future(_value(task))
    try:
        while not (await asyncio.wait([answer], timeout=_ray.ROOM))[0]:
            with refusals():
                await asyncio.to_thread(_ray.wait_for_room, NEEDS)
        return answer.result()
    finally:
        if not answer.done():
            answer.cancel()
            _ray.cancel(task)


async def _value(task: Any) -> dict[str, Any]:  # noqa: ANN401
    found: dict[str, Any] = await task
    return found


async def _join(address: str) -> None:
    async with _one:
        with refusals():
            await asyncio.to_thread(_ray.join, address or None)


@functools.lru_cache(maxsize=4)
def _files(folder: Path, _stamp: int) -> Any:  # noqa: ANN401
    """A run folder's rows, left with the cluster once a version of them."""
    return _ray.put(read_files(folder))


if __name__ == "__main__":
    serve(server)
