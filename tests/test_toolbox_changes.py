"""The MCP client and a server that changes, dies and waits: searches follow it, calls are never made twice unasked."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toolboxes import Use, children, shared

from agentlab.tool_index import ToolIndex
from agentlab.toolbox import FIND_TOOLS, ServerSpec, Toolbox
from agentlab.types import BackendError, EvaluationError

CHANGING = ServerSpec("changing", "changing_server")


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the server of tests/changing_server.py notes."""
    folder = tmp_path_factory.mktemp("changing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTLAB_JOBS", str(folder))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield folder / "notes"


@pytest.fixture(scope="module")
def index(notes: Path) -> ToolIndex:
    return ToolIndex(notes.with_name("tools.sqlite"))


@pytest.fixture(scope="module")
def change(notes: Path, index: ToolIndex) -> Iterator[Use]:
    with shared(Toolbox([CHANGING], 60, index)) as run:
        yield run


async def started(toolbox: Toolbox) -> asyncio.Task[dict[str, Any]]:
    """A call that waits for ten minutes, and has begun to."""
    begun = asyncio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    call = asyncio.create_task(toolbox.call("changing.wait", {"seconds": 600}, hear))
    await asyncio.wait_for(begun.wait(), 60)
    return call


def test_a_search_follows_a_server_whose_tools_change(change: Use, index: ToolIndex, notes: Path) -> None:
    async def work(toolbox: Toolbox) -> Any:
        before = await toolbox.find_tools("count the moss", 1)
        await toolbox.call("changing.grow", {"name": "census"})
        changes = await toolbox.sync_tools()
        during = await toolbox.find_tools("count the moss", 1)
        used = await toolbox.call("changing.census", {"moss": 3})
        await toolbox.call("changing.shrink", {"name": "census"})
        after = await toolbox.find_tools("count the moss", 1, refresh=True)
        return before, changes.touched, during[0].name, used, after

    before, touched, during, used, after = change(work)
    assert (touched, during, used) == (("changing.census",), "changing.census", {"result": 3})
    assert before == after
    assert "changing.census" not in {f.name for f in before}
    assert ToolIndex(notes.with_name("tools.sqlite")).tools == index.tools


def test_a_server_that_tells_of_its_change_is_asked_again_unbidden(change: Use) -> None:
    async def work(toolbox: Toolbox) -> Any:
        await toolbox.find_tools("anything at all")
        await toolbox.call("changing.grow", {"name": "census"})
        async with asyncio.timeout(20):
            while not (found := await toolbox.find_tools("moss", 1)):
                pass
        await toolbox.call("changing.shrink", {"name": "census"})
        return found[0].name, toolbox.absent

    assert change(work) == ("changing.census", {})


def test_an_agent_calls_the_search_like_any_other_tool(change: Use) -> None:
    async def work(toolbox: Toolbox) -> Any:
        name = FIND_TOOLS["function"]["name"]
        for wrong in ({}, {"query": 3}, {"query": "x", "k": "3"}, {"query": "x", "limit": 3}):
            with pytest.raises(EvaluationError, match="find_tools: write"):
                await toolbox.call(name, wrong)
        first = await toolbox.call(name, {"query": "process id"})
        return first, await toolbox.call(name, {"query": "wait with progress", "k": 1})

    first, again = change(work)
    assert first["tools"][0]["name"] == "changing.pid"
    assert [t["name"] for t in again["tools"]] == ["changing.wait"]
    assert again["tools"][0]["schema"]["required"] == ["seconds"]
    assert json.dumps(again)


def test_progress_comes_while_a_tool_works(change: Use) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async def work(toolbox: Toolbox) -> Any:
        return await toolbox.call("changing.wait", {"seconds": 0.5}, hear)

    assert change(work) == {"waited": 0.5}
    assert list(heard[0]) == [1, 100, "step 1"]
    assert [p for p, _, _ in heard] == sorted(p for p, _, _ in heard)


def test_leaving_a_call_cancels_it_on_the_server_and_the_server_goes_on(change: Use) -> None:
    async def work(toolbox: Toolbox) -> Any:
        before = await toolbox.call("changing.pid", {})
        call = await started(toolbox)
        call.cancel()
        await asyncio.wait([call])
        ended = await asyncio.wait_for(toolbox.call("changing.cancelled", {}), 20)
        return call.cancelled(), ended, before, await toolbox.call("changing.pid", {})

    cancelled, ended, before, after = change(work)
    assert cancelled
    assert ended == {"cancelled": True}
    assert before == after


