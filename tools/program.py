"""The tool server `program`: judges laws that are Python programs, each in a sandbox of its own.

Such a program defines `fit(X, y)` and `law(X, params)`. It sees the inner splits of a run's rows, never its hold-out,
and only a sandbox that confines it may run it.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Annotated, Any, Literal

from agentlab.tools._refusals import refusals
from agentlab.tools._run_folder import Effort, Folder, problem_of, rounded_outcome
from agentlab.tools._server import hints, serve, tool_server
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from agentlab.program import judge_program, programs
from agentlab.trace import dump, outcome_record

server: MCPServer[Any] = tool_server(
    "program", "Judge laws written as Python programs, fit(X, y) and law(X, params), in a sandbox."
)


class JudgedPrograms(BaseModel):
    """Outcomes in the order of the programs, as the trace records them, and the sandbox that they ran in."""

    sandbox: str = Field(description="Which sandbox, and why that one.")
    outcomes: list[dict[str, Any]]


@server.tool(annotations=hints(reads=True))
async def judge(
    data: Folder,
    texts: Annotated[
        list[str],
        Field(
            min_length=1,
            max_length=64,
            description="Programs. Each defines fit(X, y) -> params, at most the task's cap of numbers, and "
            "law(X, params) -> y; X is [n, d] with the task's features in order, y is [n]. numpy and scipy are there.",
        ),
    ],
    ctx: Context[Any, Any],
    effort: Effort = "search",
    sandbox: Annotated[
        Literal["auto", "docker", "bubblewrap"], Field(description="auto: the strongest that works here.")
    ] = "auto",
    seconds: Annotated[float, Field(gt=0, le=300, description="What one fit or one prediction may take.")] = 30.0,
) -> JudgedPrograms:
    """Fit and judge laws that are programs: description length, nested hold-outs with refit, in fresh sandboxes.

    A program that hangs, cheats or answers nonsense is rejected with its reason and delays no other.
    """
    problem, done = problem_of(data), 0
    cores = os.cpu_count() or 1
    at_once = asyncio.Semaphore(cores)

    async def one(text: str) -> dict[str, Any]:
        nonlocal done
        async with at_once:
            outcome = await judge_program(text, problem, pool, final=effort == "final", seconds=seconds)
        done += 1
        await ctx.report_progress(done, len(texts), f"{done} of {len(texts)} programs")
        record: dict[str, Any] = json.loads(dump(outcome_record(rounded_outcome(outcome))))
        return record

    with refusals():
        async with programs(sandbox, size=min(2 * cores, 2 * len(texts)), starting=cores) as (pool, chosen):
            judging = [asyncio.ensure_future(one(text)) for text in texts]
            try:
                outcomes = await asyncio.gather(*judging)
            finally:
                for task in judging:  # where one has failed for want of a sandbox, the others wait for none
                    task.cancel()
    return JudgedPrograms(sandbox=chosen.why, outcomes=outcomes)


if __name__ == "__main__":
    serve(server)
