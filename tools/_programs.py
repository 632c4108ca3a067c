"""Asking one of our own programs, which answers in JSON lines: its last line, or its error as a refusal."""

from __future__ import annotations

from collections.abc import Sequence

from agentlab.envs import Limits
from agentlab.envs.local import Local
from agentlab.tools._job_files import Fields, error_text, objects
from mcp.server.mcpserver.exceptions import ToolError


async def last_answer(argv: Sequence[str], who: str, *, stdin: str = "", seconds: float) -> Fields:
    """The last line of a program, without its event; `who` begins what is told where none comes in time.

    Raises ToolError where the program gives no line within so many seconds, or says that something is wrong.
    """
    async with Local(limits=Limits(output_bytes=1 << 20)) as here:
        done = await here.exec(argv, stdin=stdin, timeout=seconds)
    lines = [line for _, line in objects(done.stdout.encode())]
    if done.timed_out or not lines:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise ToolError(f"{who} in {done.seconds:.0f} s: {said[-1][:300]}")
    if lines[-1].get("event") == "error":
        raise ToolError(error_text(lines[-1]))
    return {k: v for k, v in lines[-1].items() if k != "event"}
