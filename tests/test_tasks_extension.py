"""The tasks extension over the job store, between real servers and clients, over stdio and HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from agentlab.tools._jobs import Store
from agentlab.tools._tasks import LongTool, Tasks
from mcp import Client, MCPError
from mcp.client import ClientExtension
from mcp.types import CallToolResult
from pydantic import BaseModel
from server_process import Served, http_client, served, stdio

from agentlab.tool_tasks import TASKS, TasksClient, TaskState, cancel_task, follow, task_state

MODULE = "conformance.fixture_server"
Open = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the jobs, which every server here shares; none is left running."""
    folder = tmp_path_factory.mktemp("jobs")
    yield folder
    for job in Store(folder).list(limit=1000):
        if job.going:
            Store(folder).cancel(job.id)


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that only wait need no processor of their own."""
    monkeypatch.setenv("AGENTLAB_MAX_JOBS", "64")


@pytest.fixture(scope="module")
def env(jobs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = str(tmp_path_factory.mktemp("cache"))
    return {"AGENTLAB_JOBS": str(jobs), "AGENTLAB_MAX_JOBS": "64", "XDG_CACHE_HOME": cache}


@pytest.fixture(scope="module")
def server(env: dict[str, str]) -> Iterator[Served]:
    """The fixture server over HTTP."""
    with served(MODULE, env=env) as found:
        yield found


@pytest.fixture(params=["stdio", "http"])
def opened(request: pytest.FixtureRequest, server: Served, env: dict[str, str]) -> Open:
    """A way to a client with the given extensions, over stdio and over HTTP."""

    @asynccontextmanager
    async def way(*extensions: ClientExtension) -> AsyncIterator[Client]:
        if request.param == "http":
            async with http_client(server, extensions) as client:
                yield client
        else:
            async with Client(stdio(MODULE, env), extensions=list(extensions) or None) as client:
                yield client

    return way


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(main)


def answer(jobs: Path, task_id: str, key: str = "confirm") -> None:
    """What a job waits for, put where it looks: it ends now."""
    folder = jobs / task_id / "answers"
    folder.mkdir(exist_ok=True)
    (folder / "part").write_text('{"action": "accept"}')
    (folder / "part").rename(folder / f"{key}.json")


async def when(condition: Callable[[], bool]) -> None:
    """Look until it is so; a test that waits for ever is ended."""
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 -- the condition is a file of another process
            await anyio.sleep(0.02)


async def begin(client: Client, tool: str, **arguments: Any) -> str:
    """Start a long tool and leave it to itself; the id of its task."""
    created = await client.session.call_tool(tool, arguments, allow_claimed=True)
    return str(created.task_id)  # type: ignore[union-attr]


def test_the_call_of_a_long_tool_returns_what_its_job_came_to(opened: Open, jobs: Path) -> None:
    states: list[TaskState] = []

    async def main() -> CallToolResult:
        async with opened(TasksClient(states.append)) as client:
            return await client.call_tool("slow_compute", {"seconds": 0.1, "label": "all of it"})

    result = run(main)
    assert not result.is_error
    assert result.structured_content["state"] == "done"
    assert result.structured_content["result"] == {"done": "all of it"}
    assert states[-1].status == "completed"
    assert {state.task_id for state in states} == {result.structured_content["job"]}
    assert (jobs / states[0].task_id / "result.json").exists()


def test_a_client_without_the_extension_gets_the_job_at_once(opened: Open, jobs: Path) -> None:
    async def main() -> Any:
        async with opened() as client:
            return (await client.call_tool("confirm_delete", {"filename": "a"})).structured_content

    job = run(main)
    assert job["state"] in ("starting", "running")
    assert Store(jobs).find(job["job"]).going
    Store(jobs).cancel(job["job"])


def test_leaving_the_call_cancels_the_job(opened: Open, jobs: Path) -> None:
    seen: list[str] = []

    async def main() -> None:
        scope = anyio.CancelScope()

        def look(state: TaskState) -> None:
            seen.append(state.task_id)
            scope.cancel()

        async with opened(TasksClient(look)) as client:
            with scope:
                await client.call_tool("slow_compute", {"seconds": 600})
        assert scope.cancelled_caught

    run(main)
    assert Store(jobs).find(seen[0]).state == "cancelled"


def test_a_job_whose_client_vanished_goes_on(server: Served, jobs: Path) -> None:
    seen: list[str] = []

    async def main() -> None:
        with anyio.CancelScope() as scope:

            def look(state: TaskState) -> None:
                seen.append(state.task_id)
                scope.cancel()

            async with http_client(server, [TasksClient(look)]) as client:
                await client.call_tool("confirm_delete", {"filename": "f"})
        assert scope.cancelled_caught

    run(main)
    assert Store(jobs).find(seen[0]).going


def test_a_call_that_takes_too_long_is_told_and_its_job_cancelled(server: Served, jobs: Path) -> None:
    seen: list[str] = []

    async def main() -> None:
        async with http_client(server, [TasksClient(lambda state: seen.append(state.task_id))]) as client:
            with pytest.raises(MCPError, match=r"did not end in 0\.5 s"):
                await client.call_tool("slow_compute", {"seconds": 600}, read_timeout_seconds=0.5)

    run(main)
    assert Store(jobs).find(seen[0]).state == "cancelled"


def test_another_connection_finds_the_task_and_waits_for_it(opened: Open, server: Served, jobs: Path) -> None:
    async def main() -> CallToolResult:
        async with opened(TasksClient()) as first:
            task_id = await begin(first, "confirm_delete", filename="b")
        async with http_client(server, [TasksClient()]) as second:
            state = await task_state(second.session, task_id)
            assert state.status in ("working", "input_required")
            await when((jobs / task_id / "asks.json").exists)
            answer(jobs, task_id)
            return await follow(second.session, task_id)

    result = run(main)
    assert result.structured_content["result"] == {"confirm": {"action": "accept"}}


def test_a_server_started_after_the_first_was_killed_finds_the_task_and_its_whole_result(
    env: dict[str, str], jobs: Path
) -> None:
    async def start(first: Served) -> str:
        async with http_client(first, [TasksClient()]) as client:
            return await begin(client, "confirm_delete", filename="c")

    async def finish(second: Served) -> CallToolResult:
        async with http_client(second, [TasksClient()]) as client:
            await when((jobs / task_id / "asks.json").exists)
            answer(jobs, task_id)
            return await follow(client.session, task_id)

    with served(MODULE, env=env) as first:
        task_id = anyio.run(start, first)
        first.process.kill()
        first.process.wait(60)
    assert Store(jobs).find(task_id).going
    with served(MODULE, env=env) as second:
        result = anyio.run(finish, second)
    assert result.structured_content is not None
    assert result.structured_content["result"] == {"confirm": {"action": "accept"}}


def test_a_run_that_failed_has_an_outcome_and_one_killed_from_outside_has_none(opened: Open) -> None:
    async def main() -> tuple[CallToolResult, CallToolResult]:
        async with opened(TasksClient()) as client:
            return await client.call_tool("failing_job", {}), await client.call_tool("protocol_error_job", {})

    failed, killed = run(main)
    assert failed.is_error
    assert failed.content[0].text == "this job fails, as it should"
    assert failed.structured_content["state"] == "failed"
    assert killed.is_error
    assert "failed: killed from outside" in killed.content[0].text


def test_a_job_that_asks_says_so_to_a_client_that_cannot_answer(server: Served, jobs: Path) -> None:
    seen: list[str] = []

    async def main() -> CallToolResult:
        async with http_client(server, [TasksClient(lambda state: seen.append(state.task_id))]) as client:
            result = await client.call_tool("confirm_delete", {"filename": "d"})
            await cancel_task(client.session, seen[0])
            return result

    result = run(main)
    assert result.is_error
    assert "waits for an answer to confirm" in result.content[0].text
    assert Store(jobs).find(seen[0]).state == "cancelled"


def test_cancelling_a_finished_task_changes_nothing(server: Served) -> None:
    async def main() -> tuple[str, str]:
        async with http_client(server, [TasksClient()]) as client:
            task_id = await begin(client, "slow_compute", seconds=0)
            await follow(client.session, task_id)
            await cancel_task(client.session, task_id)
            return (await task_state(client.session, task_id)).status, task_id

    assert run(main)[0] == "completed"


# ---- what is refused ----


def post(server: Served, method: str, params: dict[str, Any], *, name: str | None, declares: bool = True) -> Any:
    """The error of a request made by hand."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}} if declares else {},
    }
    headers = {
        "Accept": "application/json, text/event-stream",
        "Authorization": f"Bearer {server.token}",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": method,
    } | ({} if name is None else {"Mcp-Name": name})
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}}
    reply = httpx2.post(server.url, json=body, headers=headers, timeout=30)
    return reply.status_code, reply.json().get("error", {}).get("code")


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
def test_a_header_that_names_another_task_is_refused(server: Served, method: str) -> None:
    params = {"taskId": "mine", "inputResponses": {}}
    assert post(server, method, params, name="yours") == (400, -32020)
    assert post(server, method, params, name=None) == (400, -32020)
    assert post(server, method, params, name="mine") == (400, -32602)
    assert post(server, method, params, name="=?base64?bWluZQ==?=") == (400, -32602)


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
def test_the_methods_are_for_clients_that_declare_the_extension(server: Served, method: str) -> None:
    assert post(server, method, {"taskId": "x"}, name="x", declares=False) == (400, -32021)