def test_a_tool_that_may_be_repeated_is_asked_again_when_its_server_dies_of_it(change: Use) -> None:
    async def work(toolbox: Toolbox) -> Any:
        return await toolbox.call("changing.die_once", {})

    assert change(work) == {"asked": 2}


def test_a_tool_that_may_not_be_repeated_is_never_asked_twice(change: Use, notes: Path) -> None:
    async def work(toolbox: Toolbox) -> Any:
        with pytest.raises(BackendError, match="asking twice may do it twice"):
            await toolbox.call("changing.spend", {})
        return await toolbox.call("changing.pid", {})

    assert change(work)["pid"] > 0
    assert notes.read_text().splitlines().count("spend") == 1


def test_a_server_that_died_unasked_is_replaced_before_a_tool_that_may_not_be_repeated(change: Use) -> None:
    async def work(toolbox: Toolbox) -> Any:
        before = (await toolbox.call("changing.pid", {}))["pid"]
        os.kill(before, signal.SIGKILL)
        return before, (await toolbox.call("changing.pid", {}))["pid"]

    before, after = change(work)
    assert before != after


def test_an_unknown_tool_names_the_nearest_and_words_alone_come_back_as_text(change: Use) -> None:
    async def work(toolbox: Toolbox) -> Any:
        with pytest.raises(EvaluationError, match=r"did you mean 'changing\.shrink'"):
            await toolbox.call("changing.shrnk", {})
        return await toolbox.call("changing.say", {})

    assert change(work) == {"text": "only words"}


def test_a_server_lists_its_tools_and_an_unknown_one_is_refused(change: Use) -> None:
    async def work(toolbox: Toolbox) -> Any:
        with pytest.raises(BackendError, match="no tool server 'other' is running; running are changing"):
            await toolbox.tools("other")
        return await toolbox.tools("changing")

    tools = {tool.name: tool for tool in change(work)}
    assert tools["die_once"].repeatable
    assert not tools["spend"].repeatable


def test_a_call_that_takes_too_long_is_told_so_and_its_process_is_replaced(notes: Path) -> None:
    async def work() -> Any:
        async with Toolbox([CHANGING], timeout=2) as toolbox:
            before = await toolbox.call("changing.pid", {})
            with pytest.raises(BackendError, match="no answer within 2 s"):
                await toolbox.call("changing.wait", {"seconds": 600})
            return before, await toolbox.call("changing.pid", {})

    before, after = asyncio.run(work())
    assert before != after


def test_a_closed_toolbox_leaves_no_server_and_starts_none_again(notes: Path) -> None:
    async def work() -> tuple[list[int], set[int]]:
        others = set(children(CHANGING.module))
        async with Toolbox([CHANGING]) as toolbox:
            call = await started(toolbox)
            own = set(children(CHANGING.module)) - others
        with pytest.raises(BackendError, match="closed"):
            await call
        return list(own), set(children(CHANGING.module)) - others

    own, left = asyncio.run(work())
    assert len(own) == 1
    assert not left


def test_a_server_that_is_gone_for_good_has_no_tools_and_is_named(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> Any:
        async with Toolbox([CHANGING]) as toolbox:
            process = (await toolbox.call("changing.pid", {}))["pid"]
            found = await toolbox.find_tools("process id", 1)
            monkeypatch.setenv("PYTHONPATH", "")
            os.kill(process, signal.SIGKILL)
            return found, await toolbox.find_tools("process id", 1, refresh=True), toolbox.absent

    found, after, absent = asyncio.run(work())
    assert [f.name for f in found] == ["changing.pid"]
    assert after == []
    assert "did not start" in absent["changing"]


@pytest.mark.parametrize("tasks", [False, True])
def test_with_tasks_a_call_that_starts_a_job_waits_for_its_end(notes: Path, tasks: bool) -> None:
    law = {"law": "E + A/params**a", "params": {"E": 1.7, "A": 400.0, "a": 0.34}, "seconds": 1.0}
    config = {"config": {"params": 1e8, "tokens": 1e9, "seed": int(tasks)}, "backend": "simulator", "truth": law}

    async def work() -> Any:
        async with Toolbox([ServerSpec("train", "agentlab.tools.train", tasks=tasks)]) as toolbox:
            begun = await toolbox.call("train.start", config)
            async with asyncio.timeout(60):
                ended = begun
                while ended["state"] != "done":
                    ended = await toolbox.call("train.wait", {"job": begun["job"]})
            return begun["state"], ended["state"]

    begun, ended = asyncio.run(work())
    assert (begun == "done") is tasks
    assert ended == "done"
