"""Tools that start jobs, for the scenarios of the tasks extension: real jobs of the real store."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from agentlab.tools._job_files import Job
from agentlab.tools._jobs import Store, jobs_folder
from agentlab.tools._tasks import LongTool, Tasks
from conformance.fixture_inputs import NAME, answered
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import InputRequiredResult
from pydantic import BaseModel, JsonValue

PROGRAM = Path(__file__).with_name("fixture_job.py")


class Work(BaseModel):
    """Where a job stands, and what came of it."""

    job: str
    state: str
    message: str = ""
    result: dict[str, JsonValue] | None = None


def view(job: Job) -> Work:
    return Work(job=job.id, state=job.state, message=job.message, result=job.result)


def begin(kind: str, **config: JsonValue) -> Work:
    argv = [sys.executable, str(PROGRAM), kind, json.dumps(config)]
    return view(Store(jobs_folder()).start(kind, config, lambda _: argv, name=f"{kind}-{uuid.uuid4().hex[:12]}"))


def greet(name: str) -> str:
    """Greets at once."""
    return f"Hello, {name}!"


def slow_compute(seconds: float, label: str = "") -> Work:
    """Computes for so many seconds."""
    return begin("slow_compute", seconds=seconds, label=label)


def failing_job() -> Work:
    """Fails after a while."""
    return begin("failing_job")


def protocol_error_job() -> Work:
    """Is killed while it works."""
    return begin("protocol_error_job")


def confirm_delete(filename: str) -> Work:
    """Asks before it deletes."""
    return begin("confirm_delete", filename=filename)


def multi_input() -> Work:
    """Asks two things at once."""
    return begin("multi_input")


async def test_tool_with_task(ctx: Context[Any]) -> Work | InputRequiredResult:
    """Asks for a name, then works on."""
    name = answered(ctx, "user_name", "name")
    if name is None:
        return InputRequiredResult(input_requests={"user_name": NAME}, request_state="asked")
    return begin("test_tool_with_task", name=name)


TOOLS = (greet, slow_compute, failing_job, protocol_error_job, confirm_delete, multi_input, test_tool_with_task)
REQUIRED = {"failing_job", "test_tool_with_task"}
tasks = Tasks(
    lambda: Store(jobs_folder()),
    {
        tool.__name__: LongTool(tool.__name__, view, required=tool.__name__ in REQUIRED)
        for tool in TOOLS
        if tool is not greet
    },
)


def add_to(server: MCPServer[Any]) -> None:
    """Give a server these tools."""
    for tool in TOOLS:
        server.add_tool(tool)
