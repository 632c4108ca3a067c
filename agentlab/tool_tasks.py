"""The client's side of the tasks extension (SEP-2663): a long tool's call waits for its job, and cancels it when left.

`Client(target, extensions=[TasksClient()])` makes `call_tool` return the result of the finished job. `task_state`,
`follow` and `cancel_task` take a task id, so that a second connection finds a job that the first one started.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import anyio
from mcp.client import ClaimContext, ClientExtension, ResultClaim
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp.types import REQUEST_TIMEOUT, CallToolResult, EmptyResult, Request, RequestParams, Result, TextContent

TASKS = "io.modelcontextprotocol/tasks"
MIN_POLL, MAX_POLL = 0.05, 5.0
"""Seconds between two looks, whatever the server asks for."""
LAST_WORD = 5.0
"""Seconds that a cancelled call may still take to tell the server."""


class TaskState(Result):
    """A task as the server tells it; `status` is working, input_required, completed, failed or cancelled."""

    task_id: str
    status: str
    status_message: str = ""
    created_at: str = ""
    last_updated_at: str = ""
    ttl_ms: int | None = None
    poll_interval_ms: int = 1000
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    input_requests: dict[str, Any] | None = None


class Created(Result):
    """The answer to `tools/call` that stands for a task: its id, and how often to look."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    poll_interval_ms: int = 1000


class _TaskParams(RequestParams):
    task_id: str


class _Get(Request[_TaskParams, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    params: _TaskParams
    name_param = "taskId"


class _Cancel(Request[_TaskParams, Literal["tasks/cancel"]]):
    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: _TaskParams
    name_param = "taskId"


class TasksClient(ClientExtension):
    """Declares the extension; `on_state` hears the state of every look, the first one when the task was created."""

    identifier = TASKS

    def __init__(self, on_state: Callable[[TaskState], None] | None = None) -> None:
        self._on_state = on_state

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """The result shape that this extension finishes."""
        return [ResultClaim(result_type="task", model=Created, resolve=self._resolve)]

    async def _resolve(self, created: Created, ctx: ClaimContext) -> CallToolResult:
        if self._on_state is not None:
            self._on_state(TaskState(task_id=created.task_id, status=created.status))
        with anyio.move_on_after(ctx.read_timeout_seconds):
            return await follow(ctx.session, created.task_id, self._on_state)
        # As the SDK says it of any other call: a TimeoutError would be an OSError, which reads like a lost connection.
        raise MCPError(
            code=REQUEST_TIMEOUT,
            message=f"task {created.task_id} did not end in {ctx.read_timeout_seconds:g} s and was cancelled",
        )


async def task_state(session: ClientSession, task_id: str) -> TaskState:
    """How a task stands. Raises MCPError with code -32602 where the server knows none of that id."""
    return await session.send_request(_Get(params=_TaskParams(task_id=task_id)), TaskState)


async def cancel_task(session: ClientSession, task_id: str) -> None:
    """Stop a task; one that has ended stays as it is."""
    await session.send_request(_Cancel(params=_TaskParams(task_id=task_id)), EmptyResult)


async def follow(
    session: ClientSession, task_id: str, on_state: Callable[[TaskState], None] | None = None
) -> CallToolResult:
    """Wait for a task and return its result; leaving the scope of this call cancels the task.

    Where the whole connection is torn down with the call, nothing can be said any more: the task goes on, and any
    other connection finds it.
    """
    try:
        while True:
            state = await task_state(session, task_id)
            if on_state is not None:
                on_state(state)
            if state.status != "working":
                return _ended(state)
            await anyio.sleep(min(max(state.poll_interval_ms / 1000, MIN_POLL), MAX_POLL))
    except anyio.get_cancelled_exc_class():
        with anyio.move_on_after(LAST_WORD, shield=True), suppress(MCPError):
            await cancel_task(session, task_id)
        raise


def _ended(state: TaskState) -> CallToolResult:
    if state.status == "completed" and state.result is not None:
        return CallToolResult.model_validate(state.result)
    if state.status == "input_required":
        asked = ", ".join(state.input_requests or {})
        why = f"waits for an answer to {asked}, which this client cannot give; send tasks/update or cancel it"
    else:
        why = state.status_message or str((state.error or {}).get("message", "")) or "no reason told"
        why = f"{state.status}: {why}"
    return CallToolResult(content=[TextContent(type="text", text=f"task {state.task_id} {why}")], is_error=True)
