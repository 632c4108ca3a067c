"""Calls of the `train` server for tests: in memory, and as a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentlab.envs._processes import environment
from agentlab.tools import train
from mcp import Client, StdioServerParameters

GOING = ("starting", "running")


def call(tool: str, arguments: dict[str, Any]) -> Any:
    async def inner() -> Any:
        async with Client(train.server) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(inner())


def ask(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The answer of the server in this process."""
    reply = call(tool, arguments)
    assert not reply.is_error, reply.content
    return dict(reply.structured_content)


def refusal(tool: str, arguments: dict[str, Any]) -> str:
    """The one line by which the server refuses a call."""
    reply = call(tool, arguments)
    assert reply.is_error
    text = str(reply.content[0].text)
    assert "\n" not in text
    return text


def stdio(jobs: Path, pid_file: Path | None = None, extra: Mapping[str, str] | None = None) -> StdioServerParameters:
    """A server over stdio with that jobs folder; a shell writes down its process number and becomes it."""
    env = {**environment(extra), train.JOBS: str(jobs), train.MAX_JOBS: "2"}
    run = [sys.executable, "-m", "agentlab.tools.train"]
    if pid_file is None:
        return StdioServerParameters(command=run[0], args=run[1:], env=env)
    return StdioServerParameters(command="sh", args=["-c", 'echo $$ > "$0"; exec "$@"', str(pid_file), *run], env=env)


def elsewhere(jobs: Path, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The answer of a server in a process of its own."""

    async def inner() -> dict[str, Any]:
        async with Client(stdio(jobs)) as client:
            return dict((await client.call_tool(tool, arguments)).structured_content or {})

    return asyncio.run(inner())


def until(job: str, *states: str) -> dict[str, Any]:
    """Follows a job, as any client would, until it is in one of the states."""
    end = time.monotonic() + 90
    seconds = 0.2 if set(states) & set(GOING) else 15
    while time.monotonic() < end:
        found = ask("wait", {"job": job, "seconds": seconds})
        if found["state"] in states:
            return found
        assert found["state"] in GOING, found
    raise AssertionError(f"{job} never reached {states}")


def until_step(job: str, step: int) -> None:
    """Follows a running job until it has done that many steps."""
    while (found := ask("wait", {"job": job, "seconds": 0.1}))["step"] < step:
        assert found["state"] in GOING, found
