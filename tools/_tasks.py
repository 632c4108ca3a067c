"""The tasks extension (SEP-2663, `io.modelcontextprotocol/tasks`) over the job store: a task is a job, by the same id.

A client that declares the extension gets a task from a tool that starts a job, and the tool's ordinary result when the
job has ended. Any other client gets that result at once, the job just started, and polls the server's own tools.
Nothing is remembered here: any connection finds a task, and so does a server started after the first was killed.

A job may ask: its program writes asks.json, {key: {"method": .., "params": ..}}, in its folder and waits for
answers/<key>.json. Until all are there the task says `input_required`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from agentlab.tools._job_files import read_object
from agentlab.tools._jobs import NAME, Job, Store
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp.types import CallToolRequestParams, CallToolResult, RequestParams, TextContent
from mcp_types.jsonrpc import HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS
from pydantic import BaseModel, Field

from agentlab.files import write_json

TASKS = "io.modelcontextprotocol/tasks"
VERSIONS = frozenset({"2026-07-28"})
POLL_MS = 500
"""How often a client is asked to look; a look costs a few small file reads."""

CHANGING = ("process.json", "log.jsonl", "asks.json", "answers", "cancelled", "result.json")
"""What in a job's folder changes when the job gets on."""

Request = ServerRequestContext[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LongTool:
    """A tool that starts a job.

    Attributes:
        kind: Kind of its jobs in the store; one long tool a kind, so that the kind tells whose job it is.
        view: What the tool says about a job, the moment it was started and when it has ended.
        required: Refuse clients without the extension (-32021) instead of answering them at once.
        id_field: Field of the tool's result that has the job's id.
    """

    kind: str
    view: Callable[[Job], BaseModel]
    required: bool = False
    id_field: str = "job"


class TaskId(RequestParams):
    """Parameters of tasks/get and tasks/cancel."""

    task_id: str


class Answers(TaskId):
    """Parameters of tasks/update: answers by the keys that the task asked under."""

    input_responses: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Tasks(Extension):
    """`tool_server(.., extensions=[Tasks(store, {"start": LongTool("train", view)})])`.

    Args:
        store: Gives the job store; asked at every call, since where jobs lie may be set after import.
        tools: The long tools by name; other tools are left as they are.
    """

    identifier = TASKS

    def __init__(self, store: Callable[[], Store], tools: Mapping[str, LongTool]) -> None:
        self._store = store
        self._tools = dict(tools)
        self._kinds = {tool.kind: tool for tool in tools.values()}
        if len(self._kinds) != len(tools):
            raise ValueError("two long tools start jobs of one kind; give each its own")

    def methods(self) -> Sequence[MethodBinding]:
        """What the extension adds to the protocol."""
        return [
            MethodBinding("tasks/get", TaskId, self._get, VERSIONS),
            MethodBinding("tasks/cancel", TaskId, self._cancel, VERSIONS),
            MethodBinding("tasks/update", Answers, self._update, VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Request, call_next: CallNext
    ) -> HandlerResult:
        """Turn the record of a job just started into a task, for a client that declared the extension."""
        tool = self._tools.get(params.name)
        if tool is None:
            return await call_next(ctx)
        if tool.required:
            require_client_extension(ctx, TASKS)
        result = await call_next(ctx)
        if not _declared(ctx) or not isinstance(result, CallToolResult) or result.is_error:
            return result
        task_id = str((result.structured_content or {}).get(tool.id_field))
        return {"resultType": "task", **await _off_the_loop(lambda: _envelope(self._find(task_id)))}

    async def _get(self, ctx: Request, params: TaskId) -> HandlerResult:
        _check(ctx, params)

        def state() -> dict[str, Any]:
            job = self._find(params.task_id)
            return {"resultType": "complete", **_envelope(job), **_outcome(job, self._kinds[job.kind])}

        return await _off_the_loop(state)

    async def _cancel(self, ctx: Request, params: TaskId) -> HandlerResult:
        _check(ctx, params)
        await _off_the_loop(lambda: self._store().cancel(self._find(params.task_id).id))
        return {"resultType": "complete"}

    async def _update(self, ctx: Request, params: Answers) -> HandlerResult:
        _check(ctx, params)
        await _off_the_loop(lambda: _answer(self._find(params.task_id), params.input_responses))
        return {"resultType": "complete"}

    def _find(self, task_id: str) -> Job:
        """The job behind a task id. Raises MCPError -32602 where there is none of this server's kinds."""
        try:
            job = self._store().find(task_id)
        except ToolError as error:
            raise MCPError(code=INVALID_PARAMS, message=str(error), data={"taskId": task_id}) from error
        if job.kind not in self._kinds:
            raise MCPError(
                code=INVALID_PARAMS,
                message=f"no task {task_id} here: it is a job of kind {job.kind}, ask the server that started it",
                data={"taskId": task_id},
            )
        return job


async def _off_the_loop(work: Callable[[], T]) -> T:
    """Do what reads files or waits for processes in a thread; a refusal becomes an error of the protocol."""
    try:
        return await anyio.to_thread.run_sync(work)
    except ToolError as error:
        raise MCPError(code=INTERNAL_ERROR, message=str(error)) from error


def _answer(job: Job, answers: Mapping[str, Any]) -> None:
    """Put answers where the job looks; what is answered already, or was never asked, is passed over."""
    for key in answers.keys() & pending(job).keys():
        (job.folder / "answers").mkdir(exist_ok=True)
        write_json(job.folder / "answers" / f"{key}.json", answers[key])


def pending(job: Job) -> dict[str, Any]:
    """What a job asks and has no answer to yet, by key."""
    asks = read_object(job.folder / "asks.json") or {}
    return {
        key: ask
        for key, ask in asks.items()
        if re.fullmatch(NAME, key) and not (job.folder / "answers" / f"{key}.json").exists()
    }


def _declared(ctx: Request) -> bool:
    """Whether the client of this request declared the extension, in a version of the protocol that has it."""
    if ctx.protocol_version not in VERSIONS:
        return False
    try:
        require_client_extension(ctx, TASKS)
    except MCPError:
        return False
    return True


def _check(ctx: Request, params: TaskId) -> None:
    """The client declared the extension (else -32021), and over HTTP its routing header names the task (-32020)."""
    require_client_extension(ctx, TASKS)
    if ctx.request is None:
        return
    told = decode_header_value(ctx.request.headers.get(MCP_NAME_HEADER))
    if told != params.task_id:
        raise MCPError(code=HEADER_MISMATCH, message="the header Mcp-Name is not the taskId of the body")


def _envelope(job: Job) -> dict[str, Any]:
    """What every answer about a task holds. A job stays until somebody deletes its folder: no time to live."""
    task: dict[str, Any] = {
        "taskId": job.id,
        "status": _status(job),
        "createdAt": _time(job.created),
        "lastUpdatedAt": _time(max(job.created, *(_changed(job.folder / name) for name in CHANGING))),
        "ttlMs": None,
        "pollIntervalMs": POLL_MS,
    }
    return task | ({"statusMessage": job.message} if job.message else {})


def _status(job: Job) -> str:
    """The task's word for a job's state: a run that failed has an outcome, one killed from outside has none."""
    if job.going:
        return "input_required" if pending(job) else "working"
    return {"cancelled": "cancelled", "interrupted": "failed"}.get(job.state, "completed")


def _outcome(job: Job, tool: LongTool) -> dict[str, Any]:
    """What tasks/get adds by status: the questions, the tool's result, or the error."""
    status = _status(job)
    if status == "input_required":
        return {"inputRequests": pending(job)}
    if status == "failed":
        return {"error": {"code": INTERNAL_ERROR, "message": job.message or job.state}}
    if status != "completed":
        return {}
    shown = tool.view(job)
    text = job.message if job.state == "failed" else shown.model_dump_json(indent=2)
    result = CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=shown.model_dump(mode="json", by_alias=True),
        is_error=job.state == "failed",
    )
    return {"result": {"resultType": "complete", **result.model_dump(mode="json", by_alias=True, exclude_none=True)}}


def _changed(path: Path) -> float:
    """When a file was last written, 0 where there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