def test_a_tool_that_requires_the_extension_refuses_others_before_it_starts_anything(
    server: Served, jobs: Path
) -> None:
    before = len(Store(jobs).list("failing_job"))
    code = post(server, "tools/call", {"name": "failing_job", "arguments": {}}, name="failing_job", declares=False)
    assert code == (400, -32021)
    assert len(Store(jobs).list("failing_job")) == before


@pytest.mark.parametrize("task_id", ["nothing", "../jobs", "..", "", "a/b", "x" * 200, "\u00e9"])
def test_an_id_of_no_task_is_refused_in_one_line(server: Served, task_id: str) -> None:
    async def main() -> str:
        async with http_client(server, [TasksClient()]) as client:
            with pytest.raises(MCPError) as told:
                await task_state(client.session, task_id)
            assert told.value.code == -32602
            return told.value.message

    assert "\n" not in run(main)


def test_a_job_of_another_server_is_no_task_here(server: Served, jobs: Path) -> None:
    job = Store(jobs).start("elsewhere", {}, lambda _: ["true"])
    assert post(server, "tasks/get", {"taskId": job.id}, name=job.id) == (400, -32602)


def test_an_answer_that_was_not_asked_for_is_written_nowhere(server: Served, jobs: Path) -> None:
    async def main() -> str:
        async with http_client(server, [TasksClient()]) as client:
            return await begin(client, "confirm_delete", filename="e")

    task_id = run(main)
    anyio.run(when, (jobs / task_id / "asks.json").exists)
    wrong = {key: {"action": "accept"} for key in ("other", "../result", "../../result", "")}
    params = {"taskId": task_id, "inputResponses": wrong}
    assert post(server, "tasks/update", params, name=task_id) == (200, None)
    assert not (jobs / task_id / "answers").exists()
    assert not (jobs / task_id / "result.json").exists()
    Store(jobs).cancel(task_id)


