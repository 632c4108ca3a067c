"""How the tools of the lab get their answers: from commands, which report how long they take, or from files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread
from agentlab.tools._lab_calls import Calls
from agentlab.tools._lab_runs import Runs
from agentlab.tools._lab_words import Work, stamp
from mcp.server.mcpserver import Context

SLOW = "not there yet; call again with the same arguments"
"""What is said of a command that takes longer than a call may."""

T = TypeVar("T")

calls = Calls()
"""The commands of this server."""
runs = Runs()
"""The runs that it follows."""


async def off(work: Callable[..., T], *given: object) -> T:
    """A function in a thread: what reads files must not hold up the calls of others."""
    return await anyio.to_thread.run_sync(work, *given)


async def ask(
    argv: list[str], ctx: Context[Any] | None, asked: Work | None = None, *, keys: bool = False
) -> dict[str, Any] | None:
    """What `python ARGV` answers, None while it is under way; the seconds it takes are told as progress.

    An answer to `asked` is kept as long as the files that it depends on are the same.

    Raises:
        ToolError: the command refuses, in its own line.
    """

    async def tell(seconds: float) -> None:
        if ctx is not None:
            await ctx.report_progress(seconds, None, f"{seconds:.0f} s")

    if asked is None:
        found: dict[str, Any] | None = await calls.ask(argv, None, tell, keys=keys, keep=False)
    else:
        found = await calls.ask(argv, asked.model_dump(), tell, stamp=await off(stamp, asked))
    return found


async def compute(asked: Work, ctx: Context[Any]) -> dict[str, Any] | None:
    """What `_lab_work` answers, None while it is under way. Raises ToolError as `ask`."""
    return await ask(["-P", "-m", "agentlab.tools._lab_work"], ctx, asked)
