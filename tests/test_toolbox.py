"""The MCP client: real servers over stdio, started, called, replaced, refused."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_selection import planted

from agentlab.run_rows import Intake, write_rows
from agentlab.toolbox import ServerSpec, Toolbox, call_once, list_tools
from agentlab.types import BackendError, EvaluationError

FIT = ServerSpec("fit", "agentlab.tools.fit", copies=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task, rows = planted(60)
    write_rows(tmp_path, Intake(task, rows))
    return tmp_path


def use(work: Callable[[Toolbox], Any]) -> Any:
    async def main() -> Any:
        async with Toolbox([FIT]) as toolbox:
            return await work(toolbox)

    return asyncio.run(main())


def test_many_candidates_in_one_call_come_back_in_order(folder: Path) -> None:
    formulas = ["E + A/N**a + B/D**b", "E + A/N**a", "__import__('os')", "a*N**-b*D**-c*foo(N)"]

    async def work(toolbox: Toolbox) -> Any:
        calls = [toolbox.call("fit.laws", {"data": str(folder), "formulas": formulas}) for _ in range(4)]
        return await asyncio.gather(*calls)

    answers = use(work)
    assert all(a == answers[0] for a in answers)
    outcomes = answers[0]["outcomes"]
    assert [o["status"] for o in outcomes] == ["ok", "ok", "rejected", "rejected"]
    assert outcomes[0]["objective"] < outcomes[1]["objective"]
    assert outcomes[2]["reason"].startswith("not a formula")


def test_a_refusal_comes_back_as_the_tools_own_line(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"fit\.laws: .*give a run folder") as told:
        call_once("fit.laws", {"data": str(tmp_path / "nowhere"), "formulas": ["a*x"]})
    assert "\n" not in str(told.value)


def test_a_server_that_died_is_replaced_and_asked_again(folder: Path) -> None:
    arguments = {"data": str(folder), "formulas": ["E + A/N**a"]}

    async def work(toolbox: Toolbox) -> Any:
        before = await toolbox.call("fit.laws", arguments)
        for child in children():
            os.kill(child, signal.SIGKILL)
        return before, [await toolbox.call("fit.laws", arguments) for _ in range(3)]

    before, after = use(work)
    assert after == [before] * 3


def children() -> list[int]:
    """Process ids of this process's fit servers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (folder / "status").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue
        if f"PPid:\t{os.getpid()}\n" in status and "agentlab.tools.fit" in command:
            found.append(int(folder.name))
    return found


def test_servers_are_gone_when_the_toolbox_closes(folder: Path) -> None:
    async def work(toolbox: Toolbox) -> Any:
        await toolbox.call("fit.law", {"data": str(folder), "formula": "E + A/N**a"})
        return children()

    assert len(use(work)) == 2
    assert children() == []


def test_secrets_of_our_environment_do_not_reach_a_tool_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    async def work(toolbox: Toolbox) -> Any:
        await toolbox.call("fit.law", {"data": str(folder), "formula": "E + A/N**a"})
        return [(Path("/proc") / str(c) / "environ").read_bytes() for c in children()]

    environments = use(work)
    assert environments
    assert not any(b"sk-secret" in e for e in environments)


def test_an_unknown_server_or_one_that_cannot_start_is_told_in_one_line() -> None:
    async def work(toolbox: Toolbox) -> Any:
        return await toolbox.call("fitt.laws", {})

    with pytest.raises(BackendError, match="fitt"):
        use(work)

    async def broken() -> None:
        async with Toolbox([ServerSpec("x", "agentlab.tools.no_such_module")]):
            pass

    with pytest.raises(BackendError, match="did not start"):
        asyncio.run(broken())


def test_every_tool_has_a_description_and_annotations() -> None:
    names = {t["name"] for t in list_tools()}
    assert {"fit.law", "fit.laws", "fit.refit"} <= names
    assert all(t["description"] for t in list_tools())


def test_the_single_fit_tells_how_well_its_parameters_are_known(folder: Path) -> None:
    answer = call_once("fit.law", {"data": str(folder), "formula": "E + A/N**a + B/D**b"})
    params = answer["params"]["all"]["loss"]
    assert abs(params["E"] - 1.69) < 0.3
    assert answer["converged"]["all"]["loss"] > 0
    assert np.isfinite(answer["condition"]["all"]["loss"])