def test_a_damaged_file_is_told_in_one_line(server: Served, jobs: Path) -> None:
    async def main() -> str:
        async with http_client(server, [TasksClient()]) as client:
            task_id = await begin(client, "slow_compute", seconds=0)
            await follow(client.session, task_id)
            (jobs / task_id / "asks.json").write_text("[")
            (jobs / task_id / "result.json").write_text("{")
            with pytest.raises(MCPError, match=r"result\.json is damaged") as told:
                await task_state(client.session, task_id)
            return told.value.message

    assert "\n" not in run(main)


def test_training_is_a_task_too(jobs: Path, env: dict[str, str]) -> None:
    truth = {"law": "E + A/N**a", "params": {"E": 1.7, "A": 400.0, "a": 0.34}}
    call = {"config": {"N": 1e8, "D": 1e10}, "backend": "simulator", "truth": truth}

    async def main() -> tuple[str, CallToolResult]:
        async with Client(stdio("agentlab.tools.train", env), extensions=[TasksClient()]) as client:
            return await begin(client, "start", **call), await client.call_tool("start", call)

    task_id, result = run(main)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    assert result.structured_content["job"] == task_id
    assert result.structured_content["state"] == "done"
    assert result.structured_content["simulated"]
    assert Store(jobs).find(task_id).kind == "train"


def test_two_tools_cannot_start_jobs_of_one_kind() -> None:
    class View(BaseModel):
        job: str

    tool = LongTool("same", lambda job: View(job=job.id))
    with pytest.raises(ValueError, match="one kind"):
        Tasks(lambda: Store(Path()), {"a": tool, "b": tool})
